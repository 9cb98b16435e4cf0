"""The strongest channel of every voxel."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.volume import Volume, operator


@operator(takes="image")
def channel_voting(volume: Volume) -> Volume:
    """Label every voxel with the number of its strongest channel, counted from 1.

    Of channels that are equally strong the first one wins; NaN counts as the weakest; there is no background.

    Args:
        volume: probabilities of classes, czyx, with at most 255 channels.

    Returns:
        A uint8 segmentation, zyx.

    Raises:
        ParameterError: no channels, or more than uint8 can number.
    """
    if volume.channels is None or volume.channels > np.iinfo(np.uint8).max:
        raise ParameterError(f"channel-voting takes 1 to 255 channels, the volume has shape {volume.shape}")
    return volume.map_blocks(strongest, dtype=np.uint8, channels=None, layer_type="segmentation")


def strongest(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the number, from 1, of the first channel with the largest value, of an array czyx."""
    known = np.where(np.isnan(array), -np.inf, array) if array.dtype.kind == "f" else array
    numbers: np.ndarray[Any, Any] = np.argmax(known, axis=0) + 1
    return numbers.astype(np.uint8)
