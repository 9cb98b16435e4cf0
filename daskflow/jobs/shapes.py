"""JSON values as the types that a job keeps: whether they have the shape, and what they become."""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any, Literal


def fits(value: Any, kind: Any) -> bool:
    """Return whether a JSON value can become a type: of numbers, texts, lists, mappings, dataclasses, and unions.

    It may come from a stranger or a fault. What a dataclass does not know is passed over; fields with defaults may be
    absent.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        fields = dataclasses.fields(kind)
        needed = {one.name for one in fields if one.default is one.default_factory is dataclasses.MISSING}
        known = isinstance(value, dict) and needed <= value.keys()
        return known and all(fits(value[name], hint) for name, hint in _hints(kind).items() if name in value)
    if origin is Literal:
        return any(value == one for one in inner)
    if origin in (tuple, list):
        return isinstance(value, list) and all(fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, inner[1]) for one in value.values())
    if inner:
        return any(fits(value, one) for one in inner)
    return isinstance(value, (int, float) if kind is float else kind)


def from_json(kind: Any, value: Any) -> Any:
    """Return a JSON value that fits a type as that."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        known = {name: from_json(hint, value[name]) for name, hint in _hints(kind).items() if name in value}
        return kind(**known)
    if origin in (tuple, list):
        return origin(from_json(inner[0], one) for one in value)
    if origin is dict:
        return {name: from_json(inner[1], one) for name, one in value.items()}
    if origin is Literal or not inner:
        return value
    return from_json(next(one for one in inner if fits(value, one)), value)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name."""
    hints = typing.get_type_hints(kind)
    return {one.name: hints[one.name] for one in dataclasses.fields(kind)}
