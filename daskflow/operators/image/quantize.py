"""Probabilities to grey values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from daskflow.errors import ParameterError
from daskflow.volume import Flag, Volume, operator

_AFFINITIES = 3


@operator(takes="image")
def quantize(
    volume: Volume, *, mode: Literal["xy", "z"] | None = None, channel: Annotated[int | None, Flag("-c")] = None
) -> Volume:
    """Turn probabilities or affinities into a uint8 image: 255 times the value, truncated.

    Values outside 0..1 are clipped, and NaN becomes 0.

    Args:
        volume: floats between 0 and 1, czyx or zyx.
        mode: xy takes the mean of the first two channels, z the last channel; xy for three channels (affinities) unless
            a mode or a channel is given.
        channel: number of a channel to take instead, the first is 0; 0 where there are not three channels.

    Returns:
        A uint8 image, zyx.

    Raises:
        ParameterError: the volume is not of floats, does not have the channels, or both a mode and a channel are given.
    """
    if volume.dtype.kind != "f":
        raise ParameterError(
            f"quantize takes floats between 0 and 1, the volume is {volume.dtype}; use astype to cast integers"
        )
    taken = _channels(volume.channels or 1, mode, channel)
    spec = volume.spec.replace(dtype=np.dtype(np.uint8), channels=None, channel_names=(), layer_type="image")
    return volume.map_boxes(to_grey, spec=spec, channels=taken)


def _channels(there: int, mode: str | None, channel: int | None) -> tuple[int, ...]:
    """Return which channels are averaged, of so many."""
    if mode is not None and channel is not None:
        raise ParameterError(f"both a mode {mode!r} and a channel {channel} are given; drop one of them")
    if channel is None and (mode == "xy" or (mode is None and there == _AFFINITIES)):
        if there < 2:
            raise ParameterError("mode xy takes the mean of two channels, the volume has 1; leave the mode out")
        return 0, 1
    first = there - 1 if mode == "z" else channel or 0
    if not 0 <= first < there:
        raise ParameterError(f"channel {channel} of a volume that has {there}; name one from 0 to {there - 1}")
    return (first,)


def to_grey(array: np.ndarray[Any, Any], channels: Sequence[int] = (0,), **_: Any) -> np.ndarray[Any, Any]:
    """Return ``trunc(255 v)`` of an array zyx, or of the mean of channels of one czyx, as uint8.

    The result is clipped to 0..255, and 0 for NaN.
    """
    values = array if array.ndim == 3 else array[channels[0]]
    for other in channels[1:]:
        values = (values + array[other]) / values.dtype.type(len(channels))
    scaled = values * np.result_type(values.dtype, np.float32).type(255)
    with np.errstate(invalid="ignore"):
        np.fmax(scaled, 0, out=scaled)
        np.minimum(scaled, 255, out=scaled)
    grey: np.ndarray[Any, Any] = scaled.astype(np.uint8)
    return grey
