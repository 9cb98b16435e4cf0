"""Whatever is public says what it does, itself or in the protocol or base class that it fulfils."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = Path(__file__).parents[2] / "daskflow"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "testing" not in path.parts and path.name != "__main__.py")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def public(owner: ModuleType | type, module: str) -> Iterator[tuple[str, object]]:
    """Public classes and functions that a module defines, and the methods and properties of those classes."""
    for name, value in vars(owner).items():
        value = inspect.unwrap(value.fget) if isinstance(value, property) and value.fget else value
        value = getattr(value, "__func__", value)
        if name.startswith("_") or getattr(value, "__module__", None) != module:
            continue
        if inspect.isclass(value):
            yield value.__qualname__, value
            yield from public(value, module)
        elif inspect.isfunction(value):
            documented = value if isinstance(owner, ModuleType) else getattr(owner, name)
            yield f"{getattr(owner, '__qualname__', owner.__name__)}.{name}", documented


def load(path: Path) -> ModuleType:
    try:
        return importlib.import_module(module_name(path))
    except ImportError as error:
        if str(error.name).startswith("daskflow"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def promised() -> set[str]:
    """Methods and properties that a protocol describes; classes fulfil protocols without inheriting from them."""
    protocols = [
        value
        for path in MODULES
        if "Protocol" in path.read_text()
        for value in vars(load(path)).values()
        if inspect.isclass(value) and getattr(value, "_is_protocol", False)
    ]
    return {
        name
        for one in protocols
        for name, value in vars(one).items()
        if (callable(value) or isinstance(value, property)) and inspect.getdoc(value)
    }


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_whatever_is_public_has_a_docstring(path, promised):
    module = load(path)
    assert module.__doc__
    silent = [where for where, value in public(module, module_name(path)) if not inspect.getdoc(value)]
    assert [where for where in silent if where.rpartition(".")[2] not in promised] == []
