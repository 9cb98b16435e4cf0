"""Grey values to -1..1."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.volume import Volume, operator


@operator(takes="image")
def normalize_intensity(volume: Volume) -> Volume:
    """Map the grey values 0..255 linearly to -1..1.

    Args:
        volume: a uint8 image.

    Returns:
        A float32 image: ``x / 127.5 - 1``.

    Raises:
        ParameterError: the volume is not uint8.
    """
    if volume.dtype != np.uint8:
        raise ParameterError(f"normalize-intensity takes uint8, the volume is {volume.dtype}")
    return volume.map_blocks(to_unit_range, dtype=np.float32)


def to_unit_range(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a uint8 array as float32 between -1 and 1."""
    return np.subtract(array / np.float32(127.5), np.float32(1), dtype=np.float32)
