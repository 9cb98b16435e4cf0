r"""One numbering of the components that many boxes have, 1 to n as their first voxels come in the whole volume.

    boxes    first voxels │         ▲ numbers of what it has
    merge-1               │         │ tell-0
    merge-2               ▼         │ tell-1
    ranges   how many ─► offsets ─► numbers

The first voxels of all boxes are merged as a table, and each task of the table has one on the way back, which looks up
what was put where: so none holds more than the components of a few boxes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.scratch import Reduce, Table, write_record
from daskflow.scratch.records import Arrays, required_records
from daskflow.scratch.tables import Merge
from daskflow.volume import BlockResult, Stage, Task
from daskflow.volume.stage import Bound, Scope

Numbers = npt.NDArray[np.int64]

_FAN_IN = 16  # a box being a group of 64 blocks


@dataclass(frozen=True)
class Numbering(Bound):
    """The numbers of the components of some boxes.

    Attributes:
        boxes: how many; one alone needs no stage.
        scope: where its records lie.
    """

    boxes: int
    scope: Scope

    @functools.cached_property
    def table(self) -> Table:
        """The first voxels of all components."""
        return Table("components", self.boxes, {"firsts": "key"}, self.scope, fan_in=_FAN_IN)

    @property
    def counts(self) -> Reduce:
        """How many components each range of the table has."""
        return Reduce("count-components", "counts", self.table.ranges, one_after_the_other, self.scope)

    def told(self, level: int) -> str:
        """Return the name of the pass, and of the records, that tell a level of the table its numbers; 0 the boxes."""
        return f"tell-{self.table.name}-{level}"

    def stages(self) -> tuple[Stage, ...]:
        """Return the passes between `write` and `numbers`, in order."""
        if self.boxes == 1:
            return ()
        grids = [BlockGrid(BoundingBox((0, 0, 0), (*tasks, 1)), (1, 1, 1)) for tasks in self.table.levels]
        telling = [
            Stage(self.told(level - 1), grid, TellNumbers(self, level), numbered=True)
            for level, grid in enumerate(grids)
            if level
        ]
        return (*self.table.into(counted, self.counts).stages(), *reversed(telling))

    def write(self, box: int, firsts: Numbers) -> None:
        """Store the first voxels of the components of a box, rising."""
        if self.boxes > 1:
            self.table.write(box, {"firsts": firsts.astype(np.uint64)})

    def numbers(self, box: int, count: int) -> Numbers:
        """Return the numbers of the components of a box, which has `count`, as they were written."""
        if self.boxes == 1:
            return np.arange(1, count + 1)
        (record,) = required_records(self.scope.url, self.told(0), [box])
        return record["numbers"]

    def total(self, count: int) -> int:
        """Return how many components all boxes have, of which the last has `count`."""
        return count if self.boxes == 1 else int(self.counts.result()["counts"].sum())


@dataclass(frozen=True)
class TellNumbers(Task):
    """Tell what a task of the table has merged its numbers.

    Attributes:
        numbering: the table.
        level: of the task.
    """

    numbering: Numbering
    level: int

    def read(self, box: BoundingBox) -> tuple[list[Arrays], Numbers]:
        known, (group, bucket, _) = self.numbering, box.start
        levels = known.table.levels
        taken = Merge(known.table, self.level).read(box)
        if self.level + 1 < len(levels):
            finer = levels[self.level + 1][1]
            cuts = finer // levels[self.level][1]
            first = group * finer + bucket * cuts
            above = required_records(known.scope.url, known.told(self.level), range(first, first + cuts))
            return taken, np.concatenate([record["numbers"] for record in above])
        before = known.counts.result()["counts"][:bucket].sum()
        return taken, before + np.arange(1, sum(len(rows["firsts"]) for rows in taken) + 1)

    def compute(self, box: BoundingBox, inputs: tuple[list[Arrays], Numbers]) -> list[Numbers]:  # noqa: ARG002
        taken, numbers = inputs
        found = np.empty_like(numbers)
        found[np.argsort(np.concatenate([rows["firsts"] for rows in taken]), kind="stable")] = numbers
        return np.split(found, np.cumsum([len(rows["firsts"]) for rows in taken])[:-1])

    def write(self, box: BoundingBox, outputs: list[Numbers]) -> BlockResult:
        known, (group, bucket, _) = self.numbering, box.start
        for member, numbers in enumerate(outputs, group * known.table.fan_in):
            index = member * known.table.levels[self.level][1] + bucket
            write_record(known.scope.url, known.told(self.level - 1), index, {"numbers": numbers})
        return BlockResult()

    def describe(self) -> dict[str, Any]:
        return {"tell": self.numbering.told(self.level - 1)}


def counted(rows: Arrays) -> Arrays:
    """Return how many rows a range has."""
    return {"counts": np.array([len(rows["firsts"])])}


def one_after_the_other(records: list[Arrays]) -> Arrays:
    """Return the counts of some records."""
    return {"counts": np.concatenate([record["counts"] for record in records])}
