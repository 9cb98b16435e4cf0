"""What a job will do and cost, told from a few blocks before anything runs."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from daskflow.config import format_bytes
from daskflow.errors import PlanError
from daskflow.geometry import BlockGrid, BoundingBox, Zyx
from daskflow.jobs.executor import Workers
from daskflow.jobs.flows import flows
from daskflow.jobs.table import html_table, text_table
from daskflow.volume.stage import Estimate, Stage

_MOST_BLOCKS = 1 << 30
_HEADER = ("stage", "blocks", "block zyx", "read", "written", "memory/worker", "recompute")


@dataclass(frozen=True)
class StagePlan:
    """What one stage will cost.

    Attributes:
        name: the stage's.
        grid: its blocks.
        bytes_read: uncompressed, over all blocks.
        bytes_written: uncompressed, over all blocks.
        block_memory: bytes at the peak of the costliest kind of block.
        overlap_memory: the same while the next block is read and the last one written.
        recompute: voxels read per voxel of the grid's box; None where the grid counts something else than voxels.
        locked_seconds: CPU seconds for which computing holds Python's lock, over all blocks.
        smaller: a block shape that fits the workers when this one does not.
        smaller_memory: bytes at its peak.
    """

    name: str
    grid: BlockGrid
    bytes_read: int
    bytes_written: int
    block_memory: int
    overlap_memory: int
    recompute: float | None
    locked_seconds: float = 0.0
    smaller: Zyx | None = None
    smaller_memory: int = 0

    @classmethod
    def of(cls, stage: Stage, workers: Workers) -> Self:
        """Estimate a stage from at most 27 kinds of blocks: first, inner and last along each axis.

        Raises:
            PlanError: more blocks than a ledger holds.
        """
        grid = stage.grid
        if grid.count > _MOST_BLOCKS:
            raise PlanError(
                f"stage {stage.name} has {grid.count:,} blocks of {grid.block} zyx, more than "
                f"{_MOST_BLOCKS:,}; use larger blocks"
            )
        kinds = [(count, stage.task.estimate(grid[index])) for index, count in kinds_of_blocks(grid)]
        memory = max((kind.memory for _, kind in kinds), default=0)
        voxels = sum(count * kind.voxels_read for count, kind in kinds)
        smaller, less = _smaller(stage, workers) if _exceeds(memory, workers) else (None, 0)
        return cls(
            name=stage.name,
            grid=grid,
            bytes_read=sum(count * kind.bytes_read for count, kind in kinds),
            bytes_written=sum(count * kind.bytes_written for count, kind in kinds),
            block_memory=memory,
            overlap_memory=max((k.memory + k.bytes_read + k.bytes_written for _, k in kinds), default=0),
            recompute=None if stage.numbered else voxels / max(1, grid.box.size),
            locked_seconds=sum(count * kind.locked_seconds for count, kind in kinds),
            smaller=smaller,
            smaller_memory=less,
        )

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.grid.count


@dataclass(frozen=True)
class Plan:
    """What a job will do and cost.

    Attributes:
        name: the job's.
        directory: where it keeps its ledger.
        stages: one plan each, in the order they run.
        workers: what they are planned for.
        notes: what was decided where nothing was said, a line each.
        flows: what volumes go in and come out, a line each.
    """

    name: str
    directory: str
    stages: tuple[StagePlan, ...]
    workers: Workers
    notes: tuple[str, ...] = ()
    flows: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, name: str, directory: str, stages: Sequence[Stage], workers: Workers, notes: tuple[str, ...] = ()
    ) -> Self:
        """Estimate stages, for workers."""
        plans = tuple(StagePlan.of(stage, workers) for stage in stages)
        return cls(name, directory, plans, workers, notes, flows(stages))

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written, uncompressed, over all stages."""
        return sum(stage.bytes_read + stage.bytes_written for stage in self.stages)

    @property
    def seconds_saved(self) -> float:
        """Seconds that as many worker processes take less than threads, which share one Python lock."""
        together = ((stage, min(stage.blocks, self.workers.threads)) for stage in self.stages if stage.blocks)
        return sum(stage.locked_seconds * (1 - 1 / at_once) for stage, at_once in together)

    def memory(self, stage: StagePlan) -> int:
        """Return the bytes that a worker needs at the peak of a stage: those of a block, for each of its threads."""
        return stage.block_memory * self.workers.threads_per_worker

    def overlaps(self, stage: StagePlan) -> bool:
        """Return whether a worker has memory to read the next block and write the last while computing one."""
        return not _exceeds(stage.overlap_memory, self.workers)

    def check(self) -> None:
        """Raise unless the workers can do it.

        Raises:
            PlanError: a stage needs more memory than a worker may use.
        """
        for stage in self.stages:
            if _exceeds(stage.block_memory, self.workers):
                raise PlanError(self._too_much(stage))

    def _too_much(self, stage: StagePlan) -> str:
        threads = self.workers.threads_per_worker
        each = f" ({threads} threads, {format_bytes(stage.block_memory)} each)" if threads > 1 else ""
        advice = "give workers more memory"
        if threads > 1:
            advice += " or fewer threads"
        if stage.smaller is not None:
            needed = format_bytes(stage.smaller_memory * threads)
            advice = f"use blocks of about {stage.smaller} zyx, which need {needed}, or {advice}"
        return (
            f"stage {stage.name} needs {format_bytes(self.memory(stage))} per worker{each} for blocks of "
            f"{stage.grid.block} zyx, and a worker may use {format_bytes(self.workers.memory or 0)}; {advice}"
        )

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                stage.name,
                f"{stage.blocks:,}",
                "x".join(map(str, stage.grid.block)),
                format_bytes(stage.bytes_read),
                format_bytes(stage.bytes_written),
                format_bytes(self.memory(stage)),
                "-" if stage.recompute is None else f"{stage.recompute:.2f}",
            )
            for stage in self.stages
        ]

    def _summary(self) -> str:
        workers = self.workers
        limit = "" if workers.memory is None else f", {format_bytes(workers.memory)} each"
        return (
            f"{workers.count} worker{'s' * (workers.count != 1)}, {workers.threads} "
            f"thread{'s' * (workers.threads != 1)}{limit}; ledger in {self.directory}"
        )

    def _below(self) -> tuple[str, ...]:
        return (*self.flows, *self.notes, self._summary())

    def __str__(self) -> str:
        return "\n".join((f"Plan of {self.name}", text_table(_HEADER, self._rows()), *self._below()))

    def _repr_html_(self) -> str:
        below = "<br>".join(html.escape(line) for line in self._below())
        title = html.escape(f"Plan of {self.name}")
        return f"<b>{title}</b>{html_table(_HEADER, self._rows())}<small>{below}</small>"


def kinds_of_blocks(grid: BlockGrid) -> list[tuple[int, int]]:
    """Return the number of a block of each kind (first, inner, last along each axis) and how many are of that kind."""
    if grid.box.empty:
        return []
    axes = [_positions(n) for n in grid.shape]
    kinds = []
    for (z, nz), (y, ny), (x, nx) in itertools.product(*axes):
        kinds.append(((z * grid.shape[1] + y) * grid.shape[2] + x, nz * ny * nx))
    return kinds


def _positions(blocks: int) -> list[tuple[int, int]]:
    """Return positions along an axis with the number of blocks each stands for."""
    if blocks <= 3:
        return [(position, 1) for position in range(blocks)]
    return [(0, 1), (blocks // 2, blocks - 2), (blocks - 1, 1)]


def _exceeds(memory: float, workers: Workers) -> bool:
    return workers.memory is not None and memory * workers.threads_per_worker > workers.memory


def outgrown(stage: Stage, index: int, peak: int, workers: Workers) -> str:
    """Say what a block whose worker died was estimated to need, what the worker used, and which block would fit.

    Args:
        stage: the block's.
        index: the block's number.
        peak: most bytes that the worker was seen to use; 0 when nobody saw it.
        workers: those it ran on.
    """
    estimate = stage.task.estimate(stage.grid[index]).memory
    limit = "what there is" if workers.memory is None else format_bytes(workers.memory)
    told = f"The block was estimated to need {format_bytes(estimate)}"
    if peak <= estimate:
        return f"{told}; the worker may use {limit}"
    told += f", its worker used {format_bytes(peak)} or more, and may use {limit}; give workers more memory"
    fitting, _ = _smaller(stage, workers, peak / max(1, estimate)) if workers.memory is not None else (None, 0)
    return told if fitting is None else f"{told}, or use blocks of at most about {fitting} zyx"


def _smaller(stage: Stage, workers: Workers, scale: float = 1.0) -> tuple[Zyx, int] | tuple[None, int]:
    """Return the first block that fits, halving the longest axis again and again; None when none does.

    `scale` is how many times its estimate a block takes.
    """
    grid = stage.grid
    start = grid[len(grid) // 2].start
    block = list(grid.block)
    while max(block) > 1:
        axis = block.index(max(block))
        block[axis] = (block[axis] + 1) // 2
        estimate: Estimate = stage.task.estimate(BoundingBox.from_size(start, block).clip(grid.box))
        if not _exceeds(scale * estimate.memory, workers):
            return (block[0], block[1], block[2]), estimate.memory
    return None, 0
