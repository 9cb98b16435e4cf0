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

import numpy as np
import numpy.typing as npt

from daskflow.operators.evaluation.contingency import Contingency


def scores(table: Contingency, *, edit_threshold: int = 1000) -> dict[str, float]:
    """Return every score of a contingency table (first segmentation: the one judged; second: the truth).

    Args:
        table: shared voxels.
        edit_threshold: overlaps of at most so many voxels count as no overlap in the edit distance.

    Returns:
        `rand_index`, `adjusted_rand_index`, `fowlkes_mallows_index`, `variation_of_information`, `vi_split`,
        `vi_merge` (bits; nan where no voxel is foreground in both), `edit_merges`, `edit_splits`.
    """
    split, merge = variation_of_information(table)
    merges, splits = edit_distance(table, edit_threshold)
    return {
        **pair_scores(table),
        "variation_of_information": split + merge,
        "vi_split": split,
        "vi_merge": merge,
        "edit_merges": merges,
        "edit_splits": splits,
    }


def pair_scores(table: Contingency) -> dict[str, float]:
    """Return Rand, adjusted Rand and Fowlkes-Mallows, from exact integers; 1 where both leave nothing to tell apart."""
    n = int(table.counts.sum())
    shared, rows, columns = map(sum_of_squares, (table.counts, table.segment_sizes, table.truth_sizes))
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


def variation_of_information(table: Contingency) -> tuple[float, float]:
    """Return its two halves, split and merge, in bits, over the voxels that are foreground in both."""
    table = table.without_background()
    n = int(table.counts.sum())
    if not n:
        return math.nan, math.nan
    _, segment = np.unique(table.segments, return_inverse=True)
    _, truth = np.unique(table.truths, return_inverse=True)
    counts = table.counts.astype(np.float64)
    split = counts * np.log2(table.truth_sizes[truth] / counts)
    merge = counts * np.log2(table.segment_sizes[segment] / counts)
    return math.fsum(split) / n, math.fsum(merge) / n


def edit_distance(table: Contingency, threshold: int) -> tuple[int, int]:
    """Return how many cuts and joins turn the segmentation into the truth: surplus overlaps per segment, and per truth.

    Overlaps with background, or of at most `threshold` voxels, do not count.
    """
    table = table.without_background()
    large = table.counts > threshold
    overlaps = int(large.sum())
    segments, truths = np.unique(table.segments[large]), np.unique(table.truths[large])
    return overlaps - len(segments), overlaps - len(truths)


def sum_of_squares(counts: npt.NDArray[np.int64]) -> int:
    """Return the exact sum of the squares of numbers in [0, 2^63), which may pass 2^64."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    values = counts.astype(np.uint64)
    low, high = values & mask, values >> half

    def exact(products: npt.NDArray[np.uint64]) -> int:
        return (int((products >> half).sum(dtype=np.uint64)) << 32) + int((products & mask).sum(dtype=np.uint64))

    return exact(low * low) + (exact(low * high) << 33) + (exact(high * high) << 64)
