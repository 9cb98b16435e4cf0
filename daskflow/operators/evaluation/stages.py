"""The passes of an evaluation: count overlaps block by block, then add the tables up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import JobError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import Evaluate
from daskflow.operators.evaluation.contingency import Contingency
from daskflow.scratch.records import Arrays, Reduce, write_record
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage, in_order


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: which voxels are compared, block by block, and under which name the counts are kept.

    Attributes:
        grid: the blocks.
        key: tells its records from those of another evaluation in the same job.
    """

    grid: BlockGrid
    key: str

    @property
    def adding(self) -> Reduce:
        """The passes that add the tables of all blocks up."""
        return Reduce(f"add-overlaps-{self.key}", f"overlaps-{self.key}", len(self.grid), add_tables)

    def stages(self, expression: Expression) -> tuple[Stage, ...]:
        """Return all passes, in order.

        Args:
            expression: its outputs are the segmentation and the truth.
        """
        counting = Stage("count-overlaps", self.grid, Evaluate.into(expression, CountOverlaps(self)))
        return in_order((counting, *self.adding.stages()), after=expression.stages)

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
class CountOverlaps(Consumer):
    """Count the voxels that segments of two volumes share, in every block.

    Attributes:
        evaluation: what is compared.
        directory: URL of the scratch directory, once bound.
    """

    evaluation: Evaluation
    directory: str = ""

    @property
    def grid(self) -> BlockGrid:
        return self.evaluation.grid

    def compute(self, box: BoundingBox, arrays: list[npt.NDArray[Any]]) -> Contingency:  # noqa: ARG002
        segmentation, truth = arrays
        return Contingency.of(segmentation, truth)

    def write(self, box: BoundingBox, outputs: Contingency) -> BlockResult:
        (index,) = self.evaluation.grid.touching(box)
        record = vars(outputs) | {"blocks": np.ones(1, np.int64)}
        write_record(self.directory, self.evaluation.adding.source, index, record)
        return BlockResult(empty=not outputs.segments.any() and not outputs.truths.any())

    def further(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=2 * box.size)

    def check(self) -> None:
        kvstore.check_writable(self.directory)

    def describe(self) -> dict[str, Any]:
        return {"counts": "overlaps"}


def add_tables(records: list[Arrays]) -> Arrays:
    """Return the record of all blocks whose records are given: their table, and how many they are."""
    parts = [Contingency(**{name: array for name, array in r.items() if name != "blocks"}) for r in records]
    return vars(Contingency.sum(parts)) | {"blocks": np.sum([record["blocks"] for record in records], axis=0)}
