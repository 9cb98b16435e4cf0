"""From volumes and sinks to stages, and from several jobs to one that evaluates each block once."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Any

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, Zyx
from daskflow.jobs.arrange import grid_of
from daskflow.jobs.evaluate import Assemble, EvaluateVolumes
from daskflow.jobs.fingerprint import describe_stages
from daskflow.jobs.job import Job
from daskflow.jobs.outputs import stated
from daskflow.jobs.sinks import FileSink, Sink
from daskflow.stores import kvstore
from daskflow.volume import Stage, Task, Volume, in_order
from daskflow.volume.stage import Scopes


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
    expression = volume.expression
    grid = grid_of(volume.box, block, volume.block, [sink])
    task = EvaluateVolumes.into(expression, sink.placed(grid.block), block=block)
    return Stage(name, grid, task, after=expression.stages)


def file_stages(name: str, volume: Volume, sink: FileSink, *, block: Zyx | None = None) -> tuple[Stage, ...]:
    """Return the stages that gather a volume's blocks and write a file of them; arguments as for `evaluate_stage`."""
    gather = evaluate_stage(f"gather-{name}", volume, sink, block=block)
    write = Stage(f"write-{name}", BlockGrid(volume.box, volume.box.shape), Assemble(sink.placed(gather.grid.block)))
    return in_order((gather, write))


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
    stages = _without_repeats(jobs)
    lasting = [job for job in jobs if job.directory is not None]
    _refuse_rivals(lasting)
    _refuse_one_place(stages)
    job = Job(
        tuple(stages),
        lasting[0].directory if lasting else None,
        name=" + ".join(dict.fromkeys(job.name for job in jobs)),
        finish=tuple(finish for job in jobs for finish in job.finish),
        command=command,
        confirm=tuple(line for job in jobs for line in job.confirm),
        renewable=all(job.renewable for job in jobs),
        makes=tuple(one for job in jobs for one in job.makes),
        notes=tuple(dict.fromkeys(line for job in jobs for line in job.notes)),
        warnings=tuple(dict.fromkeys(line for job in jobs for line in job.warnings)),
    )
    _ = job.stages  # what cannot be arranged is refused here
    return job


def _without_repeats(jobs: Sequence[Job]) -> list[Stage]:
    """Return the stages of jobs, those left out that do what one of an earlier job does."""
    stages: list[Stage] = []
    known: dict[tuple[Any, ...], Stage] = {}
    instead: dict[int, Stage] = {}
    for job in jobs:
        found = {}
        for stage, key in zip(job.given, keys_of(job.given), strict=True):
            if key in known:
                instead[id(stage)] = known[key]
                continue
            if any(id(one) in instead for one in stage.after):
                after = tuple(instead.get(id(one), one) for one in stage.after)
                instead[id(stage)] = dataclasses.replace(stage, after=after)
            stages.append(instead.get(id(stage), stage))
            found[key] = stages[-1]
        known |= found
    return stages


def keys_of(stages: Sequence[Stage]) -> list[tuple[Any, ...]]:
    """Return what tells each of some stages from others: what its task is, what it says, and its scopes."""
    keys = []
    for stage in stages:
        scopes = Scopes("memory://nowhere")
        stage.task.bind(scopes)
        described = describe_stages([dataclasses.replace(stage, name="", after=())])
        told = [described, [one.describe() for one in scopes.met]]
        keys.append((*_kinds(stage.task), json.dumps(told, sort_keys=True)))
    return keys


def _kinds(task: Task) -> tuple[type, ...]:
    return (type(task), *map(type, task.consumers)) if isinstance(task, EvaluateVolumes) else (type(task),)


def _refuse_rivals(jobs: Sequence[Job]) -> None:
    """Raise for jobs that keep the same directory, and so make the same thing, and differ.

    Volumes that are evaluated into one place are left to their sinks, and jobs that give way to each other may differ.
    """
    seen: dict[str, list[tuple[Any, ...]]] = {}
    files: dict[str, tuple[str, list[tuple[Any, ...]]]] = {}
    for job in jobs:
        for one in job.outputs:
            if one.kind in ("table", "file") and one.layer is None:
                kind, keys = files.setdefault(one.url, (one.kind, keys_of(job.given)))
                if "table" in (kind, one.kind) and keys != keys_of(job.given):
                    raise ParameterError(f"two steps would both write {one.url}; give one of them another output")
        if (
            job.directory is None
            or job.renewable
            or any(isinstance(stage.task, EvaluateVolumes) and stage.task.sinks for stage in job.given)
        ):
            continue
        if seen.setdefault(job.home.url, keys := keys_of(job.given)) != keys:
            place = kvstore.redact(job.home.url.removesuffix("/").removesuffix(".daskflow"))
            raise ParameterError(
                f"two steps named {job.name} would both write {place}, in different ways; give one of them another"
                " output, or run them one after the other"
            )


def _refuse_one_place(stages: Sequence[Stage]) -> None:
    """Raise where two volumes would be written to one place, of which either could be left in the end."""
    made = stated([stage for stage in stages if isinstance(stage.task, EvaluateVolumes | Assemble)])
    for one, other in itertools.combinations(made, 2):
        if one.clashes(other) and one.dataset == other.dataset:
            raise ParameterError(f"two volumes would be written to {one}; give one of them another output")
