"""The files that a model file imports or reads from beside itself, found by reading it and running nothing."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import pathlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_IMPORTERS = ("import_module", "__import__")


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
