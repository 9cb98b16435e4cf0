"""A synthetic volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, as_voxel_size, as_zyx
from daskflow.operators import options
from daskflow.operators.segmentation.connected_components import connected_components
from daskflow.volume import Flag, Volume, operator

_CELL = (64, 64, 64)
_LABELS = ("uint16", "uint32", "uint64")


@operator()
def create_chunk(
    *,
    size: Annotated[Sequence[int], Flag("-s")] = (64, 64, 64),
    dtype: options.Dtype = "uint8",
    pattern: Annotated[Literal["sin", "zero", "random"], Flag("-p")] = "sin",
    voxel_offset: Annotated[Sequence[int], Flag("-t")] = (0, 0, 0),
    voxel_size: Annotated[Sequence[float] | None, Flag("-e")] = None,
    seed: int = 0,
) -> Volume:
    """Make a synthetic volume.

    The pattern sin is ``abs(sin(4 (i + j + k)))`` with i, j, k from 0 to 1 along the axes; uint8 holds 255 times that,
    and the wider integers the connected components (6 neighbours) of what exceeds one half. The pattern random is
    uniform noise: between 0 and 1 in floats, 0 to 255 in uint8, the connected components of 8 random values in
    the wider integers.

    Args:
        size: voxels per axis (zyx).
        pattern: sin, zero or random.
        voxel_offset: global coordinates of the first voxel (zyx).
        voxel_size: nm per voxel (zyx); by default unknown.
        seed: number from which the random pattern is drawn.

    Returns:
        A lazy volume.
    """
    labels = dtype in _LABELS
    drawn = dtype if pattern == "zero" or not labels else "uint8"
    spec = VolumeSpec(
        BoundingBox.from_size(voxel_offset, as_zyx(size, name="size")),
        np.dtype(drawn),
        voxel_size=None if voxel_size is None else as_voxel_size(voxel_size),
        layer_type="segmentation" if labels else "image",
    )
    if pattern == "zero":
        return Volume.from_function(zeros, spec, dtype=dtype)
    if pattern == "sin":
        volume = Volume.from_function(sine, spec, whole=spec.box, dtype=drawn, binary=labels)
    else:
        volume = Volume.from_function(noise, spec, whole=spec.box, dtype=drawn, seed=seed, levels=8 if labels else 256)
    return connected_components(volume).astype(dtype) if labels else volume


def zeros(box: BoundingBox, dtype: str) -> np.ndarray[Any, Any]:
    """Return zeros for a box."""
    return np.zeros(box.shape, dtype)


def sine(box: BoundingBox, whole: BoundingBox, dtype: str, binary: bool) -> np.ndarray[Any, Any]:
    """Return the sine pattern of a box of `whole`: scaled to 0..255 in uint8, or only whether it exceeds one half."""
    i, j, k = (np.linspace(0, 1, n)[s] for n, s in zip(whole.shape, box.slices(whole), strict=True))
    values = np.abs(np.sin(4 * (i[:, None, None] + j[:, None] + k)))
    if binary:
        return (values > 0.5).astype(dtype)
    return (values * 255 if dtype == "uint8" else values).astype(dtype)


def noise(box: BoundingBox, whole: BoundingBox, dtype: str, seed: int, levels: int) -> np.ndarray[Any, Any]:
    """Return the random pattern of a box of `whole`: the same voxels whichever box they are asked in."""
    result = np.empty(box.shape, dtype)
    cells = BlockGrid(whole, _CELL)
    for index in cells.touching(box):
        random = np.random.default_rng((seed, index))
        cell = cells[index]
        values = random.integers(levels, size=cell.shape) if dtype == "uint8" else random.random(cell.shape)
        shared = cell.clip(box)
        result[shared.slices(box)] = values[shared.slices(cell)]
    return result
