"""Probabilities to grey values."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.volume import Flag, Volume, operator


@operator(takes="image")
def quantize(volume: Volume, *, channel: Annotated[int, Flag("-c")] = 0) -> Volume:
    """Turn one channel of probabilities or affinities into a uint8 image: 255 times the value, truncated.

    Values outside 0..1 are clipped, and NaN becomes 0.

    Args:
        volume: floats between 0 and 1, czyx or zyx.
        channel: number of the channel, the first is 0.

    Returns:
        A uint8 image, zyx.

    Raises:
        ParameterError: the volume is not of floats, or does not have the channel.
    """
    if volume.dtype.kind != "f":
        raise ParameterError(
            f"quantize takes floats between 0 and 1, the volume is {volume.dtype}; use astype to cast integers"
        )
    there = volume.channels or 1
    if not 0 <= channel < there:
        raise ParameterError(f"channel {channel} of a volume that has {there}; name one from 0 to {there - 1}")
    spec = volume.spec.replace(dtype=np.dtype(np.uint8), channels=None, channel_names=(), layer_type="image")
    return volume.map_boxes(to_grey, reads=_same, spec=spec, channel=channel)


def _same(box: Any) -> Any:
    return box


def to_grey(array: np.ndarray[Any, Any], channel: int = 0, **_: Any) -> np.ndarray[Any, Any]:
    """Return ``trunc(255 v)`` of one channel of an array (zyx or czyx) as uint8, clipped to 0..255, 0 for NaN."""
    values = array if array.ndim == 3 else array[channel]
    scaled = values * np.result_type(values.dtype, np.float32).type(255)
    with np.errstate(invalid="ignore"):
        np.fmax(scaled, 0, out=scaled)
        np.minimum(scaled, 255, out=scaled)
    grey: np.ndarray[Any, Any] = scaled.astype(np.uint8)
    return grey
