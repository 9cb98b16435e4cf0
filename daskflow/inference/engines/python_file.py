"""Model files in Python: running one runs its author's code, so they come from explicit local paths only.

A model file and the neighbours that it imports are modules of a package of their own,

    daskflow_model_1f3a...           the model file, where it belongs to no package
    daskflow_model_1f3a.helper       what its `import helper` gives

so two models may both have a `helper`, and the working directory, `sys.path` and earlier imports do not matter.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from daskflow.errors import ModelError
from daskflow.inference.neighbours import package_of
from daskflow.inference.network import ModelFile

_PREFIX = "daskflow_model_"


def run_model_file(file: ModelFile) -> ModuleType:
    """Return the module that a Python file makes when it is run, its neighbours run anew too.

    Raises:
        ModelError: it is no Python file, it or a neighbour has changed, or it raises.
    """
    path = Path(file.path)
    if path.suffix != ".py":
        raise ModelError(f"model file {path} is no Python file; its name must end in .py")
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
    """Finds the files of models by the names that are private to each model.

    Attributes:
        files: what each module is run from.
        roots: the top-level names that each model's neighbours go by.
    """

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
