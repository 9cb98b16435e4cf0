"""How many voxels each pair of segments shares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

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
        return _summed(segments, truths, lengths)

    @classmethod
    def sum(cls, tables: Iterable[Contingency]) -> Contingency:
        """Return the table of all parts together."""
        parts = list(tables)
        if not parts:
            return cls.of(np.empty(0, np.uint64), np.empty(0, np.uint64))
        segments, truths, counts = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("segments", "truths", "counts")
        )
        return _summed(segments, truths, counts)

    def without_background(self) -> Contingency:
        """Return the table of the voxels that are 0 in neither segmentation."""
        keep = (self.segments != 0) & (self.truths != 0)
        return Contingency(self.segments[keep], self.truths[keep], self.counts[keep])

    @property
    def segment_sizes(self) -> npt.NDArray[np.int64]:
        """Voxels of each segment of the first segmentation that occurs, by rising id."""
        return _totals(self.segments, self.counts)

    @property
    def truth_sizes(self) -> npt.NDArray[np.int64]:
        """Voxels of each segment of the second segmentation that occurs, by rising id."""
        return _totals(self.truths, self.counts)


def _hashed(
    segments: npt.NDArray[np.uint64], truths: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return each pair of ids below 2^32 once, in any order, with the sum of its counts, which must be below 2^53."""
    import fastremap

    numbers, names = fastremap.renumber(segments << _HALF | truths, preserve_zero=False)
    pairs = np.fromiter(names.keys(), np.uint64, len(names))
    sums = np.bincount(numbers, counts)[np.fromiter(names.values(), np.int64, len(names))]
    return pairs >> _HALF, pairs & np.uint64(2**32 - 1), sums.astype(np.int64)


def _summed(
    segments: npt.NDArray[np.uint64], truths: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]
) -> Contingency:
    order = np.lexsort((truths, segments))
    segments, truths, counts = segments[order], truths[order], counts[order]
    fresh = np.ones(len(order), bool)
    fresh[1:] = (segments[1:] != segments[:-1]) | (truths[1:] != truths[:-1])
    starts = np.flatnonzero(fresh)
    sums = np.add.reduceat(counts, starts) if starts.size else counts
    return Contingency(segments[starts], truths[starts], sums.astype(np.int64))


def _totals(ids: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    order = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.concatenate((np.ones(min(ids.size, 1), bool), ids[order][1:] != ids[order][:-1])))
    return np.add.reduceat(counts[order], starts) if starts.size else counts
