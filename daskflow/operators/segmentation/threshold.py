"""Voxels above a threshold."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.volume import Flag, Volume, operator

_MIDDLE = 0.5  # of probabilities


@operator(takes="image")
def threshold(volume: Volume, *, threshold: Annotated[float | None, Flag("-t")] = None) -> Volume:
    """Mark the voxels above a threshold with 1 and the others with 0.

    Args:
        volume: values with one channel, zyx or czyx.
        threshold: voxels strictly above it become 1; of floats 0.5 unless given.

    Returns:
        A uint8 segmentation, zyx.

    Raises:
        ParameterError: the volume has more than one channel, or integers and no threshold.
    """
    if volume.channels not in (None, 1):
        raise ParameterError(f"threshold takes one channel, the volume has {volume.channels}; pick one first")
    return volume.map_blocks(
        above,
        dtype=np.uint8,
        channels=None,
        layer_type="segmentation",
        threshold=_default(volume.dtype) if threshold is None else threshold,
    )


def _default(dtype: np.dtype[Any]) -> float:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        raise ParameterError(f"give a threshold: {dtype} may hold {limits.min} to {limits.max}")
    return _MIDDLE


def above(array: np.ndarray[Any, Any], threshold: float) -> np.ndarray[Any, Any]:
    """Return 1 where an array (zyx, or czyx with one channel) is above a threshold, else 0, as uint8 zyx."""
    return (array.reshape(array.shape[-3:]) > threshold).view(np.uint8)
