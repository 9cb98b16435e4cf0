"""Scores of a segmentation against the truth, from their contingency table.

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
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from daskflow.operators.segmentation.evaluate_segmentation.contingency import Contingency, by_segment, by_truth
from daskflow.scratch.records import Arrays

EDIT_THRESHOLD = 1000
_UNIT = 2**52  # of a bit, in which logarithms are summed, so that sums do not depend on their order

Sums = Mapping[str, int]


def scores(table: Contingency, *, edit_threshold: int = EDIT_THRESHOLD) -> dict[str, float]:
    """Return every score of a contingency table (first segmentation: the one judged; second: the truth).

    Args:
        table: shared voxels.
        edit_threshold: overlaps of at most so many voxels count as no overlap in the edit distance.

    Returns:
        As `scores_of`.
    """
    rows = vars(table)
    sizes = (size_sums(by(rows), edit_threshold) for by in (by_segment, by_truth))
    return scores_of(pair_sums(rows, edit_threshold), *sizes)


def scores_of(pairs: Sums, segments: Sums, truths: Sums) -> dict[str, float]:
    """Return every score.

    Args:
        pairs: sums over the pairs of segments, from `pair_sums`.
        segments: sums over the segments of the first segmentation, from `size_sums`.
        truths: those of the second.

    Returns:
        `rand_index`, `adjusted_rand_index`, `fowlkes_mallows_index`, `variation_of_information`, `vi_split`,
        `vi_merge` (bits; nan where no voxel is foreground in both), `edit_merges`, `edit_splits`: how many cuts and
        joins turn the segmentation into the truth, surplus overlaps per segment and per true segment.
    """
    n = pairs["foreground"] * _UNIT
    split, merge = ((one["logarithms"] - pairs["logarithms"]) / n if n else math.nan for one in (truths, segments))
    return {
        **_pair_scores(pairs["voxels"], pairs["squares"], segments["squares"], truths["squares"]),
        "variation_of_information": split + merge,
        "vi_split": split,
        "vi_merge": merge,
        "edit_merges": pairs["overlapping"] - segments["overlapping"],
        "edit_splits": pairs["overlapping"] - truths["overlapping"],
    }


def pair_sums(rows: Arrays, edit_threshold: int = EDIT_THRESHOLD) -> dict[str, int]:
    """Return sums over pairs of segments; those of parts, of which none shares a pair, add up."""
    shared = rows["counts"][(rows["segments"] != 0) & (rows["truths"] != 0)]
    return {
        "voxels": int(rows["counts"].sum()),
        "squares": sum_of_products(rows["counts"], rows["counts"]),
        "foreground": int(shared.sum()),
        "logarithms": _logarithms(shared),
        "overlapping": int(np.count_nonzero(shared > edit_threshold)),
    }


def size_sums(rows: Arrays, edit_threshold: int = EDIT_THRESHOLD) -> dict[str, int]:
    """Return sums over segments; those of parts, of which none shares a segment, add up."""
    return {
        "squares": sum_of_products(rows["voxels"], rows["voxels"]),
        "logarithms": _logarithms(rows["foreground"]),
        "overlapping": int(np.count_nonzero(rows["largest"] > edit_threshold)),
    }


def _pair_scores(n: int, shared: int, rows: int, columns: int) -> dict[str, float]:
    """Return Rand, adjusted Rand and Fowlkes-Mallows, from exact integers; 1 where both leave nothing to tell apart."""
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
