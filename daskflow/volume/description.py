"""What a result depends on, as JSON that is the same in every process."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np


def describe(value: Any) -> Any:
    """Return `value` as JSON; arrays and functions by the hash of their content.

    An object may say itself what it depends on with a method ``describe()``.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
        return f"{value.dtype} {value.shape} {content}"
    if hasattr(value, "describe"):
        return value.describe()
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(str(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [describe(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, PurePath | np.dtype):
        return str(value)
    if callable(value):
        return describe_function(value)
    return repr(value)


def describe_function(function: Callable[..., Any]) -> str:
    """Return the name of a function, and a hash of its code where the name alone does not fix it.

    Functions of daskflow are fixed by its version, which a job records.
    """
    if isinstance(function, functools.partial):
        return f"{describe_function(function.func)} {describe(function.args)} {describe(function.keywords)}"
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"
    code = getattr(function, "__code__", None)
    if code is None or name.startswith("daskflow."):
        return name
    closed = [describe(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]
    digest = hashlib.sha256(repr((_code(code), closed, getattr(function, "__defaults__", None))).encode())
    return f"{name} {digest.hexdigest()[:16]}"


def _code(code: types.CodeType) -> tuple[Any, ...]:
    return code.co_code, tuple(map(_constant, code.co_consts)), code.co_names


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _code(value)
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
