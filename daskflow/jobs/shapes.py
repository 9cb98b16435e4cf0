"""Whether JSON values have the shape that a type says, before anything is made of what a stranger or a fault left."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, Literal


def fits(value: Any, kind: Any) -> bool:
    """Return whether a JSON value can become a type: of numbers, texts, lists, mappings, dataclasses, and unions.

    What a dataclass does not know is passed over; fields with defaults may be absent.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        needed = {one.name for one in dataclasses.fields(kind) if not _optional(one)}
        known = isinstance(value, dict) and needed <= value.keys()
        return known and all(fits(value[name], hint) for name, hint in hints.items() if name in value)
    if origin is Literal:
        return any(value == one for one in inner)
    if origin in (tuple, list):
        return isinstance(value, list) and all(fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, inner[1]) for one in value.values())
    if inner:
        return any(fits(value, one) for one in inner)
    return isinstance(value, (int, float) if kind is float else kind)


def known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that a dataclass has fields for."""
    names = {one.name for one in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _optional(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
