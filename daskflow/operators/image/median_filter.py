"""Median filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from daskflow.errors import ParameterError
from daskflow.geometry import as_zyx
from daskflow.volume import Volume, operator


@operator(takes="image")
def median_filter(
    volume: Volume, *, size: Sequence[int] = (3, 1, 1), mode: Literal["reflect", "nearest", "wrap"] = "reflect"
) -> Volume:
    """Replace every voxel by the median of a window around it, by default of its neighbours in z.

    Args:
        volume: the image, zyx or czyx; every channel is filtered by itself.
        size: voxels of the window (zyx).
        mode: what lies beyond the edge of the volume: reflect mirrors it with the edge voxel repeated, nearest repeats
            the edge voxel, wrap goes on at the other side; as in `scipy.ndimage.median_filter`.

    Returns:
        An image of the same dtype.

    Raises:
        ParameterError: a window below one voxel.
        GeometryError: a window too large for the volume to mirror or wrap.
    """
    window = as_zyx(size, name="size")
    if min(window) < 1:
        raise ParameterError(f"size {size} (zyx) must be at least 1 on every axis")
    depth = tuple(n // 2 for n in window)
    boundary: Literal["reflect", "nearest", "periodic"] = "periodic" if mode == "wrap" else mode
    return volume.map_overlap(
        median, depth=depth, boundary=tuple(boundary if d else "none" for d in depth), dtype=volume.dtype, size=window
    )


def median(array: np.ndarray[Any, Any], size: Sequence[int]) -> np.ndarray[Any, Any]:
    """Return the medians of windows (zyx) of an array, zyx or czyx."""
    window = (*(1,) * (array.ndim - 3), *size)
    filtered: np.ndarray[Any, Any] = ndimage.median_filter(array, size=window, mode="nearest")
    return filtered
