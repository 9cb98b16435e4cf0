"""Whether the disks on which a job writes have room for it."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from daskflow.config import format_bytes
from daskflow.errors import PlanError
from daskflow.jobs.ledger import DONE, EMPTY
from daskflow.jobs.parts import recorded
from daskflow.jobs.plan import Plan
from daskflow.stores import kvstore

if TYPE_CHECKING:
    from daskflow.jobs.job import Job

_HARDEST = 10_000  # times that stored voxels can be smaller than those of the plan: labels of a nearly empty volume
_log = logging.getLogger(__name__)


def check_space(job: Job, plan: Plan, *, anew: bool) -> None:
    """Raise where a disk is too full for what a job has left to write; say where it may be.

    The bytes of a plan are those of voxels, which mostly take less when stored.

    Args:
        job: what is to be written.
        plan: of the job.
        anew: whether it forgets what earlier runs have done.

    Raises:
        PlanError: a disk has less than voxels take when they are compressed as far as they can be.
    """
    left = {} if anew else _left(job)
    places = {one.stage: one.url for one in reversed(job.outputs)}
    written: Counter[int] = Counter()
    folders: dict[int, Path] = {}
    for stage in plan.stages:
        made = places.get(stage.name, job.directory)
        folder = None if made is None else folder_of(made)
        if folder is not None:
            disk = os.stat(folder).st_dev  # noqa: PTH116
            folders.setdefault(disk, folder)
            written[disk] += round(stage.bytes_written * left.get(stage.name, 1))
    for disk, folder in folders.items():
        free = shutil.disk_usage(folder).free
        if free >= written[disk]:
            continue
        room, needed = format_bytes(free), format_bytes(written[disk])
        told = f"the disk of {folder} has {room} free, and {job.name} has {needed} of voxels left to write"
        if free * _HARDEST < written[disk]:
            raise PlanError(f"{told}, which cannot be enough: free some, or write to another disk")
        _log.warning("%s: if it fills up, the job stops, and goes on when there is room", told)


def folder_of(url: str) -> Path | None:
    """Return the folder on a disk in which something is written, as far as it is there already."""
    path = kvstore.local_path(url)
    return None if path is None else next(one for one in path.parents if one.is_dir())


def _left(job: Job) -> dict[str, float]:
    """Return which part of each stage earlier runs have left to do."""
    if job.directory is None or job.home.read("job.json") is None:
        return {}
    ledgers = recorded(job.home).ledgers
    return {name: 1 - (one.count(DONE) + one.count(EMPTY)) / max(1, len(one)) for name, one in ledgers.items()}
