"""The passes of counting voxels per label: a table by label."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import JobError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.evaluate import Tabulate
from daskflow.operators.segmentation.voxel_counts.blocks import COLUMNS, Labels, count_labels
from daskflow.scratch.records import Arrays, Reduce
from daskflow.scratch.tables import Table
from daskflow.volume import Expression, Stage
from daskflow.volume.stage import Bound, Scope

_LARGEST = 10


@dataclass(frozen=True)
class LabelCounts(Bound):
    """One counting of the voxels of every label: its passes, and what they leave.

    Attributes:
        grid: the blocks.
        scope: where its records lie.
        fan_in: how many tables are merged at once.
    """

    grid: BlockGrid
    scope: Scope
    fan_in: int = 64

    @classmethod
    def over(cls, expression: Expression, grid: BlockGrid) -> LabelCounts:
        """Return the counting of labels that an expression gives; the same for all that need the same counts."""
        return cls(grid, Scope("counts", (expression, grid)))

    @functools.cached_property
    def table(self) -> Table:
        """The columns `labels`, all that occur, and `counts`."""
        table = Table("counts", len(self.grid), COLUMNS, self.scope, fan_in=self.fan_in)
        return table.into(_sums, Reduce("sum-counts", "sums", table.ranges, merge_sums, self.scope, fan_in=self.fan_in))

    def stages(self, expression: Expression) -> tuple[Stage, ...]:
        """Return all passes, in order; those that the expression waits for not included.

        Args:
            expression: gives the labels; one output.
        """
        return Tabulate(self.table, self.grid, counts_of).stages("count-voxels", expression)

    def of(self, labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return how many voxels of the whole volume some labels, in any order, have; 0 for one that does not occur."""
        return self.table.of(labels)["counts"]

    def summary(self) -> dict[str, Any]:
        """Return what is known of the whole as JSON values: labels, voxels, background and the largest labels.

        Raises:
            JobError: the counts of a block were lost on the way.
        """
        ((_, summing),) = self.table.then
        assert isinstance(summing, Reduce)
        record = summing.result()
        if int(record["voxels"][0]) != self.grid.box.size:
            raise JobError(
                f"scratch data in {self.scope.url} hold {int(record['voxels'][0]):,} of {self.grid.box.size:,} voxels;"
                " delete the job's directory and run it again"
            )
        largest = zip(record["largest"].tolist(), record["sizes"].tolist(), strict=True)
        return {
            "labels": int(record["labels"][0]),
            "voxels": int(record["voxels"][0]),
            "background": int(record["background"][0]),
            "largest": {str(label): count for label, count in largest},
        }


def counts_of(box: BoundingBox, array: npt.NDArray[Any]) -> Arrays:  # noqa: ARG001
    """Return the rows of a block."""
    labels, counts = count_labels(array)
    return {"labels": labels, "counts": counts}


def merge_sums(records: list[Arrays]) -> Arrays:
    """Return what is known of several ranges together."""
    added = {name: np.sum([r[name] for r in records], axis=0) for name in ("labels", "voxels", "background")}
    largest, sizes = (np.concatenate([record[name] for record in records]) for name in ("largest", "sizes"))
    return {**added, **_largest(largest, sizes)}


def _sums(rows: Arrays) -> Arrays:
    labels, counts = rows["labels"], rows["counts"]
    named = labels != 0
    totals = {"labels": np.count_nonzero(named), "voxels": counts.sum(), "background": counts[~named].sum()}
    arrays = {name: np.array([value], np.int64) for name, value in totals.items()}
    return {**arrays, **_largest(labels[named], counts[named])}


def _largest(labels: Labels, counts: npt.NDArray[np.int64]) -> Arrays:
    order = np.lexsort((labels, -counts))[:_LARGEST]
    return {"largest": labels[order], "sizes": counts[order]}
