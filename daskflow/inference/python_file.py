"""Model files in Python: what they need from beside themselves, found by reading; and running them.

Running one runs its author's code, so they come from explicit local paths only. A model file and the neighbours that it
imports are modules of a package of their own,

    daskflow_model_1f3a...           the model file, where it belongs to no package
    daskflow_model_1f3a.helper       what its `import helper` gives

so two models may both have a `helper`, and the working directory, `sys.path` and earlier imports do not matter.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import importlib
import importlib.abc
import importlib.util
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from daskflow.errors import ModelError

if TYPE_CHECKING:
    from daskflow.inference.network import ModelFile

_IMPORTERS = ("import_module", "__import__")
_PREFIX = "daskflow_model_"


def package_of(path: Path) -> tuple[str, Path]:
    """Return the package that a file belongs to, "" without one, and the folder that holds the package."""
    names: list[str] = []
    folder = path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names), folder


def neighbours(model: Path) -> dict[str, Path]:
    """Return the modules that a model file imports from its neighbours, and they from theirs, by dotted name.

    Other files that a text in any of them names, such as "config.json", go by a slash and the path from the model.
    A top-level name is looked for in the file's folder, in the folder that holds its package, in the folders that it
    adds to `sys.path`, among what is installed, and in the working directory. Other names are left to Python.
    """
    package, holder = package_of(model)
    found: dict[str, Path] = {}
    folders = [model.parent, holder]
    parts = package.split(".") if package else []
    waiting = [".".join(parts[: n + 1]) for n in range(len(parts))]
    waiting += _imports(model, package, folders)
    found |= _named_files(model, model.parent)
    seen: set[str] = set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for name, file, inside in _resolved(one, folders):
            if name not in found and file is not None and file != model:
                found |= {name: file, **_named_files(file, model.parent)}
                waiting += _imports(file, inside, folders)
    return found


def _imports(file: Path, package: str, folders: list[Path]) -> list[str]:
    """Return the absolute names that a file may import, and add the folders that it adds to `sys.path`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # the file says so itself when it is run
        return []
    folders += [folder for folder in _added(tree, file) if folder not in folders]
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node.module or "", node.level, package)
            names += [".".join([*([base] if base else []), alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _IMPORTERS:
            for name in (one.value for one in node.args[:1] if isinstance(one, ast.Constant)):
                bare = str(name).lstrip(".")
                names.append(_absolute(bare, len(str(name)) - len(bare), package))
    return names


def _absolute(name: str, level: int, package: str) -> str:
    """Return the absolute name of a module that is named from within a package, by so many dots."""
    parts = package.split(".") if package and level else []
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


def _named_files(file: Path, folder: Path) -> dict[str, Path]:
    """Return the files that texts in a Python file name by paths from its own folder, by their paths from `folder`."""
    found: dict[str, Path] = {}
    with contextlib.suppress(SyntaxError):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                with contextlib.suppress(OSError, ValueError):  # no path at all
                    named = file.parent / node.value
                    if named.is_file() and named != file:
                        found[f"/{os.path.relpath(named, folder)}"] = named
    return found


def _resolved(name: str, folders: list[Path]) -> Iterator[tuple[str, Path | None, str]]:
    """Yield each module on the way to a dotted name: its own name, its file, and the package that it is or is in."""
    top, *rest = name.split(".")
    base = _base(top, folders)
    dotted = top
    while base is not None:
        if (base / "__init__.py").is_file():
            yield dotted, base / "__init__.py", dotted
        elif base.with_name(f"{base.name}.py").is_file():
            yield dotted, base.with_name(f"{base.name}.py"), dotted.rpartition(".")[0]
            return
        elif not base.is_dir():
            return
        if rest == ["*"]:  # what __all__ names is imported too
            yield from ((f"{dotted}.{one.stem}", one, dotted) for one in base.glob("*.py") if one.stem != "__init__")
        if not rest:
            return
        base, dotted = base / rest[0], f"{dotted}.{rest[0]}"
        rest = rest[1:]


def _base(top: str, folders: list[Path]) -> Path | None:
    """Return where a top-level name lies, without ``.py``, or None when it is not a neighbour."""
    if top in sys.builtin_module_names or top == "daskflow":
        return None
    for folder in folders:
        if (folder / top / "__init__.py").is_file() or (folder / f"{top}.py").is_file():
            return folder / top
    here = Path.cwd()
    if _installed(top, here):
        return None
    for folder in [*folders, here]:
        if (folder / f"{top}.py").is_file() or any((folder / top).glob("*.py")) or any((folder / top).glob("*/*.py")):
            return folder / top
    return None


def _installed(top: str, here: Path) -> bool:
    """Return whether Python finds a name by itself, elsewhere than in the working directory."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None or spec.origin is None:  # nothing, or a folder without __init__.py
        return False
    return Path(spec.origin) not in (here / f"{top}.py", here / top / "__init__.py")


def _added(tree: ast.AST, file: Path) -> Iterator[Path]:
    """Yield the folders that a file adds to `sys.path` by expressions of `__file__`, `os` and `pathlib`."""
    assigned = _Names(file)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            assigned.expressions[node.targets[0].id] = node.value
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.path.insert", "sys.path.append"):
            with contextlib.suppress(Exception):  # whatever an expression raises that needs more than paths
                folder = Path(os.path.abspath(str(assigned.value(node.args[-1]))))  # noqa: PTH100 (no links followed)
                if folder.is_dir():
                    yield folder


class _Names(dict[str, Any]):
    """What expressions over paths may name: `__file__`, modules for paths, and names assigned in the file."""

    def __init__(self, file: Path) -> None:
        super().__init__(__file__=str(file), os=os, Path=Path, pathlib=pathlib, osp=os.path, path=os.path, str=str)
        self.expressions: dict[str, ast.expr] = {}

    def __missing__(self, name: str) -> Any:
        expression = self.expressions.pop(name, None)
        if expression is None:
            raise KeyError(name)
        self[name] = self.value(expression)
        return self[name]

    def value(self, expression: ast.expr) -> Any:
        """Return what an expression stands for."""
        code = compile(ast.Expression(expression), "sys.path", "eval")
        return eval(code, {"__builtins__": {}}, self)  # noqa: S307 (of a file that is run later)


def run_model_file(file: ModelFile) -> ModuleType:
    """Return the module that a Python file makes when it is run; its neighbours are run again, too."""
    path = Path(file.path)
    if path.suffix != ".py":
        raise ModelError(f"model file {path} is not a Python file; its name must end in .py")
    root = f"{_PREFIX}{file.token}"
    for name in [name for name in sys.modules if name == root or name.startswith(f"{root}.")]:
        del sys.modules[name]
    package = package_of(path)[0]
    name = f"{root}.{package}.{path.stem}" if package else root
    for _, neighbour in filter(lambda one: one[0].startswith("/"), file.neighbours):
        neighbour.verified()
    private = {f"{root}.{one}": neighbour for one, neighbour in file.neighbours} | {name: file}
    _finder.files = _finder.files | private  # another dict: threads may be looking through this one
    _finder.roots[root] = frozenset(one.partition(".")[0] for one, _ in file.neighbours)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    try:
        return importlib.import_module(name)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"model file {path} does not run: {error!r}") from error


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the files of models by the names that are private to each model; its roots are the names of neighbours."""

    def __init__(self) -> None:
        self.files: dict[str, ModelFile] = {}
        self.roots: dict[str, frozenset[str]] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 (as MetaPathFinder has it)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        root = fullname.partition(".")[0]
        if root not in self.roots:
            return None
        file = self.files.get(fullname)
        package = any(name.startswith(f"{fullname}.") for name in self.files)
        if file is None and not package and fullname != root:
            raise ModuleNotFoundError(
                f"no module named {fullname.removeprefix(f'{root}.')!r} beside the model; name it in an import"
                " statement, by which its file is found",
                name=fullname,
            )
        if file is None:  # a folder without __init__.py
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = []
            return spec
        package = package or fullname == root or Path(file.path).name == "__init__.py"
        spec = ModuleSpec(fullname, _Loader(file, root, self.roots[root]), origin=file.path, is_package=package)
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [str(Path(file.path).parent)]
        return spec


_finder = _Finder()


class _Loader(importlib.abc.Loader):
    """Runs a file as it was planned, not what Python has cached of it; its imports prefer its neighbours."""

    def __init__(self, file: ModelFile, root: str, names: frozenset[str]) -> None:
        self._file = file
        self._import = functools.partial(_import, root, names)

    def exec_module(self, module: ModuleType) -> None:
        code = compile(self._file.content(), self._file.path, "exec")
        vars(module)["__builtins__"] = vars(builtins) | {"__import__": self._import}
        exec(code, vars(module))  # noqa: S102 (running the user's file is the purpose)


def _import(
    root: str,
    names: frozenset[str],
    name: str,
    globals: Mapping[str, Any] | None = None,  # noqa: A002 (as __import__ has it)
    locals: Mapping[str, Any] | None = None,  # noqa: A002
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """Import as `__import__` does, neighbours first."""
    top = name.partition(".")[0]
    if level or top not in names:
        module = builtins.__import__(name, globals, locals, fromlist or (), level)
        return _importlib(root, names) if module is importlib else module
    module = builtins.__import__(f"{root}.{name}", globals, locals, fromlist or ("__name__",), 0)
    return module if fromlist else sys.modules[f"{root}.{top}"]


def _importlib(root: str, names: frozenset[str]) -> ModuleType:
    """Return Python's importlib, whose `import_module` finds neighbours first."""

    def import_module(name: str, package: str | None = None) -> ModuleType:
        private = not name.startswith(".") and name.partition(".")[0] in names
        return importlib.import_module(f"{root}.{name}" if private else name, package)

    module = ModuleType("importlib")
    vars(module).update(vars(importlib), import_module=import_module)
    return module
