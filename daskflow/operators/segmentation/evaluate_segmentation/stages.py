"""The passes of an evaluation: a table by pair of segments, of it two by segment, and of all three the sums."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from daskflow.geometry import BlockGrid
from daskflow.jobs.evaluate import Tabulate
from daskflow.operators.segmentation.evaluate_segmentation.contingency import (
    PAIRS,
    SIZES,
    by_segment,
    by_truth,
    overlaps_of,
)
from daskflow.operators.segmentation.evaluate_segmentation.scores import pair_sums, scores_of, size_sums
from daskflow.scratch.records import Arrays, Reduce
from daskflow.scratch.tables import Table
from daskflow.volume import Expression, Stage
from daskflow.volume.stage import Scope


def evaluation(expression: Expression, grid: BlockGrid, scope: Scope) -> tuple[Stage, ...]:
    """Return all passes, in order: the voxels that each pair of segments shares, those of the segments, and the sums.

    Args:
        expression: its outputs are the segmentation and the truth.
        grid: the blocks.
        scope: where the records lie.
    """
    pairs = Table("overlaps", len(grid), PAIRS, scope)
    for name, by in (("segments", by_segment), ("truths", by_truth)):
        sizes = Table(name, pairs.ranges, SIZES, scope)
        pairs = pairs.into(by, sizes.into(sums_of_sizes, _adding(name, scope, sizes.ranges)))
    pairs = pairs.into(sums_of_pairs, _adding("overlaps", scope, pairs.ranges))
    return Tabulate(pairs, grid, overlaps_of).stages("count-overlaps", expression)


def scores_in(scope: Scope) -> dict[str, float]:
    """Return the scores of the whole, after the stages ran."""
    records = (_adding(name, scope, 1).result() for name in ("overlaps", "segments", "truths"))
    return scores_of(*({name: int(str(value)) for name, value in record.items()} for record in records))


def _adding(name: str, scope: Scope, ranges: int) -> Reduce:
    """Return the passes that add the sums of the ranges of a table up."""
    return Reduce(f"sum-{name}", f"sums-{name}", ranges, add_sums, scope)


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
