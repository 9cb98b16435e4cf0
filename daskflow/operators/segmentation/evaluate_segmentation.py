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
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import GeometryError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs import Job, Report
from daskflow.jobs.evaluate import Tabulate
from daskflow.jobs.report import Finish
from daskflow.operators import options
from daskflow.scratch.records import Arrays, Reduce
from daskflow.scratch.tables import How, Table, merged
from daskflow.stores import kvstore
from daskflow.volume import Expression, Flag, Stage, Volume, operator
from daskflow.volume.stage import Output, Scope

Array = npt.NDArray[Any]
Sums = Mapping[str, int]

# voxels that have an id of the one and of the other segmentation, 0 being background
PAIRS: dict[str, How] = {"segments": "key", "truths": "key", "counts": "sum"}
# foreground: voxels that are 0 in neither segmentation; largest: of these, the most that are shared with one segment
SIZES: dict[str, How] = {"ids": "key", "voxels": "sum", "foreground": "sum", "largest": "max"}
_HALF = np.uint64(32)
EDIT_THRESHOLD = 1000  # overlaps of at most so many voxels count as no overlap in the edits
_UNIT = 2**52  # of a bit, in which logarithms are summed, so that sums do not depend on their order


@operator(takes="labels")
def evaluate_segmentation(
    segmentation: Annotated[Volume, Flag("-s")],
    groundtruth: Annotated[Volume, Flag("-g")],
    *,
    output: options.Destination | None = None,
) -> Job:
    """Score a segmentation against the truth: Rand, variation of information, Fowlkes-Mallows, edits.

    The voxels that every two segments share are counted block by block, in exact integers, and added up in ranges of
    segments, so that no process holds all pairs, however many there are.
    Rand, adjusted Rand and Fowlkes-Mallows take background (0) for a segment; variation of information, in bits, and
    edits (overlaps above 1000 voxels) leave out voxels that are 0 in either. Of the two halves of the variation,
    `vi_split` = H(segmentation | truth) grows where a true segment falls apart, `vi_merge` = H(truth | segmentation)
    where a segment swallows several; `rand_split` and `rand_merge`, shares of pairs of voxels, fall from 1 there.

    Args:
        segmentation: what is judged; integers.
        groundtruth: what is right, over the same box.
        output: path or URL of a JSON file for the scores, which the report holds in any case. Workers on several
            machines need one that all of them can reach. Without it, counts are kept in this machine's temporary files
            while the job runs, and a job that was interrupted starts over.

    Returns:
        The job; ``run().results["scores"]`` has the scores by name: rand_index, adjusted_rand_index,
        variation_of_information, vi_split, vi_merge, rand_split, rand_merge, fowlkes_mallows_index, edit_merges,
        edit_splits, and both of these as edit_distance.

    Raises:
        GeometryError: the volumes cover different boxes, or have voxels of different size.
        ParameterError: a volume is not of integers, or has several channels.
    """
    _check(segmentation, groundtruth)
    expression = Expression([segmentation.node, groundtruth.node])
    grid = segmentation.grid
    scope = Scope("evaluation", (expression, expression.places, grid))
    stages, name = (*expression.stages, *evaluation(expression, grid, scope)), "evaluate segmentation"
    if output is None:
        return Job(stages, None, name=name, finish=(Score(scope, None),))
    location = kvstore.normalise(os.fspath(output))
    finish, makes = (Score(scope, location),), (Output(location, "table"),)
    return Job(stages, f"{location}.daskflow/", name=name, finish=finish, makes=makes)


@dataclass(frozen=True)
class Score(Finish):
    """Turn the table of the whole into scores, once a job has counted it.

    Attributes:
        scope: of the evaluation.
        output: URL of the JSON file the scores are written to, or None.
    """

    scope: Scope
    output: str | None
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        """Add the scores to the report."""
        found = scores_in(self.scope)
        report.results["scores"] = found
        if self.output is not None:
            kvstore.write_bytes(self.output, json.dumps(found, indent=1).encode())


def _check(segmentation: Volume, groundtruth: Volume) -> None:
    if segmentation.box != groundtruth.box:
        raise GeometryError(
            f"the segmentation covers {segmentation.box}, the ground truth {groundtruth.box} (z0-z1_y0-y1_x0-x1);"
            " crop them to the same box"
        )
    if segmentation.spec.ratio(groundtruth.spec) != (1, 1, 1):
        raise GeometryError(
            f"voxels of the segmentation measure {segmentation.spec.size_text} (zyx), of the ground truth"
            f" {groundtruth.spec.size_text}; open both at the same mip"
        )


def evaluation(expression: Expression, grid: BlockGrid, scope: Scope) -> tuple[Stage, ...]:
    """Return all passes over a segmentation and the truth, in order; their records lie in the scope."""
    pairs = Table("overlaps", len(grid), PAIRS, scope)
    for name, by in (("segments", by_segment), ("truths", by_truth)):
        sizes = Table(name, pairs.ranges, SIZES, scope)
        pairs = pairs.into(by, sizes.into(sums_of_sizes, _adding(name, scope, sizes.ranges)))
    pairs = pairs.into(sums_of_pairs, _adding("overlaps", scope, pairs.ranges))
    return Tabulate(pairs, grid, overlaps_of).stages("count-overlaps", expression)


def scores_in(scope: Scope) -> dict[str, Any]:
    """Return the scores of the whole, after the stages ran."""
    records = (_adding(name, scope, 1).result() for name in ("overlaps", "segments", "truths"))
    return scores_of(*({name: int(str(value)) for name, value in record.items()} for record in records))


def _adding(name: str, scope: Scope, ranges: int) -> Reduce:
    """Return the passes that add the sums of the ranges of a table up."""
    return Reduce(f"sum-{name}", f"sums-{name}", ranges, add_sums, scope)


def overlaps_of(box: BoundingBox, segmentation: Array, truth: Array) -> Arrays:  # noqa: ARG001
    """Return the rows of a block: columns as in `PAIRS`."""
    return overlaps(segmentation, truth)


def sums_of_pairs(rows: Arrays) -> Arrays:
    """Return the sums over pairs as text, as they may pass 2^64."""
    return _texts(pair_sums(rows))


def sums_of_sizes(rows: Arrays) -> Arrays:
    """Return the sums over segments as text."""
    return _texts(size_sums(rows))


def add_sums(records: list[Arrays]) -> Arrays:
    """Return sums as text of several ranges together."""
    return _texts({name: sum(int(str(record[name])) for record in records) for name in records[0]})


def _texts(sums: Mapping[str, int]) -> Arrays:
    return {name: np.array(str(value)) for name, value in sums.items()}


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


def scores_of(pairs: Sums, segments: Sums, truths: Sums) -> dict[str, Any]:
    """Return every score, from the `pair_sums` of the pairs of segments and the `size_sums` of either segmentation.

    Without a voxel that is foreground in both, variation of information and halves of Rand are nan. The edits are how
    many cuts and joins turn the segmentation into the truth: surplus overlaps per segment and per true segment.
    """
    n = pairs["foreground"] * _UNIT
    split, merge = ((one["logarithms"] - pairs["logarithms"]) / n if n else math.nan for one in (truths, segments))
    together, pure = (pairs["shared"] / one["shared"] if n else math.nan for one in (truths, segments))
    edits = [pairs["overlapping"] - one["overlapping"] for one in (segments, truths)]
    return {
        **_pair_scores(pairs["voxels"], pairs["squares"], segments["squares"], truths["squares"]),
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
    return {
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
