"""The passes of an evaluation: count overlaps block by block, then add the tables up, 64 at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from daskflow.errors import MissingChunkError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.operators._packing import pack, unpack
from daskflow.operators.evaluation.contingency import Contingency
from daskflow.stores import kvstore
from daskflow.stores.counting import counting
from daskflow.volume import BlockResult, Estimate, Expression, Stage

_GROUP = 4
_READERS = 8


@dataclass(frozen=True)
class Tables:
    """The tables of one evaluation, level by level: those of blocks, of groups of blocks, ..., of the whole.

    Attributes:
        grids: the boxes that the tables of each level cover; the last is one box.
        key: tells this evaluation's scratch data from those of another in the same job.
        url: of the scratch data, once bound.
    """

    grids: tuple[BlockGrid, ...]
    key: str
    url: str | None = None

    @classmethod
    def over(cls, grid: BlockGrid, key: str) -> Tables:
        """Return the tables of blocks, each level with groups of 4 x 4 x 4 of the one before."""
        grids = [grid]
        while len(grids[-1]) > 1:
            z, y, x = (b * _GROUP for b in grids[-1].block)
            grids.append(BlockGrid(grid.box, (z, y, x), grid.origin))
        return cls(tuple(grids), key)

    def bound(self, directory: str) -> Tables:
        """Return the tables with their scratch data below the scratch URL `directory`."""
        return Tables(self.grids, self.key, kvstore.join(directory, f"overlaps-{self.key}"))

    def write(self, level: int, box: BoundingBox, table: Contingency) -> None:
        """Store the table of one box of a level."""
        (index,) = self.grids[level].touching(box)
        kvstore.write_bytes(self._place(level, index), pack(vars(table)))

    def read(self, level: int, box: BoundingBox) -> Iterator[Contingency]:
        """Yield the tables of a level that lie in `box`."""
        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(lambda index: self._read(level, index), self.grids[level].touching(box))

    def total(self) -> Contingency:
        """Return the table of the whole.

        Raises:
            MissingChunkError: it has not been computed.
        """
        return self._read(len(self.grids) - 1, 0)

    def _place(self, level: int, index: int) -> str:
        assert self.url is not None, "tables without scratch"
        return kvstore.join(self.url, str(level), str(index))

    def _read(self, level: int, index: int) -> Contingency:
        url = self._place(level, index)
        data = kvstore.read_bytes(url)
        if data is None:
            raise MissingChunkError(f"scratch data at {url} are gone; delete the job's directory and run it again")
        return Contingency(**unpack(data, url))


Fetched = tuple[dict[int, npt.NDArray[Any]], dict[str, int]]


@dataclass(frozen=True)
class CountOverlaps:
    """Count the voxels that segments of two volumes share, in every block.

    Attributes:
        tables: where the counts go.
        expression: its outputs are the segmentation and the truth.
    """

    tables: Tables
    expression: Expression

    def read(self, box: BoundingBox) -> Fetched:
        with counting() as counts:
            arrays = self.expression.fetch(self.expression.needed([box, box]))
        return arrays, dict(counts)

    def compute(self, box: BoundingBox, inputs: Fetched) -> tuple[Contingency, dict[str, int]]:
        needed = self.expression.needed([box, box])
        values = self.expression.compute(needed, inputs[0])
        places = [self.expression[node] for node in self.expression.outputs]
        segmentation, truth = (values[at][(..., *box.slices(needed[at]))] for at in places)
        return Contingency.of(segmentation, truth), inputs[1]

    def write(self, box: BoundingBox, outputs: tuple[Contingency, dict[str, int]]) -> BlockResult:
        self.tables.write(0, box, outputs[0])
        return BlockResult(empty=not outputs[0].segments.any() and not outputs[0].truths.any(), counts=outputs[1])

    def estimate(self, box: BoundingBox) -> Estimate:
        estimate = self.expression.estimate([box, box])
        return dataclasses.replace(estimate, memory=estimate.memory + 2 * box.size)

    def check(self) -> None:
        assert self.tables.url is not None
        kvstore.check_writable(self.tables.url)

    def describe(self) -> dict[str, Any]:
        return {
            "expression": self.expression.describe(),
            "outputs": [self.expression[n] for n in self.expression.outputs],
        }

    def bind(self, directory: str) -> CountOverlaps:
        return CountOverlaps(self.tables.bound(directory), self.expression.bind(directory))


@dataclass(frozen=True)
class AddTables:
    """Add the tables of one level up to those of the next.

    Attributes:
        tables: where they lie.
        level: the level that is made.
    """

    tables: Tables
    level: int

    def read(self, box: BoundingBox) -> list[Contingency]:
        return list(self.tables.read(self.level - 1, box))

    def compute(self, box: BoundingBox, inputs: list[Contingency]) -> Contingency:  # noqa: ARG002
        return Contingency.sum(inputs)

    def write(self, box: BoundingBox, outputs: Contingency) -> BlockResult:
        self.tables.write(self.level, box, outputs)
        return BlockResult()

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        return Estimate()

    def check(self) -> None:
        """Nothing can fail that counting has not met."""

    def describe(self) -> dict[str, Any]:
        return {"tables": self.tables.key, "level": self.level}

    def bind(self, directory: str) -> AddTables:
        return AddTables(self.tables.bound(directory), self.level)


def evaluation_stages(tables: Tables, expression: Expression) -> tuple[Stage, ...]:
    """Return the stages of an evaluation, in order; arguments as in their tasks."""
    count = Stage("count-overlaps", tables.grids[0], CountOverlaps(tables, expression))
    levels = list(enumerate(tables.grids))[1:]
    return (count, *(Stage(f"add-overlaps-{level}", grid, AddTables(tables, level)) for level, grid in levels))
