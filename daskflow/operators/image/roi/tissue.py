"""Which windows of an image hold tissue."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox


def tissue(
    array: npt.NDArray[Any],
    box: BoundingBox,
    read_box: BoundingBox,
    *,
    window: int,
    faint: float,
    bottom: int,
    step: int,
) -> npt.NDArray[np.uint32]:
    """Return 0 where the mean of a window is faint, and elsewhere the number of the slab of sections, from 1.

    Args:
        array: voxels of `read_box`, zyx, or czyx with one channel.
        box: the windows, zyx.
        read_box: where the voxels lie.
        window: voxels per window along y and x.
        faint: means up to it are no tissue.
        bottom: the first section of the volume.
        step: sections per slab.
    """
    values = array.reshape(array.shape[-3:])
    if window > 1:
        values = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    counts = np.ones((1, 1), np.int64)
    for axis in (1, 2) if window > 1 else ():
        low, high = read_box.start[axis], read_box.stop[axis]
        starts = np.maximum(np.arange(box.start[axis], box.stop[axis]) * window, low) - low
        values = np.add.reduceat(values, starts, axis=axis)
        lengths = np.diff(starts, append=high - low)
        counts = counts * (lengths[:, None] if axis == 1 else lengths[None, :])
    slabs = 1 + (np.arange(box.start[0], box.stop[0]) - bottom) // step
    return np.where(values > faint * counts, slabs[:, None, None], 0).astype(np.uint32)
