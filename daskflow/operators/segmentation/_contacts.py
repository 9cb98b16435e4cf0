"""Where the fragments of a block touch: the voxels' edges between two of them, and what these come to."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from daskflow.scratch.records import Arrays

Array = npt.NDArray[Any]
Names = npt.NDArray[np.uint64]

Score = Literal["mean", "max"]

_NUMBER = np.uint64(2**31 - 1)


class Crossings(NamedTuple):
    """The edges between voxels of two fragments, and the fragments of a block.

    Attributes:
        regions: labels of the fragments, rising.
        numbers: of each voxel, uint32: that of its fragment in `regions` from 1, 0 being none.
        keys: uint64, rising: the number in `regions` from 1 of the larger, of the smaller one, and the axis, packed.
        values: affinities, uint16.
    """

    regions: Names
    numbers: npt.NDArray[np.uint32]
    keys: npt.NDArray[np.uint64]
    values: npt.NDArray[np.uint16]

    def totals(self, score: Score) -> Arrays:
        """Return of each pair that touches `ends`, places in `regions`, the smaller first, `sums` and `counts`.

        Pairs are in the order of the larger, then of the smaller one. Of a score that is the greatest affinity, this is
        the sum, and the count is 1.
        """
        pairs, sums, counts = added(self.keys >> np.uint64(2), self.values, score=score)
        return {"ends": unpacked(pairs) - np.int32(1), "sums": sums, "counts": counts}

    def by_axis(self) -> Arrays:
        """Return of each pair that touches its labels `u` < `v`, and, (n, 3), `sums` and `counts` per axis (zyx)."""
        keys, sums, counts = added(self.keys, self.values)
        pairs, at = np.unique(keys >> np.uint64(2), return_inverse=True)
        found = {name: np.zeros((len(pairs), 3), np.int64) for name in ("sums", "counts")}
        axes = (keys & np.uint64(3)).astype(np.intp)
        found["sums"][at, axes], found["counts"][at, axes] = sums, counts
        u, v = self.regions[unpacked(pairs) - np.int32(1)].T
        return {"u": u, "v": v, **found}


def unpacked(pairs: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
    """Return the two numbers below 2^31 that each pair is packed of, (n, 2), the lower bits first."""
    return np.stack((pairs & _NUMBER, pairs >> np.uint64(31)), axis=1).astype(np.int32)


def added(
    keys: npt.NDArray[np.uint64], sums: Array, counts: Array | None = None, *, score: Score = "mean"
) -> tuple[Array, Array, Array]:
    """Return the different ones of rising keys, and of each the sum of the sums and of the counts, else of ones.

    Of a score that is the greatest affinity, it is the greatest of the sums, and 1.
    """
    starts = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))
    if not len(starts):
        return keys, np.zeros(0, np.int64), np.zeros(0, np.int64)
    if score == "max":
        return keys[starts], np.maximum.reduceat(sums, starts).astype(np.int64), np.ones(len(starts), np.int64)
    numbers = np.diff(starts, append=len(keys)) if counts is None else np.add.reduceat(counts, starts)
    return keys[starts], np.add.reduceat(sums, starts, dtype=np.int64), numbers


def crossings_of(edges: Array, fragments: Array) -> Crossings:
    """Return where the fragments of a block touch.

    Args:
        edges: affinities of the block's voxels to those before, uint16, (3, z, y, x).
        fragments: labels, zyx, of the same voxels, and on axes where there is one, of the layer before; 0 is none.
    """
    from daskflow.operators.segmentation._crossings import crossings

    regions, numbers = numbered(fragments)
    layers = tuple(a - b for a, b in zip(fragments.shape, edges.shape[1:], strict=True))
    keys, values = crossings(np.ascontiguousarray(edges), numbers, layers)
    order = np.argsort(keys)
    return Crossings(regions, numbers, keys[order], values[order])


def numbered(fragments: Array) -> tuple[Names, npt.NDArray[np.uint32]]:
    """Return the labels of an array but 0, rising, and the array with their numbers from 1, 0 staying."""
    import fastremap

    numbers, known = fastremap.renumber(np.ascontiguousarray(fragments), preserve_zero=True)
    labels = np.zeros(int(numbers.max(initial=0)) + 1, np.uint64)
    labels[np.fromiter(known.values(), np.int64, len(known))] = np.fromiter(known.keys(), np.uint64, len(known))
    rising = np.argsort(labels)
    ranks = np.empty(len(labels), np.uint32)
    ranks[rising] = np.arange(len(labels))
    return labels[rising[1:]], ranks[numbers]
