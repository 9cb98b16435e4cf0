"""What a job will do and cost, estimated from a few blocks before anything runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from daskflow.clusters.workers import Workers
from daskflow.config import Summary, format_bytes
from daskflow.errors import PlanError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, Zyx
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.jobs.sinks import FileSink, LayerSink
from daskflow.stores import Store, kvstore
from daskflow.volume import Expression
from daskflow.volume.node import Source, Stored, Waiting
from daskflow.volume.stage import Estimate, Stage

_MOST_BLOCKS = 1 << 30
_LONGEST = 36


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
        memory_option: the option by which the memory of a block was chosen, if any.
        unit: the smallest block that is whole chunks and shards of what is written, where voxels are.
        gpu: whether it computes on a GPU where there is one.
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
    memory_option: str = ""
    unit: Zyx | None = None
    gpu: bool = False

    @classmethod
    def of(cls, stage: Stage, workers: Workers) -> Self:
        """Estimate a stage from at most 27 kinds of blocks: first, inner and last along each axis."""
        grid = stage.grid
        if grid.count > _MOST_BLOCKS:
            raise PlanError(
                f"stage {stage.name} has {grid.count:,} blocks of {grid.block} zyx, more than "
                f"{_MOST_BLOCKS:,}; use larger blocks"
            )
        kinds = [(count, stage.task.estimate(grid[index])) for index, count in kinds_of_blocks(grid)]
        memory = max((kind.memory for _, kind in kinds), default=0)
        voxels = sum(count * kind.voxels_read for count, kind in kinds)
        gpu = stage.task.gpu
        workers = workers.of(gpu=gpu)
        smaller, less = fitting_block(stage, workers) if exceeds(memory, workers) else (None, 0)
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
            memory_option=next((kind.option for _, kind in kinds if kind.memory == memory), ""),
            unit=_unit(stage),
            gpu=gpu,
        )

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.grid.count


@dataclass(frozen=True, repr=False)
class Plan(Summary):
    """What a job will do and cost.

    Attributes:
        name: the job's.
        directory: where it keeps its ledger; None for a job that leaves nothing but its report.
        stages: one plan each, in the order they run.
        workers: what they are planned for.
        notes: what was decided where nothing was said, a line each.
        flows: what volumes go in and come out, a line each.
    """

    header = ("stage", "blocks", "block zyx", "read", "written", "memory/worker", "recompute")

    name: str
    directory: str | None
    stages: tuple[StagePlan, ...]
    workers: Workers
    notes: tuple[str, ...] = ()
    flows: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, name: str, directory: str | None, stages: Sequence[Stage], workers: Workers, notes: tuple[str, ...] = ()
    ) -> Self:
        """Estimate stages, for workers."""
        plans = tuple(StagePlan.of(stage, workers) for stage in stages)
        return cls(name, directory, plans, workers, notes, flows(stages))

    def __repr__(self) -> str:
        blocks, read = sum(stage.blocks for stage in self.stages), sum(stage.bytes_read for stage in self.stages)
        counts = f"{len(self.stages):,} stage{'s' * (len(self.stages) != 1)}, {blocks:,} block{'s' * (blocks != 1)}"
        moved = f"{format_bytes(read)} read, {format_bytes(self.bytes_moved - read)} written"
        return f"<Plan of {self.name} · {counts} · {moved}>"

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written, uncompressed, over all stages."""
        return sum(stage.bytes_read + stage.bytes_written for stage in self.stages)

    @property
    def seconds_saved(self) -> float:
        """Seconds that as many worker processes take less than threads, which share one Python lock."""
        together = ((stage, min(stage.blocks, self._workers(stage).threads)) for stage in self.stages if stage.blocks)
        return sum(stage.locked_seconds * (1 - 1 / at_once) for stage, at_once in together)

    def memory(self, stage: StagePlan) -> int:
        """Return the bytes that a worker needs at the peak of a stage: those of a block, for each of its threads."""
        return stage.block_memory * self._workers(stage).threads_per_worker

    def _workers(self, stage: StagePlan) -> Workers:
        return self.workers.of(gpu=stage.gpu)

    def overlaps(self, stage: StagePlan) -> bool:
        """Return whether a worker has memory to read the next block and write the last while computing one."""
        return not exceeds(stage.overlap_memory, self._workers(stage))

    def check(self) -> None:
        """Raise unless the workers can do it.

        Raises:
            PlanError: a stage needs more memory than a worker may use.
        """
        for stage in self.stages:
            if exceeds(stage.block_memory, self._workers(stage)):
                raise PlanError(self._too_much(stage))

    def _too_much(self, stage: StagePlan) -> str:
        workers = self._workers(stage)
        threads = workers.threads_per_worker
        each = f" ({threads} threads, {format_bytes(stage.block_memory)} each)" if threads > 1 else ""
        advice = "give workers more memory"
        if threads > 1:
            advice += " or fewer threads"
        limit, option = workers.memory or 0, stage.memory_option
        needed = format_bytes(stage.smaller_memory * threads)
        shaped = option.endswith("--shape")
        if shaped and stage.smaller is not None:
            advice = f"say {option} {' '.join(map(str, stage.smaller))}, which needs {needed}, or {advice}"
        elif shaped:
            part = limit / self.memory(stage)
            advice = f"say {option} with {part:.2g} times as many voxels or fewer, or {advice}"
        elif option:
            advice = f"say {option} {limit // threads // 10**6}MB or less, or {advice}"
        elif stage.smaller is not None:
            advice = f"use blocks of about {stage.smaller} zyx, which need {needed}, or {advice}"
        elif stage.unit is not None:
            advice = f"{advice}, or write smaller chunks or shards: a block is at least {stage.unit} zyx, all of one"
        blocks = "" if option else f" for blocks of {stage.grid.block} zyx"
        return (
            f"stage {stage.name} needs {format_bytes(self.memory(stage))} per worker{each}{blocks}, "
            f"and a worker may use {format_bytes(limit)}; {advice}"
        )

    def summary(self) -> tuple[str, list[tuple[str, ...]], list[str]]:
        rows: list[tuple[str, ...]] = [
            (
                stage.name,
                f"{stage.blocks:,}",
                "x".join(str(min(pair)) for pair in zip(stage.grid.block, stage.grid.box.shape, strict=True)),
                format_bytes(stage.bytes_read),
                format_bytes(stage.bytes_written),
                format_bytes(self.memory(stage)),
                "-" if stage.recompute is None else f"{stage.recompute:.2f}",
            )
            for stage in self.stages
        ]

        workers = self.workers
        limit = "" if workers.memory is None else f", {format_bytes(workers.memory)} each"
        runs_on = (
            f"{'up to ' * workers.at_most}{workers.count} worker{'s' * (workers.count != 1)}, {workers.threads} "
            f"thread{'s' * (workers.threads != 1)}{limit}{f'; ledger in {self.directory}' if self.directory else ''}"
        )
        return f"Plan of {self.name}", rows, [*self.flows, *self.notes, runs_on, *self._on_gpus()]

    def _on_gpus(self) -> list[str]:
        """Return a line on the stages that ask for GPUs, if any do."""
        names = ", ".join(stage.name for stage in self.stages if stage.gpu)
        gpu = self.workers.gpu
        if gpu is None or not names:
            return []
        at_once = f"{'up to ' * gpu.at_most}{gpu.threads} block{'s' * (gpu.threads != 1)} at once"
        return [f"on GPUs: {names} ({at_once}, {gpu.count} worker{'s' * (gpu.count != 1)})"]


def kinds_of_blocks(grid: BlockGrid) -> list[tuple[int, int]]:
    """Return the number of a block of each kind (first, inner, last along each axis) and how many are of that kind."""
    if grid.box.empty:
        return []
    axes = (_positions(n) for n in grid.shape)
    return [(grid.index((z, y, x)), nz * ny * nx) for (z, nz), (y, ny), (x, nx) in itertools.product(*axes)]


def _positions(blocks: int) -> list[tuple[int, int]]:
    """Return positions along an axis with the number of blocks each stands for."""
    if blocks <= 3:
        return [(position, 1) for position in range(blocks)]
    return [(0, 1), (blocks // 2, blocks - 2), (blocks - 1, 1)]


def exceeds(memory: float, workers: Workers) -> bool:
    """Return whether a worker has less memory than a block takes for each of its threads."""
    return workers.memory is not None and memory * workers.threads_per_worker > workers.memory


def outgrown(stage: Stage, index: int, peak: int, workers: Workers) -> str:
    """Say what a block whose worker died was estimated to need, what the worker used, and which block would fit.

    `peak` is the most bytes that the worker was seen to use, 0 when nobody saw it.
    """
    estimate = stage.task.estimate(stage.grid[index]).memory
    limit = "what there is" if workers.memory is None else format_bytes(workers.memory)
    told = f"The block was estimated to need {format_bytes(estimate)}"
    if peak <= estimate:
        return f"{told}; the worker may use {limit}"
    told += f", its worker used {format_bytes(peak)} or more, and may use {limit}; give workers more memory"
    fitting, _ = fitting_block(stage, workers, peak / max(1, estimate)) if workers.memory is not None else (None, 0)
    return told if fitting is None else f"{told}, or use blocks of at most about {fitting} zyx"


def fitting_block(stage: Stage, workers: Workers, scale: float = 1.0) -> tuple[Zyx, int] | tuple[None, int]:
    """Return the first block that fits, halving the longest axis again and again; None when none does.

    `scale` is how many times its estimate a block takes.
    """
    grid, unit = stage.grid, _unit(stage) or (1, 1, 1)
    start = grid[len(grid) // 2].start
    block = list(grid.block)
    while loose := [axis for axis in range(3) if block[axis] > unit[axis]]:
        axis = max(loose, key=lambda axis: block[axis])
        block[axis] = -(-((block[axis] + 1) // 2) // unit[axis]) * unit[axis]
        estimate: Estimate = stage.task.estimate(BoundingBox.from_size(start, block).clip(grid.box))
        if not exceeds(scale * estimate.memory, workers):
            return (block[0], block[1], block[2]), estimate.memory
    return None, 0


def _unit(stage: Stage) -> Zyx | None:
    return stage.task.unit if isinstance(stage.task, EvaluateVolumes) else None


def flows(stages: Sequence[Stage]) -> tuple[str, ...]:
    """Return a line for each volume that stages read, then for each that they write, of at most 80 characters or so."""
    found = [one for stage in stages for one in _found(stage.task)]
    inputs = [_line("in", *_input(one)) for one in found if isinstance(one, Store | Source)]
    outputs = [
        _line("out", _named(one.url, getattr(one, "mip", 0)), one.spec)
        for one in found
        if isinstance(one, LayerSink | FileSink) and "://" in one.url  # scratch data have no place yet
    ]
    return tuple(dict.fromkeys(inputs + outputs))


def inside(value: object, *kinds: type[Any]) -> Iterator[Any]:
    """Yield what is of some kinds among tasks and the dataclasses that they are made of."""
    if isinstance(value, kinds):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from inside(one, *kinds)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from inside(getattr(value, field.name), *kinds)


def _found(task: object) -> Iterator[Store | Source | LayerSink | FileSink]:
    """Yield the sources and the sinks that a task holds; no scratch data."""
    for one in inside(task, Store, LayerSink, FileSink, Expression):
        if isinstance(one, Expression):
            yield from (node for node in one.nodes if isinstance(node, Source) and not isinstance(node, Waiting))
        else:
            yield one


def _input(source: Store | Source) -> tuple[str, VolumeSpec]:
    store = source.store if isinstance(source, Stored) else source
    if isinstance(store, Store) and store.opened is not None:
        return _named(store.url, store.mip), store.spec
    return "array", store.spec


def _named(url: str, mip: int) -> str:
    name = kvstore.redact(url).rstrip("/")
    name = name if len(name) <= _LONGEST else f"...{name[3 - _LONGEST :]}"
    return f"{name} mip {mip}" if mip else name


def _line(way: str, name: str, spec: VolumeSpec) -> str:
    channels = "" if spec.channels is None else f" x {spec.channels}"
    kind = "" if spec.layer_type is None else f" {spec.layer_type}"
    return f"{way:<3} {name}: {spec.dtype}{channels}{kind}, {spec.size_text}"
