"""Linear stretching of sections: limits from levels, and what becomes of a voxel between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox
from daskflow.jobs.sinks import ScratchSink
from daskflow.operators.image.contrast.counts import CountedLevels, StoredLevels
from daskflow.operators.image.contrast.levels import Counts
from daskflow.volume import BlockResult, Estimate, Task

Array = npt.NDArray[Any]


def limits(counts: Counts, clip: tuple[float, float]) -> tuple[int, int]:
    """Return the grey values that become the darkest and the brightest.

    With the cumulative share of the voxels above 0 up to each value, the lower limit is the last value whose share is
    at most the first clip fraction, the upper the last one whose share is at most one minus the second. Both are 0 for
    a section without voxels above 0.

    Args:
        counts: how often each value occurs.
        clip: fractions cut off at the dark and at the bright end.
    """
    above = np.cumsum(np.concatenate(([0], counts[1:])))
    if not above[-1]:
        return 0, 0
    shares = above / above[-1]
    lower, upper = (int(np.searchsorted(shares, share, side="right")) - 1 for share in (clip[0], 1 - clip[1]))
    return lower, upper


def stretched(values: Array, lower: int, upper: int, low: int, high: int) -> Array:
    """Return ``clip(round((v - lower) max / (upper - lower)), low, high)``, in the dtype of the values.

    It is computed in float32, as igneous does, which decides what becomes of values half-way between two. Without
    contrast, where the limits are equal, the values stay as they are.
    """
    if lower >= upper:
        return values
    scale = np.float32(np.iinfo(values.dtype).max / (upper - lower))
    return np.clip(np.round((values.astype(np.float32) - np.float32(lower)) * scale), low, high).astype(values.dtype)


def stretch(
    array: Array,
    table: Array,
    *,
    box: BoundingBox,
    table_box: BoundingBox,  # noqa: ARG001 (the sections of the box)
    low: int,
    high: int,
) -> Array:
    """Return an array (zyx, or czyx with one channel) whose sections are stretched between their limits.

    Args:
        array: uint8 or uint16.
        table: lower and upper limit of each section, shape (z, 1, 2).
        box: of the array.
        table_box: of the table.
        low: no result is below it.
        high: no result is above it.
    """
    sections = array.reshape(box.shape)
    result = np.empty_like(sections, order="C")
    every = np.arange(np.iinfo(array.dtype).max + 1, dtype=array.dtype)
    for section, (lower, upper), out in zip(sections, table[:, 0], result, strict=True):
        np.take(stretched(every, int(lower), int(upper), low, high), section, out=out, mode="clip")
    return result.reshape(array.shape)


@dataclass(frozen=True)
class FindLimits(Task):
    """Find the limits of every section from its levels.

    Attributes:
        levels: of all sections.
        found: takes the limits: shape (z, 1, 2), lower and upper.
        clip: fractions cut off at the dark and at the bright end.
    """

    levels: CountedLevels | StoredLevels
    found: ScratchSink
    clip: tuple[float, float]

    def read(self, box: BoundingBox) -> Counts:
        return self.levels.read(box)

    def compute(self, box: BoundingBox, inputs: Counts) -> Array:
        return np.array([limits(counts, self.clip) for counts in inputs], np.int32).reshape(box.shape)

    def write(self, box: BoundingBox, outputs: Array) -> BlockResult:
        return self.found.write(box, outputs)

    def estimate(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=2 * 8 * self.levels.bins * box.shape[0])

    def check(self) -> None:
        self.levels.check()
        self.found.check()

    def describe(self) -> dict[str, Any]:
        return {**self.levels.describe(), "clip": list(self.clip)}
