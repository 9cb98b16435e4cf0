"""JSON that somebody else wrote, and the forms that its values must have."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from daskflow.errors import StoreError

Form = tuple[Callable[[Any], bool], str]


def parse_object(data: bytes | str, name: str, kind: type[StoreError] = StoreError) -> dict[str, Any]:
    """Return the JSON object in some bytes.

    Args:
        data: the bytes.
        name: of where they are, for messages.
        kind: of the error.

    Raises:
        StoreError: they hold none; it is of the given kind.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise kind(f"{name} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise kind(f"{name} is damaged: it holds {_short(value)} instead of a JSON object")
    return value


def check_forms(value: Mapping[str, Any], forms: Mapping[str, Form], name: str, required: tuple[str, ...] = ()) -> None:
    """Raise unless the values of a JSON object have the forms that they must have, where they are stated.

    Args:
        value: the object.
        forms: by key, whether a value is right, and what a right one is in words.
        name: of where it is, for messages.
        required: keys that must be there.

    Raises:
        StoreError: one has another form, or is missing; correct it in the file.
    """
    for key, (right, meant) in forms.items():
        if key in value or key in required:
            found = value.get(key)
            if not right(found):
                raise StoreError(f"{name} states {key} {_short(found)}, which must be {meant}; correct it there")


def numbers(count: int, *, positive: bool = False) -> Form:
    """Return the form of a list of finite numbers."""
    return list_of((lambda value: is_number(value, positive=positive), f"a {'positive ' * positive}number"), count)


def is_number(value: Any, *, positive: bool = False) -> bool:
    """Return whether a JSON value is a number that a float can hold."""
    return type(value) in (int, float) and (0 if positive else -1e300) < value < 1e300 and not math.isnan(value)


def whole(least: int, most: int) -> Form:
    """Return the form of a whole number from `least` to `most`."""
    return lambda value: type(value) is int and least <= value <= most, f"a whole number from {least} to {most}"


def one_of(*words: str) -> Form:
    """Return the form of one of some words."""
    return lambda value: value in words, f"one of {', '.join(words)}"


TEXT: Form = (lambda value: isinstance(value, str), "text")
OBJECT: Form = (lambda value: isinstance(value, dict), "a JSON object")


def list_of(form: Form, count: int | None = None) -> Form:
    """Return the form of a list whose values have a form."""
    right, meant = form

    def all_right(value: Any) -> bool:
        return isinstance(value, list) and len(value) == (count or len(value)) and all(map(right, value))

    return all_right, f"a list{'' if count is None else f' of {count}'}, each part of it {meant}"


def object_of(forms: Mapping[str, Form]) -> Form:
    """Return the form of a JSON object that has some keys, each of a form."""

    def right(value: Any) -> bool:
        return isinstance(value, dict) and all(test(value.get(key)) for key, (test, _) in forms.items())

    return right, "a JSON object with " + ", ".join(f"{key}: {meant}" for key, (_, meant) in forms.items())


def values_of(form: Form) -> Form:
    """Return the form of a JSON object whose values all have a form."""
    right, meant = form
    return lambda value: isinstance(value, dict) and all(map(right, value.values())), f"a JSON object, each {meant}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
