"""The pyramid under which a volume is shown: stored levels, or levels averaged while one looks."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox, VolumeSpec, Zyx
from daskflow.volume import Volume

Array = npt.NDArray[Any]

READ_LIMIT = 2**26
_CHUNK: Zyx = (64, 64, 64)
_LONGEST = 128


@dataclass(frozen=True)
class ShownLevel:
    """One mip as it is shown.

    Attributes:
        spec: its geometry.
        read: gives the voxels of a box, zyx or czyx.
    """

    spec: VolumeSpec
    read: Callable[[BoundingBox], Array]


def levels_of(volume: Volume) -> list[ShownLevel]:
    """Return the levels of a volume, finest first: those it is stored at, else its own and coarser ones made of it."""
    finest = volume.stored_whole
    if finest is not None and finest.mip + 1 < len(finest.mips):
        stores = (finest.with_mip(mip) for mip in range(finest.mip, len(finest.mips)))
        return [ShownLevel(store.spec, store.read) for store in stores]
    return coarsened(ShownLevel(volume.spec, volume.read))


def coarsened(finest: ShownLevel) -> list[ShownLevel]:
    """Return the level and coarser ones, until a chunk holds the volume or would need more than 64 MB of it.

    The axes with the smallest voxels double first, until voxels are about cubes.
    """
    levels = [finest]
    factor = (1, 1, 1)
    spec = finest.spec
    voxels = math.prod(chunk_of(spec)) * (spec.channels or 1) * spec.dtype.itemsize
    while any(n > c for n, c in zip(levels[-1].spec.box.shape, chunk_of(spec), strict=True)):
        smallest = min(levels[-1].spec.spacing)
        z, y, x = (f * 2 if v <= 1.5 * smallest else f for f, v in zip(factor, levels[-1].spec.spacing, strict=True))
        factor = (z, y, x)
        if math.prod(factor) * voxels > READ_LIMIT:
            break
        levels.append(_coarser(finest, factor))
    return levels


def chunk_of(spec: VolumeSpec) -> Zyx:
    """Return the voxels (zyx) sent at once: a storage chunk or 64^3, at most 128 along an axis."""
    z, y, x = (min(c, _LONGEST) for c in spec.chunk or _CHUNK)
    return z, y, x


def _coarser(finest: ShownLevel, factor: Zyx) -> ShownLevel:
    spec = finest.spec
    coarse = spec.coarsened(factor, box=spec.box.coarsen(factor), chunk=chunk_of(spec), shard=None, chunk_origin=None)
    return ShownLevel(coarse, functools.partial(_read_coarse, finest, factor))


def _read_coarse(finest: ShownLevel, factor: Zyx, box: BoundingBox) -> Array:
    """Return the means (images) or first voxels (labels) of windows counted from the origin, cut at the edge."""
    fine = box.refine(factor).clip(finest.spec.box)
    values = finest.read(fine)
    pick = finest.spec.kind == "segmentation"
    dtype = values.dtype
    if not pick:
        values = values.astype(np.float32)
    for axis in range(3):
        corners = np.arange(box.start[axis], box.stop[axis]) * factor[axis]
        first = np.maximum(corners, fine.start[axis]) - fine.start[axis]
        if pick:
            values = np.take(values, first, axis=axis - 3)
        else:
            counts = np.diff(first, append=fine.shape[axis])
            values = np.add.reduceat(values, first, axis=axis - 3) / counts.reshape(-1, *(1,) * (2 - axis))
    if dtype.kind in "iub" and not pick:
        values = np.rint(values)
    return values.astype(dtype)
