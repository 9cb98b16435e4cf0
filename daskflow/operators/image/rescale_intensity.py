"""Intensities of the whole volume to grey values."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators.image._extremes import Extremes, extremes_of
from daskflow.volume import Volume, operator


@operator(takes="image")
def rescale_intensity(volume: Volume, *, low: float | None = None, high: float | None = None) -> Volume:
    """Spread the intensities between two values over the grey values 0 to 255.

    What is not given is the smallest or the largest value of the whole volume, for which the result waits for a pass.

    Args:
        volume: an image.
        low: the value that becomes 0, as do lower ones.
        high: the value that becomes 255, as do higher ones.

    Returns:
        A uint8 image, rounded; NaN becomes 0.

    Raises:
        ParameterError: values that do not ascend.
    """
    spec = volume.spec.replace(dtype=np.dtype(np.uint8), chunk=None, shard=None)
    if low is not None and high is not None:
        if not low < high:
            raise ParameterError(f"low {low:g} must be below high {high:g}")
        return volume.map_blocks(spread, dtype=np.uint8, low=low, high=high)
    found, stages = extremes_of(volume, by_section=False)
    return volume.map_after(spread_over_all, left=found, stages=stages, spec=spec, low=low, high=high)


def spread_over_all(
    array: np.ndarray[Any, Any],
    *,
    box: BoundingBox,  # noqa: ARG001
    left: Extremes,
    low: float | None,
    high: float | None,
) -> np.ndarray[Any, Any]:
    """Return an array spread between two values, one of the volume's extremes where one is None."""
    values = left.all()
    if not len(values):
        return np.zeros(array.shape, np.uint8)
    return spread(array, float(values[0]) if low is None else low, float(values[-1]) if high is None else high)


def spread(array: np.ndarray[Any, Any], low: float, high: float) -> np.ndarray[Any, Any]:
    """Return an array as uint8, linear between two values, which become 0 and 255; all 0 where they do not ascend."""
    if not low < high:
        return np.zeros(array.shape, np.uint8)
    if not np.isfinite(high - low):
        raise ParameterError(f"intensities between {low} and {high} cannot be spread; give a low and a high")
    shares = np.clip((array.astype(np.float64) - low) / (high - low), 0, 1)
    return np.rint(np.nan_to_num(shares) * 255).astype(np.uint8)
