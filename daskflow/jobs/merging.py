"""From volumes and sinks to stages, and from several jobs to one that evaluates each block once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from daskflow.errors import AlignmentError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, Zyx
from daskflow.jobs.directory import levels_written
from daskflow.jobs.evaluate import Assemble, Evaluate
from daskflow.jobs.fingerprint import describe_stages, token
from daskflow.jobs.job import Job
from daskflow.jobs.passing import PassingJob
from daskflow.jobs.sinks import FileSink, Sink
from daskflow.stores import kvstore
from daskflow.volume import Expression, Stage, Volume

_LONGEST_NAME = 80


def evaluate_stage(name: str, volume: Volume, sink: Sink, *, block: Zyx | None = None) -> Stage:
    """Return the stage that hands a volume to a sink.

    Args:
        name: of the stage.
        volume: what is evaluated.
        sink: where its blocks go.
        block: voxels per block (zyx); by default the volume's, rounded up to whole units of the sink.

    Raises:
        AlignmentError: `block` is not whole units of the sink; the message names the nearest that is.
    """
    grid = _grid(volume.box, block, volume.block, [sink])
    if isinstance(sink, FileSink):
        sink = dataclasses.replace(sink, block=grid.block)
    return Stage(name, grid, Evaluate(volume.expression, (sink,), block))


def file_stages(name: str, volume: Volume, sink: FileSink, *, block: Zyx | None = None) -> tuple[Stage, Stage]:
    """Return the stages that gather a volume's blocks and write a file of them; arguments as for `evaluate_stage`."""
    gather = evaluate_stage(f"gather-{name}", volume, sink, block=block)
    assert isinstance(gather.task, Evaluate)
    (gathered,) = gather.task.sinks
    assert isinstance(gathered, FileSink)
    return gather, Stage(f"write-{name}", BlockGrid(volume.box, volume.box.shape), Assemble(gathered))


def merge(jobs: Sequence[Job], *, command: tuple[str, ...] | None = None) -> Job:
    """Return one job that does what several would, in which volumes over the same box share each block.

    Stages of different jobs whose tasks are of one kind and describe themselves alike run once.

    Args:
        jobs: of sinks; the directory of the first that keeps one is used.
        command: the command line that made them, by which the job can be retried.

    Raises:
        ParameterError: no jobs, sinks over the same box that ask for different blocks, or two jobs that would make or
            write the same thing in different ways.
        AlignmentError: the block that a sink asks for is not whole chunks and shards of another.
    """
    if not jobs:
        raise ParameterError("no jobs to merge")
    stages: list[Stage] = []
    known: set[tuple[type, str]] = set()
    for job in jobs:
        keys = _keys(job)
        stages += [stage for stage, key in zip(job.stages, keys, strict=True) if key not in known]
        known |= set(keys)
    lasting = [job for job in jobs if not isinstance(job, PassingJob)]
    _refuse_rivals(lasting)
    _refuse_one_place(stages)
    kind, directory = (Job, lasting[0].directory) if lasting else (PassingJob, jobs[0].directory)
    return kind(
        fuse(stages),
        directory,
        name=" + ".join(dict.fromkeys(job.name for job in jobs)),
        finish=tuple(finish for job in jobs for finish in job.finish),
        command=command,
        confirm=tuple(line for job in jobs for line in job.confirm),
        renewable=all(job.renewable for job in jobs),
        undo=tuple(dict.fromkeys(line for job in jobs for line in job.undo)),
        notes=tuple(dict.fromkeys(line for job in jobs for line in job.notes)),
        warnings=tuple(dict.fromkeys(line for job in jobs for line in job.warnings)),
    )


def _keys(job: Job) -> list[tuple[type, str]]:
    """Return what tells each stage of a job from those of others: the kind of its task, and how it describes itself."""
    return [(type(stage.task), token(list(describe_stages([stage]).values()))) for stage in job.stages]


def _refuse_rivals(jobs: Sequence[Job]) -> None:
    """Raise for jobs that keep the same directory, and so make the same thing, and differ.

    Volumes that are evaluated into one place are left to their sinks, and jobs that give way to each other may differ.
    """
    seen: dict[str, list[tuple[type, str]]] = {}
    for job in jobs:
        if job.renewable or any(isinstance(stage.task, Evaluate) for stage in job.stages):
            continue
        if seen.setdefault(job.directory, keys := _keys(job)) != keys:
            place = kvstore.redact(job.directory.removesuffix("/").removesuffix(".daskflow"))
            raise ParameterError(
                f"two steps named {job.name} would both write {place}, in different ways; give one of them another"
                " output, or run them one after the other"
            )


def _refuse_one_place(stages: Sequence[Stage]) -> None:
    """Raise where two volumes would be written to one level or file, of which either could be left in the end."""
    seen: set[tuple[str, Any, Any]] = set()
    for sink in (sink for stage in stages if isinstance(stage.task, Evaluate) for sink in stage.task.sinks):
        described = sink.describe()
        for one in levels_written(described) or [described]:
            place = (one["url"], one.get("mip"), one.get("dataset"))
            if place in seen:
                raise ParameterError(
                    f"two volumes would be written to {kvstore.redact(sink.url)}; give one of them another output"
                )
            seen.add(place)


def fuse(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return stages in which those that evaluate volumes over the same box have become one.

    First come the stages that volumes wait for, then evaluation, then what makes files of it, then the stages whose
    tasks say that they read what was written: ``reads_outputs = True``.
    """
    groups: dict[tuple[BoundingBox, tuple[float, ...]], list[Stage]] = {}
    for stage in stages:
        if isinstance(stage.task, Evaluate):
            key = (stage.grid.box, stage.task.expression.outputs[0].spec.spacing)
            groups.setdefault(key, []).append(stage)
    later = [stage for stage in stages if getattr(stage.task, "reads_outputs", False)]
    before = [s for s in stages if not isinstance(s.task, Evaluate | Assemble) and not any(s is one for one in later)]
    fused = [_fused(group) for group in groups.values()]
    gathered = {sink.url: sink for stage in fused if isinstance(stage.task, Evaluate) for sink in stage.task.sinks}
    after = [
        dataclasses.replace(stage, task=Assemble(gathered[stage.task.sink.url]))  # type: ignore[arg-type]
        for stage in stages
        if isinstance(stage.task, Assemble)
    ]
    return (*before, *fused, *after, *later)


def _fused(group: Sequence[Stage]) -> Stage:
    if len(group) == 1:
        return group[0]
    tasks = [stage.task for stage in group if isinstance(stage.task, Evaluate)]
    asked = {task.block for task in tasks if task.block is not None}
    if len(asked) > 1:
        raise ParameterError(
            f"sinks over the same box ask for different blocks: {sorted(asked)} zyx; give all the same"
        )
    block = next(iter(asked), None)
    sinks = [sink for task in tasks for sink in task.sinks]
    largest = max((stage.grid.block for stage in group), key=math.prod)
    grid = _grid(group[0].grid.box, block, largest, sinks)
    placed = tuple(dataclasses.replace(s, block=grid.block) if isinstance(s, FileSink) else s for s in sinks)
    expression = Expression([node for task in tasks for node in task.expression.outputs])
    name = "-and-".join(stage.name for stage in group)
    return Stage(
        name if len(name) < _LONGEST_NAME else f"{len(group)}-sinks", grid, Evaluate(expression, placed, block)
    )


def _grid(box: BoundingBox, block: Zyx | None, preferred: Zyx, sinks: Sequence[Sink]) -> BlockGrid:
    units = [(1, 1, 1), *(sink.unit for sink in sinks if sink.unit is not None)]
    z, y, x = (math.lcm(*(unit[axis] for unit in units)) for axis in range(3))
    nearest = [-(-b // u) * u for b, u in zip(block or preferred, (z, y, x), strict=True)]
    covers = [b >= s for b, s in zip(block or preferred, box.shape, strict=True)]
    if block is not None and any(b != n and not c for b, n, c in zip(block, nearest, covers, strict=True)):
        raise AlignmentError(
            f"block {block} zyx is not a multiple of {(z, y, x)}, the chunks or shards it writes;"
            f" nearest is {tuple(nearest)}"
        )
    return BlockGrid(box, (nearest[0], nearest[1], nearest[2]))
