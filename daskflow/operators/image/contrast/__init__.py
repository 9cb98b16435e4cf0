"""Linear contrast stretch of sections."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.jobs.sinks import ScratchSink
from daskflow.operators.image.contrast.counts import (
    CountedLevels,
    Sampling,
    StoredLevels,
    counted_levels,
    stored_levels,
)
from daskflow.operators.image.contrast.levels import Counts, known_place
from daskflow.operators.image.contrast.tables import grey_image, look_up
from daskflow.scratch.records import at_once
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Stage, Task, Volume, operator
from daskflow.volume.description import Option
from daskflow.volume.stage import Scope

Array = npt.NDArray[Any]


@operator(takes="image")
def contrast(
    volume: Volume,
    *,
    clip_fraction: float | Sequence[float] = 0.01,
    minval: int | None = None,
    maxval: int | None = None,
    coverage: float = 1.0,
    seed: int = 0,
    levels: str | os.PathLike[str] | None = None,
) -> Volume:
    """Stretch the grey values of every section linearly, by limits found from its own histogram.

    Of the sampled voxels of a section, black (0) left out, the darkest and the brightest fraction is cut off; what lies
    between is spread over the whole range of the dtype: ``clip(round((v - lower) max / (upper - lower)))`` in single
    precision. A section whose limits are equal stays as it is. The result waits for a pass that counts grey values,
    reading every block once; a job runs it by itself.

    Args:
        volume: a uint8 or uint16 image with one channel.
        clip_fraction: share of voxels cut off at both ends; two numbers are cut off the dark and the bright end.
        minval: no result is below it.
        maxval: no result is above it.
        coverage: share of each section, in patches of 2048 x 2048 voxels, that is sampled.
        seed: draws other patches; the same seed draws the same ones, whatever the blocks.
        levels: directory of levels that `contrast_levels` has counted, taken instead of sampling; ``source`` stands for
            ``levels/MIP`` in the layer that was opened.

    Returns:
        An image of the same dtype.

    Raises:
        ParameterError: a segmentation, another dtype, several channels, or fractions or values out of range.
    """
    grey_image(volume, "contrast")
    clip = _fractions(clip_fraction)
    low, high = grey_range(volume, minval, maxval)
    sampling = Sampling(volume.box, coverage, seed)
    top = int(np.iinfo(volume.dtype).max)
    if levels is not None:
        place = known_place(volume) if levels == "source" else kvstore.normalise(levels)
        return stretch_by_files(volume, place, clip, low=low, high=high, top=top)
    found, stages = counted_levels(volume, sampling)
    return stretch_sections(volume, found, stages, clip, low=low, high=high, top=top)


def stretch_sections(
    volume: Volume,
    found: CountedLevels,
    stages: tuple[Stage, ...],
    clip: tuple[float, float],
    *,
    low: int,
    high: int,
    top: int,
) -> Volume:
    """Return a volume whose sections are stretched between limits that follow from their levels.

    Args:
        volume: the image.
        found: its levels.
        stages: those that count them.
        clip: the share of voxels cut off at the dark and at the bright end.
        low: no result is below it.
        high: no result is above it.
        top: what the brighter limit becomes; the darker one becomes 0.
    """
    whole, deep = _limits_of(volume.box), found.grid.block[0]
    scope = Scope("limits", (found, clip))
    kept = ScratchSink("limits", VolumeSpec(whole, np.dtype(np.int32)), (deep, 1, 2), scope)
    finding = Stage("find-limits", BlockGrid(whole, kept.block), FindLimits(found, kept, clip), after=stages[-1:])
    stages = (*volume.expression.stages, *stages, finding)
    return look_up(volume, kept, stages, stretch, where=_limits_of, memory=_working, low=low, high=high, top=top)


def stretch_by_files(volume: Volume, place: str, clip: tuple[float, float], *, low: int, high: int, top: int) -> Volume:
    """Return a volume whose sections are stretched by the levels that files in a directory hold; nothing is waited for.

    Arguments are as for `stretch_sections`, with the URL of the directory.
    """
    limits = FileLimits(stored_levels(volume, place), clip)
    options = {"limits": limits, "low": low, "high": high, "top": top}
    return volume.map_blocks(stretch_between, dtype=volume.dtype, memory=_working, **options)


def _limits_of(box: BoundingBox) -> BoundingBox:
    return BoundingBox((box.start[0], 0, 0), (box.stop[0], 1, 2))


def _working(box: BoundingBox) -> float:
    """Return the bytes for one section as indices, which numpy makes of its voxels."""
    return 8.0 * box.shape[1] * box.shape[2]


def _fractions(clip_fraction: float | Sequence[float]) -> tuple[float, float]:
    given = [float(f) for f in np.atleast_1d(np.asarray(clip_fraction, np.float64))]
    pair = given * 2 if len(given) == 1 else given
    if len(pair) != 2 or not all(0 <= fraction < 1 for fraction in pair) or sum(pair) >= 1:
        raise ParameterError(
            f"clip fraction {clip_fraction} must be one or two shares of at least 0 that leave something between them"
        )
    return pair[0], pair[1]


def grey_range(volume: Volume, minval: Any, maxval: Any) -> tuple[int, int]:
    """Return the darkest and the brightest value of a result, or raise where the dtype does not hold them."""
    most = int(np.iinfo(volume.dtype).max)
    low, high = 0 if minval is None else int(minval), most if maxval is None else int(maxval)
    if not 0 <= low <= high <= most:
        raise ParameterError(
            f"minval {low} and maxval {high} must ascend between 0 and {most}, which {volume.dtype} holds"
        )
    return low, high


def limits(counts: Counts, clip: tuple[float, float]) -> tuple[int, int]:
    """Return the grey values that become the darkest and the brightest, from how often each value occurs.

    With the cumulative share of the voxels above 0 up to each value, the lower limit is the last value whose share is
    at most the first clip fraction, the upper the last one whose share is at most one minus the second. Both are 0 for
    a section without voxels above 0.
    """
    above = np.cumsum(np.concatenate(([0], counts[1:])))
    if not above[-1]:
        return 0, 0
    shares = above / above[-1]
    lower, upper = (int(np.searchsorted(shares, share, side="right")) - 1 for share in (clip[0], 1 - clip[1]))
    return lower, upper


def stretched(values: Array, lower: int, upper: int, low: int, high: int, top: int) -> Array:
    """Return ``clip(round((v - lower) top / (upper - lower)), low, high)``, in the dtype of the values.

    It is computed in float32, as igneous does, which decides what becomes of values half-way between two. Without
    contrast, where the limits are equal, the values stay as they are.
    """
    if lower >= upper:
        return values
    scale = np.float32(top / (upper - lower))
    return np.clip(np.round((values.astype(np.float32) - np.float32(lower)) * scale), low, high).astype(values.dtype)


def stretch(array: Array, table: Array, *, box: BoundingBox, low: int, high: int, top: int, **_: Any) -> Array:
    """Return an array (zyx, or czyx with one channel) whose sections are stretched between their limits.

    The table has the lower and upper limit of each section, shape (z, 1, 2).
    """
    sections = array.reshape(box.shape)
    result = np.empty_like(sections, order="C")
    every = np.arange(np.iinfo(array.dtype).max + 1, dtype=array.dtype)
    for section, (lower, upper), out in zip(sections, table[:, 0], result, strict=True):
        np.take(stretched(every, int(lower), int(upper), low, high, top), section, out=out, mode="clip")
    return result.reshape(array.shape)


@dataclass(frozen=True)
class FileLimits(Option):
    """The limits of sections whose levels are in files."""

    levels: StoredLevels
    clip: tuple[float, float]

    def of(self, sections: Array, first: int) -> Array:
        """Return the lower and upper limit of sections, of which the first lies at z `first`, shape (z, 1, 2)."""
        found = at_once(lambda at: self.levels.of(first + at, black=not sections[at].any()), range(len(sections)))
        return np.array([[limits(counts, self.clip)] for counts in found], np.int32)

    def check(self) -> None:
        """Raise unless there are levels of the first and the last section."""
        self.levels.check()

    def describe(self) -> dict[str, Any]:
        """Return where the levels are, and what is cut off."""
        return {**self.levels.describe(), "clip": list(self.clip)}


def stretch_between(array: Array, box: BoundingBox, limits: FileLimits, low: int, high: int, top: int) -> Array:
    """Return an array (zyx, or czyx with one channel) whose sections are stretched between limits from files."""
    table = limits.of(array.reshape(box.shape), box.start[0])
    return stretch(array, table, box=box, low=low, high=high, top=top)


@dataclass(frozen=True)
class FindLimits(Task):
    """Find the limits of every section from its levels: lower and upper, shape (z, 1, 2)."""

    levels: CountedLevels
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
        self.found.check()

    def describe(self) -> dict[str, Any]:
        return {**self.levels.describe(), "clip": list(self.clip)}
