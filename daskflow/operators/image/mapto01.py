"""Intensities to 0..1."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.operators.image.inverse import check_floats
from daskflow.volume import Volume, operator


@operator(takes="image")
def mapto01(volume: Volume) -> Volume:
    """Map intensities to 0..1: uint8 from 0..255, floats from -1..1.

    Args:
        volume: an image of uint8, or of floats between -1 and 1.

    Returns:
        A float32 image: ``x / 255`` of uint8, ``(x + 1) / 2`` of floats.

    Raises:
        ParameterError: another dtype; or, while it is read, a float outside -1..1.
    """
    if volume.dtype != np.uint8 and volume.dtype.kind != "f":
        raise ParameterError(f"mapto01 takes uint8 or floats between -1 and 1, the volume is {volume.dtype}")
    return volume.map_blocks(mapped, dtype=np.float32)


def mapped(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array of uint8, or of floats between -1 and 1, as float32 between 0 and 1."""
    low, high = (0, 255) if array.dtype == np.uint8 else (-1, 1)
    check_floats(array, -1, "mapto01")
    values: np.ndarray[Any, Any] = array.astype(np.float32)
    return (values - low) / np.float32(high - low)
