"""Whatever is public says what it does."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = Path(__file__).parents[2] / "daskflow"


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


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_whatever_is_public_has_a_docstring(path):
    name = module_name(path)
    if name.endswith("__main__"):
        pytest.skip("importing it runs it")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("daskflow"):
            raise
        pytest.skip(f"needs {error.name}")
    assert module.__doc__
    assert [where for where, value in public(module, name) if not inspect.getdoc(value)] == []
