"""The passes of an evaluation: a table by pair of segments, of it two by segment, and of all three the sums."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from daskflow.geometry import BlockGrid
from daskflow.jobs.tabulate import Tabulate
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


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: which voxels are compared, block by block, and under which name the counts are kept.

    Attributes:
        grid: the blocks.
        key: tells its records from those of another evaluation in the same job.
    """

    grid: BlockGrid
    key: str

    @functools.cached_property
    def overlaps(self) -> Table:
        """The voxels that each pair of segments shares; its ranges become tables of the segments of either volume."""
        pairs = Table(f"overlaps-{self.key}", len(self.grid), PAIRS)
        for name, by in (("segments", by_segment), ("truths", by_truth)):
            sizes = Table(f"{name}-{self.key}", pairs.ranges, SIZES)
            pairs = pairs.into(by, sizes.into(sums_of_sizes, self._adding(name, sizes.ranges)))
        return pairs.into(sums_of_pairs, self._adding("overlaps", pairs.ranges))

    def stages(self, expression: Expression) -> tuple[Stage, ...]:
        """Return all passes, in order.

        Args:
            expression: its outputs are the segmentation and the truth.
        """
        return Tabulate(self.overlaps, self.grid, overlaps_of).stages("count-overlaps", expression)

    def scores(self, directory: str) -> dict[str, float]:
        """Return the scores of the whole, after the stages ran with their scratch data below the URL `directory`."""
        records = (self._adding(name, 1).result(directory) for name in ("overlaps", "segments", "truths"))
        return scores_of(*({name: int(str(value)) for name, value in record.items()} for record in records))

    def _adding(self, name: str, ranges: int) -> Reduce:
        """Return the passes that add the sums of the ranges of a table up."""
        return Reduce(f"sum-{name}-{self.key}", f"sums-{name}-{self.key}", ranges, add_sums)


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
