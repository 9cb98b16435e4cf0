"""The mean answer over the eight turns and mirror images of a patch in y and x."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from daskflow.inference.engine import Array

_AXES = {0: -1, 1: -2}  # of the channels that are affinities to the voxel before in x and in y


def augmented(answer: Callable[[Array], Any], patches: Array, *, affinities: bool) -> Any:
    """Return the mean of the answers for all eight variants of patches (batch, channels, zyx), each turned back.

    A variant is transposed, then flipped; its answer is flipped, then transposed. Transposing swaps the affinities in x
    and y. In a flipped patch the voxel before is the one behind, so an affinity is found one voxel before its own:

        patch      0-1-2-3      the edges 01, 12, 23 are stored at 1, 2, 3
        flipped    3-2-1-0      the same edges at 3, 2, 1, flipped back at 0, 1, 2

    The first voxel of an axis has its affinity from the variants alone that are not flipped along that axis.
    """
    total: Any = None
    for transposed, *flips in itertools.product((False, True), repeat=3):
        axes = tuple(axis for axis, flip in zip((-2, -1), flips, strict=True) if flip)
        outputs = answer(np.ascontiguousarray(np.flip(_transposed(patches, transposed), axes)))
        array_module = sys.modules[type(outputs).__module__.partition(".")[0]]
        outputs = array_module.flip(outputs, axes)
        if total is None:
            total = array_module.zeros_like(outputs)
        turned = _transposed(total, transposed)
        if not affinities:
            turned += outputs
            continue
        for channel in range(outputs.shape[1]):
            axis = _AXES.get(channel)
            to = 1 - channel if transposed and axis else channel
            later, earlier = (slice(1, None), slice(None, -1)) if axis in axes else (slice(None), slice(None))
            turned[_at(to, axis, later)] += outputs[_at(channel, axis, earlier)]
    total /= 8
    if affinities:
        for channel, axis in _AXES.items():
            total[_at(channel, axis, slice(1))] *= 2
    return total


def _transposed(array: Any, wanted: bool) -> Any:
    return array.swapaxes(-2, -1) if wanted else array


def _at(channel: int, axis: int | None, part: slice) -> tuple[Any, ...]:
    """Return the index of a part, along an axis, of a channel."""
    return (slice(None), channel, ..., *((part,) if axis == -1 else (part, slice(None)) if axis == -2 else ()))
