"""What stores refuse alike: a level, a box, a dtype, metadata that differ, JSON whose values have other forms."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from daskflow.errors import (
    AlignmentError,
    BoundsError,
    MetadataMismatchError,
    ParameterError,
    StoreError,
    StoreNotFoundError,
)
from daskflow.geometry import BoundingBox, VolumeSpec

Form = tuple[Callable[[Any], bool], str]
TEXT: Form = (lambda value: isinstance(value, str), "text")
OBJECT: Form = (lambda value: isinstance(value, dict), "a JSON object")


def check_mip(mip: int, levels: int, url: str) -> None:
    """Raise unless level `mip` is one of the `levels` that `url` has."""
    if mip < 0:
        raise ParameterError(f"mip {mip} must be at least 0 (the finest level)")
    if mip >= levels:
        there = "only mip 0" if levels == 1 else f"mips 0 to {levels - 1}" if levels else "no mip"
        raise StoreNotFoundError(f"{url} has no mip {mip}; it has {there}")


def check_aligned(box: BoundingBox, spec: VolumeSpec, url: str = "the volume") -> None:
    """Raise unless one writer may own `box`: whole write units, or up to the volume's edge."""
    if box not in spec.box:
        raise BoundsError(f"box {box} is not inside {spec.box} (z0-z1_y0-y1_x0-x1) of {url}")
    unit = spec.write_unit
    if unit is None or box.empty:
        return
    assert spec.chunk_origin is not None
    nearest = box.align(unit, spec.chunk_origin).clip(spec.box)
    if nearest != box:
        kind = "shards" if spec.shard else "chunks"
        raise AlignmentError(
            f"box {box} (z0-z1_y0-y1_x0-x1) is not whole {kind} of {unit} voxels (zyx) from {spec.chunk_origin} "
            f"in {url}; nearest is {nearest}"
        )


def refuse_unknown_size(location: str, stored: VolumeSpec, spec: VolumeSpec) -> None:
    """Raise when voxels of unknown size would go into a level whose voxels are not of 1 nm."""
    if spec.voxel_size is None and stored.voxel_size is not None and stored.spacing != spec.spacing:
        size = [f"{value:g}" for value in stored.voxel_size]
        raise MetadataMismatchError(
            f"{location} has voxels of {' x '.join(size)} nm (zyx), and the voxel size of what is written is unknown;"
            f" if it is the same, state it where the volume is opened: --voxel-size {' '.join(size)}"
            f" (voxel_size=({', '.join(size)}) in Python)"
        )


def refuse_cast(dtype: np.dtype[Any], allowed: Sequence[str], target: str) -> None:
    """Raise when a format cannot hold a dtype, naming the cast to use."""
    if dtype.name in allowed:
        return
    wider = {"b": ("uint8",), "i": ("uint64", "uint32"), "u": ("uint32", "uint64"), "f": ("float32", "float64")}
    cast = next((name for name in wider.get(dtype.kind, ()) if name in allowed), allowed[0])
    raise ParameterError(
        f"{target} cannot hold {dtype.name}; cast with astype({cast!r}) (astype -d {cast})."
        f" It holds {', '.join(allowed)}"
    )


def refuse_mismatch(
    location: str, stored: Mapping[str, Any], wanted: Mapping[str, Any], *, advice: str = "delete it or write elsewhere"
) -> None:
    """Raise when metadata that exist differ from those that are wanted, by name, showing each difference."""
    lines = [
        f"  {name}: stored {stored.get(name)!r}, wanted {value!r}"
        for name, value in wanted.items()
        if stored.get(name) != value
    ]
    if lines:
        raise MetadataMismatchError("\n".join([f"{location} exists and differs; {advice}:", *lines]))


def parse_object(data: bytes | str, name: str, kind: type[StoreError] = StoreError) -> dict[str, Any]:
    """Return the JSON object in some bytes; `name` says in messages where they are, `kind` is of the error."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise kind(f"{name} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise kind(f"{name} is damaged: it holds {_short(value)} instead of a JSON object")
    return value


def check_forms(value: Mapping[str, Any], forms: Mapping[str, Form], name: str, required: tuple[str, ...] = ()) -> None:
    """Raise unless the values of a JSON object that are stated, or `required`, have the forms that they must have."""
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
