"""The consumer that writes what is found in a block to a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.scratch.tables import Table
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage, in_order
from daskflow.volume.node import Array

Rows = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Tabulate(Consumer):
    """Write what is found in each block to a table.

    Attributes:
        table: has as many blocks as there are.
        blocks: in which voxels are taken.
        find: returns the rows of a block, given its box, the arrays (zyx) and the parameters; a module's function.
        parameters: JSON values.
        memory: bytes per voxel that it takes.
    """

    table: Table
    blocks: BlockGrid
    find: Callable[..., Rows]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    memory: int = 2

    def stages(self, name: str, expression: Expression) -> tuple[Stage, ...]:
        """Return all passes, in order: the one that finds, and those of the table.

        Args:
            name: of the first.
            expression: gives the arrays; what it waits for is not included.
        """
        finding = Stage(name, self.blocks, EvaluateVolumes.into(expression, self))
        return in_order((finding, *self.table.stages()), after=expression.stages)

    @property
    def grid(self) -> BlockGrid:
        return self.blocks

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Rows:
        return self.find(box, *(array.reshape(box.shape) for array in arrays), **self.parameters)

    def write(self, box: BoundingBox, outputs: Rows) -> BlockResult:
        (index,) = self.blocks.touching(box)
        self.table.write(index, outputs)
        keys = [name for name, how in self.table.columns.items() if how == "key"]
        return BlockResult(empty=not any(np.any(outputs[name]) for name in keys))

    def further(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=self.memory * box.size)

    def check(self) -> None:
        kvstore.check_writable(self.table.scope.url)

    def describe(self) -> dict[str, Any]:
        found = f"{self.find.__module__}.{self.find.__qualname__}"
        table = {"table": self.table.name, "columns": dict(self.table.columns)}
        return {"finds": found, "parameters": dict(self.parameters), **table}
