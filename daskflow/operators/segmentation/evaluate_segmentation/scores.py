"""A segmentation against the truth, from the voxels that every two segments share.

With n voxels in all, n_ij shared by segment i and true segment j, and a_i, b_j the sums over j and i, the pairs of
voxels are

    together in both        A = (sum n_ij^2 - n) / 2
    in the segment alone    B = (sum a_i^2 - sum n_ij^2) / 2
    in the truth alone      C = (sum b_j^2 - sum n_ij^2) / 2
    apart in both           D = n (n - 1) / 2 - A - B - C

(Rand 1971; Hubert & Arabie 1985; Fowlkes & Mallows 1983.) Background counts as a segment there. The variation of
information (Meila 2003), in bits, leaves out voxels that are 0 in either:

    split  H(segmentation | truth) = - sum n_ij/n log2(n_ij / b_j)     a true segment falls apart
    merge  H(truth | segmentation) = - sum n_ij/n log2(n_ij / a_i)     a segment swallows several

and so do the halves of Rand, of the pairs of voxels that are together in one the share that are in the other, too:

    split  sum n_ij^2 / sum b_j^2          merge  sum n_ij^2 / sum a_i^2

The adapted Rand error (Arganda-Carreras et al. 2015, as SNEMI3D and CREMI rank by it) leaves out voxels that are 0 in
the truth: one less the harmonic mean of the two halves there, of pairs of different voxels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import How, merged

Array = npt.NDArray[Any]
Sums = Mapping[str, int]

# voxels that have an id of the one and of the other segmentation, 0 being background
PAIRS: dict[str, How] = {"segments": "key", "truths": "key", "counts": "sum"}
# foreground: voxels that are 0 in neither segmentation; largest: of these, the most that are shared with one segment;
# known: voxels that are not 0 in the truth
SIZES: dict[str, How] = {"ids": "key", "voxels": "sum", "foreground": "sum", "largest": "max", "known": "sum"}
_HALF = np.uint64(32)
EDIT_THRESHOLD = 1000  # overlaps of at most so many voxels count as no overlap in the edits
_UNIT = 2**52  # of a bit, in which logarithms are summed, so that sums do not depend on their order


def overlaps_of(box: BoundingBox, segmentation: Array, truth: Array) -> Arrays:  # noqa: ARG001
    """Return the rows of a block: columns as in `PAIRS`."""
    return overlaps(segmentation, truth)


def overlaps(segmentation: Array, truth: Array) -> Arrays:
    """Return the voxels that each pair of segments of two arrays of integers shares: columns as in `PAIRS`."""
    seg, tru = np.ravel(segmentation), np.ravel(truth)
    # ids repeat along x, so runs of equal pairs are counted instead of voxels
    changes = seg[1:] != seg[:-1]
    changes |= tru[1:] != tru[:-1]
    starts = np.concatenate((np.zeros(min(seg.size, 1), np.int64), np.flatnonzero(changes) + 1))
    lengths = np.diff(starts, append=seg.size)
    segments, truths = seg[starts].astype(np.uint64), tru[starts].astype(np.uint64)
    if segments.size and not (segments.max() | truths.max()) >> _HALF:
        segments, truths, lengths = _hashed(segments, truths, lengths)
    return merged(PAIRS, [{"segments": segments, "truths": truths, "counts": lengths}])


def by_segment(rows: Arrays) -> Arrays:
    """Return what is known of every segment from rows of pairs: columns as in `SIZES`."""
    return _sizes(rows, "segments")


def by_truth(rows: Arrays) -> Arrays:
    """Return the same of every true segment."""
    return _sizes(rows, "truths")


def _sizes(rows: Arrays, ids: str) -> Arrays:
    shared = np.where((rows["segments"] != 0) & (rows["truths"] != 0), rows["counts"], 0)
    known = np.where(rows["truths"] != 0, rows["counts"], 0)
    sizes = {"voxels": rows["counts"], "foreground": shared, "largest": shared, "known": known}
    return merged(SIZES, [{"ids": rows[ids], **sizes}])


def _hashed(
    segments: npt.NDArray[np.uint64], truths: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return each pair of ids below 2^32 once, in any order, with the sum of its counts, which must be below 2^53."""
    import fastremap

    numbers, names = fastremap.renumber(segments << _HALF | truths, preserve_zero=False)
    pairs = np.fromiter(names.keys(), np.uint64, len(names))
    sums = np.bincount(numbers, counts)[np.fromiter(names.values(), np.int64, len(names))]
    return pairs >> _HALF, pairs & np.uint64(2**32 - 1), sums.astype(np.int64)


def scores_of(pairs: Sums, segments: Sums, truths: Sums) -> dict[str, Any]:
    """Return every score, from the `pair_sums` of the pairs of segments and the `size_sums` of either segmentation.

    Without a voxel that is foreground in both, variation of information and halves of Rand are nan, without one in the
    truth the adapted Rand error. The edits are how
    many cuts and joins turn the segmentation into the truth: surplus overlaps per segment and per true segment.
    """
    n = pairs["foreground"] * _UNIT
    split, merge = ((one["logarithms"] - pairs["logarithms"]) / n if n else math.nan for one in (truths, segments))
    together, pure = (pairs["shared"] / one["shared"] if n else math.nan for one in (truths, segments))
    edits = [pairs["overlapping"] - one["overlapping"] for one in (segments, truths)]
    return {
        **_pair_scores(pairs["voxels"], pairs["squares"], segments["squares"], truths["squares"]),
        "adapted_rand_error": _adapted_error(pairs, segments, truths),
        "variation_of_information": split + merge,
        "vi_split": split,
        "vi_merge": merge,
        "rand_split": together,
        "rand_merge": pure,
        "edit_merges": edits[0],
        "edit_splits": edits[1],
        "edit_distance": edits,
    }


def pair_sums(rows: Arrays) -> dict[str, int]:
    """Return sums over pairs of segments; those of parts, of which none shares a pair, add up."""
    shared = rows["counts"][(rows["segments"] != 0) & (rows["truths"] != 0)]
    known = rows["counts"][rows["truths"] != 0]
    return {
        "known": int(known.sum()),
        "known_squares": sum_of_products(known, known),
        "voxels": int(rows["counts"].sum()),
        "squares": sum_of_products(rows["counts"], rows["counts"]),
        "foreground": int(shared.sum()),
        "shared": sum_of_products(shared, shared),
        "logarithms": _logarithms(shared),
        "overlapping": int(np.count_nonzero(shared > EDIT_THRESHOLD)),
    }


def size_sums(rows: Arrays) -> dict[str, int]:
    """Return sums over segments; those of parts, of which none shares a segment, add up."""
    return {
        "known_squares": sum_of_products(rows["known"], rows["known"]),
        "squares": sum_of_products(rows["voxels"], rows["voxels"]),
        "shared": sum_of_products(rows["foreground"], rows["foreground"]),
        "logarithms": _logarithms(rows["foreground"]),
        "overlapping": int(np.count_nonzero(rows["largest"] > EDIT_THRESHOLD)),
    }


def _pair_scores(n: int, shared: int, rows: int, columns: int) -> dict[str, float]:
    """Return Rand, adjusted Rand and Fowlkes-Mallows, from exact integers; 1 where both leave nothing to separate."""
    together, segment, truth = (shared - n) // 2, (rows - shared) // 2, (columns - shared) // 2
    pairs = n * (n - 1) // 2
    apart = pairs - together - segment - truth
    agreed = together + apart
    expected = (together + segment) * (together + truth) + (truth + apart) * (segment + apart)
    same = segment == truth == 0
    joined = (together + segment) * (together + truth)
    return {
        "rand_index": agreed / pairs if pairs else 1.0,
        "adjusted_rand_index": 1.0 if same else (pairs * agreed - expected) / (pairs * pairs - expected),
        "fowlkes_mallows_index": 1.0 if same else together / math.sqrt(joined) if joined else 0.0,
    }


def _adapted_error(pairs: Sums, segments: Sums, truths: Sums) -> float:
    """Return the adapted Rand error, nan where the truth is 0 everywhere."""
    if not pairs["known"]:
        return math.nan
    together, segment, truth = (one["known_squares"] - pairs["known"] for one in (pairs, segments, truths))
    return 1 - 2 * together / (segment + truth) if segment + truth else 0.0


def _logarithms(counts: npt.NDArray[np.int64]) -> int:
    """Return the sum of n log2 n, in units of 2^-52."""
    return sum_of_products(counts, np.rint(np.log2(np.maximum(counts, 1)) * _UNIT).astype(np.int64))


def sum_of_products(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> int:
    """Return the exact sum of the products of numbers in [0, 2^63), which may pass 2^64."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    parts = [[values.astype(np.uint64) & mask, values.astype(np.uint64) >> half] for values in (one, other)]

    def exact(products: npt.NDArray[np.uint64]) -> int:
        return (int((products >> half).sum(dtype=np.uint64)) << 32) + int((products & mask).sum(dtype=np.uint64))

    return sum(exact(a * b) << 32 * (i + j) for i, a in enumerate(parts[0]) for j, b in enumerate(parts[1]))
