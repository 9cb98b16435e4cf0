"""How many voxels each pair of segments shares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import How, merged

Array = npt.NDArray[Any]

PAIRS: dict[str, How] = {"segments": "key", "truths": "key", "counts": "sum"}
# foreground: voxels that are 0 in neither segmentation; largest: of these, the most that are shared with one segment
SIZES: dict[str, How] = {"ids": "key", "voxels": "sum", "foreground": "sum", "largest": "max"}

_HALF = np.uint64(32)


@dataclass(frozen=True)
class Contingency:
    """A sparse table of the voxels that segments of two segmentations share; tables of parts add up to the whole's.

    Attributes:
        segments: id in the first segmentation, uint64, shape (n,); 0 is background.
        truths: id in the second one.
        counts: voxels that have both, at least 1; int64. Every pair of ids occurs once, in rising order.
    """

    segments: npt.NDArray[np.uint64]
    truths: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, segmentation: Array, truth: Array) -> Contingency:
        """Return the table of two arrays of integers of the same shape."""
        seg, tru = np.ravel(segmentation), np.ravel(truth)
        # ids repeat along x, so runs of equal pairs are counted instead of voxels
        changes = seg[1:] != seg[:-1]
        changes |= tru[1:] != tru[:-1]
        starts = np.concatenate((np.zeros(min(seg.size, 1), np.int64), np.flatnonzero(changes) + 1))
        lengths = np.diff(starts, append=seg.size)
        segments, truths = seg[starts].astype(np.uint64), tru[starts].astype(np.uint64)
        if segments.size and not (segments.max() | truths.max()) >> _HALF:
            segments, truths, lengths = _hashed(segments, truths, lengths)
        return cls(**merged(PAIRS, [{"segments": segments, "truths": truths, "counts": lengths}]))

    @classmethod
    def sum(cls, tables: Iterable[Contingency]) -> Contingency:
        """Return the table of all parts together."""
        parts = [vars(table) for table in tables]
        return cls(**merged(PAIRS, parts or [vars(cls.of(np.empty(0, np.uint64), np.empty(0, np.uint64)))]))


def overlaps_of(box: BoundingBox, segmentation: Array, truth: Array) -> Arrays:  # noqa: ARG001
    """Return the rows of a block: columns as in `PAIRS`."""
    return vars(Contingency.of(segmentation, truth))


def by_segment(rows: Arrays) -> Arrays:
    """Return what is known of every segment from rows of pairs: columns as in `SIZES`."""
    return _sizes(rows, "segments")


def by_truth(rows: Arrays) -> Arrays:
    """Return the same of every true segment."""
    return _sizes(rows, "truths")


def _sizes(rows: Arrays, ids: str) -> Arrays:
    shared = np.where((rows["segments"] != 0) & (rows["truths"] != 0), rows["counts"], 0)
    return merged(SIZES, [{"ids": rows[ids], "voxels": rows["counts"], "foreground": shared, "largest": shared}])


def _hashed(
    segments: npt.NDArray[np.uint64], truths: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return each pair of ids below 2^32 once, in any order, with the sum of its counts, which must be below 2^53."""
    import fastremap

    numbers, names = fastremap.renumber(segments << _HALF | truths, preserve_zero=False)
    pairs = np.fromiter(names.keys(), np.uint64, len(names))
    sums = np.bincount(numbers, counts)[np.fromiter(names.values(), np.int64, len(names))]
    return pairs >> _HALF, pairs & np.uint64(2**32 - 1), sums.astype(np.int64)
