"""What stores refuse alike: a level, a box, a dtype or metadata that are not as they must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daskflow.errors import (
    AlignmentError,
    BoundsError,
    MetadataMismatchError,
    ParameterError,
    StoreNotFoundError,
)
from daskflow.geometry import BoundingBox, VolumeSpec


def check_mip(mip: int, levels: int, url: str) -> None:
    """Raise unless level `mip` is one of the `levels` that `url` has.

    Raises:
        ParameterError: a negative mip.
        StoreNotFoundError: there is no such level; the message says which there are.
    """
    if mip < 0:
        raise ParameterError(f"mip {mip} must be at least 0 (the finest level)")
    if mip >= levels:
        there = "only mip 0" if levels == 1 else f"mips 0 to {levels - 1}" if levels else "no mip"
        raise StoreNotFoundError(f"{url} has no mip {mip}; it has {there}")


def check_aligned(box: BoundingBox, spec: VolumeSpec, url: str = "the volume") -> None:
    """Raise unless one writer may own `box`: whole write units, or up to the volume's edge.

    Raises:
        BoundsError: the box reaches outside `spec.box`.
        AlignmentError: it is not whole units; the message names the nearest box that is.
    """
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
    """Raise when voxels of unknown size would go into a level whose voxels are not of 1 nm.

    Raises:
        MetadataMismatchError: the message says how to state the size.
    """
    if spec.voxel_size is None and stored.voxel_size is not None and stored.spacing != spec.spacing:
        size = [f"{value:g}" for value in stored.voxel_size]
        raise MetadataMismatchError(
            f"{location} has voxels of {' x '.join(size)} nm (zyx), and the voxel size of what is written is unknown;"
            f" if it is the same, state it where the volume is opened: --voxel-size {' '.join(size)}"
            f" (voxel_size=({', '.join(size)}) in Python)"
        )


def refuse_cast(dtype: np.dtype[Any], allowed: Sequence[str], target: str) -> None:
    """Raise when a format cannot hold a dtype, naming the cast to use.

    Raises:
        ParameterError: `dtype` is not among `allowed`.
    """
    if dtype.name in allowed:
        return
    wider = {"b": ("uint8",), "i": ("uint64", "uint32"), "u": ("uint32", "uint64"), "f": ("float32", "float64")}
    cast = next((name for name in wider.get(dtype.kind, ()) if name in allowed), allowed[0])
    raise ParameterError(
        f"{target} cannot hold {dtype.name}; cast with astype({cast!r}) (astype -d {cast})."
        f" It holds {', '.join(allowed)}"
    )


def refuse_mismatch(
    location: str,
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    advice: str = "delete it or write elsewhere",
) -> None:
    """Raise when metadata that exist differ from what would be written, showing each difference.

    Args:
        location: what is compared, for the message.
        stored: what is there, by name.
        wanted: what would be written; names that are absent here are not compared.
        advice: what to do then.

    Raises:
        MetadataMismatchError: a value differs.
    """
    lines = [
        f"  {name}: stored {stored.get(name)!r}, wanted {value!r}"
        for name, value in wanted.items()
        if stored.get(name) != value
    ]
    if lines:
        raise MetadataMismatchError("\n".join([f"{location} exists and differs; {advice}:", *lines]))
