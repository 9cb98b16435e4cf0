"""The passes of an evaluation: count overlaps block by block, then add the tables up."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.errors import JobError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.records import Arrays, Reduce, write_record
from daskflow.operators.evaluation.contingency import Contingency
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage
from daskflow.volume.expression import Fetched


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: which voxels are compared, block by block, and under which name the counts are kept.

    Attributes:
        expression: its outputs are the segmentation and the truth.
        grid: the blocks.
        key: tells its records from those of another evaluation in the same job.
    """

    expression: Expression
    grid: BlockGrid
    key: str

    @property
    def adding(self) -> Reduce:
        """The passes that add the tables of all blocks up."""
        return Reduce(f"add-overlaps-{self.key}", f"overlaps-{self.key}", len(self.grid), add_tables)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All passes, in order."""
        return (Stage("count-overlaps", self.grid, CountOverlaps(self)), *self.adding.stages())

    def total(self, directory: str) -> Contingency:
        """Return the table of the whole, after the stages ran with their scratch data below the URL `directory`.

        Raises:
            JobError: the counts of a block were lost on the way.
        """
        record = self.adding.result(directory)
        blocks = int(record.pop("blocks")[0])
        if blocks != len(self.grid):
            raise JobError(
                f"scratch data in {directory} hold the counts of {blocks:,} of {len(self.grid):,} blocks;"
                " delete the job's directory and run it again"
            )
        return Contingency(**record)


@dataclass(frozen=True)
class CountOverlaps:
    """Count the voxels that segments of two volumes share, in every block.

    Attributes:
        evaluation: what is compared.
        directory: URL of the scratch directory, once bound.
    """

    evaluation: Evaluation
    directory: str = ""

    def read(self, box: BoundingBox) -> Fetched:
        return self.evaluation.expression.fetch_counted([box, box])

    def compute(self, box: BoundingBox, inputs: Fetched) -> tuple[Contingency, dict[str, int]]:
        (segmentation, truth), counts = self.evaluation.expression.compute_counted([box, box], inputs)
        return Contingency.of(segmentation, truth), counts

    def write(self, box: BoundingBox, outputs: tuple[Contingency, dict[str, int]]) -> BlockResult:
        table, counts = outputs
        (index,) = self.evaluation.grid.touching(box)
        record = vars(table) | {"blocks": np.ones(1, np.int64)}
        write_record(self.directory, self.evaluation.adding.source, index, record)
        return BlockResult(empty=not table.segments.any() and not table.truths.any(), counts=counts)

    def estimate(self, box: BoundingBox) -> Estimate:
        estimate = self.evaluation.expression.estimate([box, box])
        return dataclasses.replace(estimate, memory=estimate.memory + 2 * box.size)

    def check(self) -> None:
        self.evaluation.expression.check()
        kvstore.check_writable(self.directory)

    def describe(self) -> dict[str, Any]:
        expression = self.evaluation.expression
        return {"expression": expression.describe(), "compared": [expression[node] for node in expression.outputs]}

    def bind(self, directory: str) -> CountOverlaps:
        evaluation = dataclasses.replace(self.evaluation, expression=self.evaluation.expression.bind(directory))
        return CountOverlaps(evaluation, directory)


def add_tables(records: list[Arrays]) -> Arrays:
    """Return the record of all blocks whose records are given: their table, and how many they are."""
    parts = [Contingency(**{name: array for name, array in r.items() if name != "blocks"}) for r in records]
    return vars(Contingency.sum(parts)) | {"blocks": np.sum([record["blocks"] for record in records], axis=0)}
