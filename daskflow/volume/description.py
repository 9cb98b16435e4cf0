"""What a result depends on, as JSON that is the same in every process.

A function stands for its code, and for what the code depends on: defaults, closures, the object of a bound method, and
the globals it names, further functions included. Code of daskflow is fixed by daskflow's version, which a job records;
the code of an installed package, or of Python, counts without the globals it names.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import json
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

_PACKAGES = {"site-packages", "dist-packages"}
_SILENT = {
    "__annotations__",
    "__dataclass_fields__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__static_attributes__",
    "__weakref__",
}


class Option:
    """What says itself what a result depends on, and may know before anything runs that it would fail."""

    def describe(self) -> Any:
        """Return what the result depends on, as JSON."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise what can be known to fail before a voxel is read."""


def describe(value: Any) -> Any:
    """Return `value` as JSON; arrays, functions and objects by the hash of their content.

    An object may say itself what it depends on with a method ``describe()``. One that cannot be pickled, such as a
    lock, stands for its type alone.
    """
    return _Description().value(value)


def describe_function(function: Callable[..., Any]) -> str:
    """Return the name of a function, and a hash of what it depends on where the name alone does not fix it."""
    return _Description().function(function)


class _Description:
    """One walk from a value to all that it depends on; what is met again is named by when it was met first."""

    def __init__(self) -> None:
        self._met: dict[int, tuple[int, Any]] = {}

    def value(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, enum.Enum):
            return f"{_name(type(value))}.{value.name} {self.value(value.value)}"
        if isinstance(value, int | float | str):
            return value
        if isinstance(value, np.generic):
            item = value.item()
            return item if isinstance(item, bool | int | float | str) else repr(value)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor):
            return self._tensor(value)
        if isinstance(value, PurePath | np.dtype | range):
            return str(value)
        if isinstance(value, types.ModuleType):
            return f"module {value.__name__}"
        if isinstance(value, Option):
            return value.describe()
        return self._contents(value)

    def _contents(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): self.value(item) for key, item in value.items()}
        if isinstance(value, set | frozenset):
            return sorted((self.value(item) for item in value), key=_text)
        if isinstance(value, bytes | bytearray):
            return f"bytes {_digest(bytes(value))}"
        if isinstance(value, Sequence):
            return [self.value(item) for item in value]
        if _ours(type(value).__module__) and dataclasses.is_dataclass(value):
            fields = {field.name: self.value(getattr(value, field.name)) for field in dataclasses.fields(value)}
            return {"type": _name(type(value)), **fields} if callable(value) else fields
        if callable(value):
            return self.function(value)
        return self._object(value)

    def _array(self, array: np.ndarray[Any, Any]) -> Any:
        if array.dtype.hasobject:
            return [f"{array.dtype} {array.shape}", self.value(array.tolist())]
        return f"{array.dtype} {array.shape} {_digest(np.ascontiguousarray(array).tobytes())}"

    def _tensor(self, tensor: Any) -> Any:
        plain = tensor.detach().cpu()  # its pickle differs from process to process
        return [str(tensor.dtype), self._array((plain.double() if plain.is_floating_point() else plain).numpy())]

    def function(self, function: Callable[..., Any]) -> str:
        if isinstance(function, functools.partial):
            return f"{self.function(function.func)} {self.value(function.args)} {self.value(dict(function.keywords))}"
        if isinstance(function, type):
            return self._class(function)
        if isinstance(function, types.MethodType):
            return f"{self.function(function.__func__)} of {self.value(function.__self__)}"
        if isinstance(function, types.FunctionType):
            return self._python(function)
        wrapped = getattr(function, "__wrapped__", None)
        if callable(wrapped):
            return self.function(wrapped)
        owner = getattr(function, "__self__", None)
        if isinstance(function, types.BuiltinMethodType) and not isinstance(owner, types.ModuleType | None):
            return f"{_name(function)} of {self.value(owner)}"
        if isinstance(getattr(function, "__name__", None), str) and _installed(type(function)):
            return _name(function)
        return self._object(function)

    def _python(self, function: types.FunctionType) -> str:
        name = _name(function)
        if _ours(function.__module__):
            return name
        if (again := self._again(function)) is not None:
            return f"{name} {again}"
        parts = [
            _code(function.__code__),
            [self.value(_closed(cell)) for cell in function.__closure__ or ()],
            self.value(function.__defaults__),
            self.value(function.__kwdefaults__),
        ]
        if not _installed_file(function.__code__.co_filename):
            known = function.__globals__
            named = sorted(set(_globals(function.__code__)) & known.keys())
            parts.append({one: self.value(known[one]) for one in named})
        return f"{name} {_digest(_text(parts).encode())}"

    def _class(self, cls: type) -> str:
        name = _name(cls)
        if _ours(cls.__module__) or _installed(cls):
            return name
        if (again := self._again(cls)) is not None:
            return f"{name} {again}"
        bases = [self._class(base) for base in cls.__bases__]
        members = {key: self._member(member) for key, member in vars(cls).items() if not _ignored(key, member)}
        return f"{name} {_digest(_text([bases, members]).encode())}"

    def _member(self, member: Any) -> Any:
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        if isinstance(member, property):
            return [self.value(one) for one in (member.fget, member.fset)]
        return self.value(member)

    def _object(self, value: Any) -> str:
        if (again := self._again(value)) is not None:
            return f"{_name(type(value))} {again}"
        if hasattr(type(value), "__dask_tokenize__"):
            return f"{_name(type(value))} {value.__dask_tokenize__()}"
        kind = type(value)
        try:
            state = _state(value)
        except Exception:  # noqa: BLE001 (whatever the object's own pickling raises)
            state = "unpicklable"
        if state is None and _installed(kind):
            return f"{_name(kind)} {_pickled(value)}"
        return f"{self._class(kind)} {_digest(_text(self.value(state)).encode())}"

    def _again(self, value: Any) -> str | None:
        """Return when a value was met first, or None at that time."""
        if id(value) in self._met:
            return f"#{self._met[id(value)][0]}"
        self._met[id(value)] = len(self._met), value  # held, so that no other object gets its id
        return None


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', None) or ''}.{getattr(value, '__qualname__', None) or value.__name__}"


def _ours(module: str | None) -> bool:
    return module is not None and module.startswith("daskflow.")


def _installed(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    if kind.__module__ == "__main__":
        return False
    file = getattr(module, "__file__", None)
    if file is None:
        return kind.__module__.partition(".")[0] in sys.stdlib_module_names
    return _installed_file(file)


def _installed_file(file: str) -> bool:
    python = sysconfig.get_path("stdlib")
    return file.startswith(("<frozen", f"{python}/")) or not _PACKAGES.isdisjoint(PurePath(file).parts)


def _state(value: Any) -> Any:
    """Return what an object holds, or None when only its pickle knows."""
    kind = type(value)
    if not any("__reduce__" in vars(base) or "__reduce_ex__" in vars(base) for base in kind.__mro__[:-1]):
        return value.__getstate__()
    if _installed(kind):
        return None
    reduced = value.__reduce_ex__(4)
    return reduced if isinstance(reduced, str) else list(reduced[1:3])


def _ignored(name: str, member: Any) -> bool:
    """Return whether a member of a class says nothing about what its instances do."""
    return name in _SILENT or isinstance(member, types.GetSetDescriptorType | types.MemberDescriptorType)


def _pickled(value: Any) -> str:
    import cloudpickle

    try:
        return _digest(cloudpickle.dumps(value))
    except Exception:  # noqa: BLE001 (whatever __reduce__ raises)
        return "unpicklable"


def _closed(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "not set yet"


def _globals(code: types.CodeType) -> Iterator[str]:
    """Yield the globals that code names, its inner functions included."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals(constant)


def _code(code: types.CodeType) -> list[Any]:
    return [code.co_code.hex(), [_constant(constant) for constant in code.co_consts], list(code.co_names)]


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _code(value)
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
