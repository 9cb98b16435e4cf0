"""Some channels of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.volume import Flag, Volume, operator


@operator()
def pick_channels(volume: Volume, *, channels: Annotated[Sequence[int], Flag("-c")]) -> Volume:
    """Keep some channels of a volume, in the order asked for.

    Args:
        volume: a volume, czyx or zyx, which has the one channel 0.
        channels: numbers of the channels, the first is 0.

    Returns:
        czyx, or zyx when one channel was picked.

    Raises:
        ParameterError: no channels, one twice, or one that the volume does not have.
    """
    picked = [channels] if isinstance(channels, int) else [int(channel) for channel in channels]
    there = volume.channels or 1
    if not picked or len(set(picked)) < len(picked) or not all(0 <= channel < there for channel in picked):
        raise ParameterError(
            f"channels {channels} of a volume that has {there}: name each at most once, from 0 to {there - 1}"
        )
    names = tuple(volume.channel_names[channel] for channel in picked) if volume.channel_names else ()
    count = len(picked) if len(picked) > 1 else None
    spec = volume.spec.replace(channels=count, channel_names=names)
    if volume.channels is None:
        return volume
    return volume.map_boxes(_pick, spec=spec, memory=0, channels=picked)


def _pick(array: np.ndarray[Any, Any], channels: list[int], **_: Any) -> np.ndarray[Any, Any]:
    return array[channels[0]] if len(channels) == 1 else array[channels]
