"""Grey values between two thresholds, over the whole range."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.volume import Volume, operator


@operator(takes="image")
def stretch_intensity(volume: Volume, *, min_threshold: int = 0, max_threshold: int = 256) -> Volume:
    """Stretch the grey values between two thresholds over 0 to 255.

    ``trunc(255 (v - min) / (max - min))`` in single precision, clipped to 0..255.

    Args:
        volume: a uint8 image.
        min_threshold: becomes 0, as does all that is darker.
        max_threshold: becomes 255, as does all that is brighter.

    Returns:
        A uint8 image.

    Raises:
        ParameterError: another dtype, or thresholds that do not ascend between 0 and 256.
    """
    if volume.dtype != np.uint8:
        raise ParameterError(f"stretch-intensity takes uint8, the volume is {volume.dtype}")
    if not 0 <= min_threshold < max_threshold <= 256:
        raise ParameterError(f"thresholds {min_threshold} and {max_threshold} must ascend between 0 and 256")
    return volume.map_blocks(stretched, dtype=np.uint8, low=min_threshold, high=max_threshold)


def stretched(array: np.ndarray[Any, Any], low: int, high: int) -> np.ndarray[Any, Any]:
    """Return a uint8 array stretched between two thresholds."""
    shares = (np.arange(256, dtype=np.float32) - low) / (high - low)
    table = (np.clip(shares, 0, 1) * np.float32(255)).astype(np.uint8)
    return np.take(table, array)
