"""The blocks of a job as its workers have memory for them, where results do not depend on blocks."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from daskflow.clusters.workers import Workers
from daskflow.config import format_bytes
from daskflow.errors import DaskflowError
from daskflow.geometry import BlockGrid, Zyx
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.directory import load_grid
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.jobs.plan import exceeds, fitting_block
from daskflow.jobs.sinks import Sink
from daskflow.volume.stage import Stage

if TYPE_CHECKING:
    from daskflow.jobs.job import Job


def fitted(job: Job, workers: Workers, *, anew: bool = False) -> Job:
    """Return a job whose layers are written in blocks that workers have memory for, and that says so.

    A job that was begun keeps its blocks, so that it resumes on other workers, too. Blocks that were asked for stay as
    they are, and so do those that other stages count on.

    Args:
        job: what is to be run.
        workers: what it is to be run on.
        anew: whether it forgets what earlier runs have done.
    """
    begun = {} if anew else _begun(job)
    blocks = {}
    notes = []
    for stage in job.stages:
        there = workers.of(gpu=stage.task.gpu)
        block = _block(stage, there, begun.get(stage.name))
        if block is not None:
            blocks[stage.name] = block
            z, y, x = block
            has = f"workers have {format_bytes(there.memory or 0)}"
            notes.append(f"{stage.name}: blocks of {z} {y} {x} zyx, as {'it was begun' if begun else has}")
    return dataclasses.replace(job, notes=(*job.notes, *notes), blocks=blocks) if blocks else job


def _begun(job: Job) -> dict[str, BlockGrid]:
    """Return the blocks of each stage as the job's directory describes them, none where it cannot be read."""
    with contextlib.suppress(DaskflowError, OSError):
        known = None if job.directory is None else job.home.read("job.json")
        if known is not None:
            return {name: load_grid(values["grid"]) for name, values in known["stages"].items()}
    return {}


def _block(stage: Stage, workers: Workers, begun: BlockGrid | None) -> Zyx | None:
    """Return the block that a stage takes instead of its own, if it is free to."""
    task, grid = stage.task, stage.grid
    if not isinstance(task, EvaluateVolumes) or task.block is not None or not all(map(_takes_any, task.consumers)):
        return None
    if begun is not None:
        same = dataclasses.replace(begun, block=grid.block) == grid and _whole(begun, task.unit or (1, 1, 1))
        return begun.block if same and begun != grid else None
    if grid.box.empty or not exceeds(task.estimate(grid[len(grid) // 2]).memory, workers):
        return None
    return fitting_block(stage, workers)[0]


def _takes_any(consumer: Consumer) -> bool:
    """Return whether a consumer takes any blocks of whole chunks and shards, and nothing else counts on them."""
    return isinstance(consumer, Sink) and consumer.grid is None and type(consumer).placed is Consumer.placed


def _whole(grid: BlockGrid, unit: Zyx) -> bool:
    return all(count == 1 or block % of == 0 for count, block, of in zip(grid.shape, grid.block, unit, strict=True))
