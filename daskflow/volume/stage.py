"""A pass over a grid: what a volume may have to wait for, and what a job runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from daskflow.geometry import BlockGrid, BoundingBox


@dataclass(frozen=True)
class Estimate:
    """What one block will cost.

    Attributes:
        bytes_read: bytes of voxels fetched from stores, uncompressed.
        bytes_written: bytes of voxels handed to stores, uncompressed.
        memory: bytes alive at the peak of computing the block.
        voxels_read: voxels fetched, halo included; over the block's own voxels it tells how often each is read.
        locked_seconds: CPU seconds for which computing holds Python's lock, so that threads of one process take turns.
    """

    bytes_read: int = 0
    bytes_written: int = 0
    memory: int = 0
    voxels_read: int = 0
    locked_seconds: float = 0.0


@dataclass(frozen=True)
class BlockResult:
    """What came out of one block, small enough to travel to the driver.

    Attributes:
        empty: every voxel written was background.
        counts: named totals that add up over blocks, e.g. {"missing_chunks": 3}.
    """

    empty: bool = False
    counts: dict[str, int] = field(default_factory=dict)


class StageTask(Protocol):
    """What is done for one block, in three steps that a worker overlaps between neighbouring blocks.

    Tasks are pickled to workers, are idempotent, and give the same bytes each time.
    """

    def read(self, box: BoundingBox) -> Any:
        """Fetch what the block needs from stores."""

    def compute(self, box: BoundingBox, inputs: Any) -> Any:
        """Compute the block from what was read; no I/O, `inputs` not mutated."""

    def write(self, box: BoundingBox, outputs: Any) -> BlockResult:
        """Store the block; it is done once this returned."""

    def estimate(self, box: BoundingBox) -> Estimate:
        """Predict the cost of a block."""

    def check(self) -> None:
        """Raise what can be known to fail before anything runs; create what the blocks write to."""

    def describe(self) -> dict[str, Any]:
        """Return all that the result depends on, as JSON."""

    def bind(self, directory: str) -> StageTask:
        """Return the task with its scratch data placed below the URL `directory`."""


@dataclass(frozen=True)
class Stage:
    """One pass over one grid.

    Attributes:
        name: shown to people, unique in a job.
        grid: the blocks.
        task: what is done for each.
        numbered: the grid counts something else than voxels, e.g. blocks, so that no rate of voxels is told.
    """

    name: str
    grid: BlockGrid
    task: StageTask
    numbered: bool = False


def run_here(stages: Sequence[Stage], directory: str) -> None:
    """Run stages in this process, block after block, with scratch data below the URL `directory`."""
    for stage in stages:
        task = stage.task.bind(directory)
        task.check()
        for box in stage.grid:
            task.write(box, task.compute(box, task.read(box)))
