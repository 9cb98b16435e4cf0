"""Groups of workers that differ, e.g. some with GPUs, in jobs of a batch system: each grows with what it alone runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distributed.deploy.adaptive import Adaptive
from distributed.scheduler import TaskState, WorkerState

from daskflow.clusters.batch_options import BatchOptions
from daskflow.clusters.request import Request
from daskflow.clusters.workers import Size


@dataclass(frozen=True)
class Group:
    """Some workers that are alike.

    Attributes:
        name: "" is the first.
        options: of their jobs.
        least: fewest workers.
        most: most workers.
    """

    name: str
    options: BatchOptions
    least: int
    most: int

    @property
    def size(self) -> Size:
        """How many workers it may have, and what each has."""
        return Size(self.least, self.most, self.options.threads, self.options.memory, self.options.resources)

    def grows_with(self, task: TaskState) -> bool:
        """Return whether it is for this task: where its workers declare something, for those that ask for it."""
        asked: Mapping[str, float] = task.resource_restrictions or {}
        own = self.options.resources
        return asked.keys() <= own.keys() and bool(asked) == bool(own)


def groups_of(kind: str, request: Request) -> list[Group]:
    """Return the groups of workers that are asked of a batch system, the first in front.

    Raises:
        ParameterError: options that cannot be.
    """
    asked = request.groups()
    return [Group(name, BatchOptions.of(kind, one), *(one.workers or (1, 1))) for name, one in asked.items()]


class GroupScaling(Adaptive):  # type: ignore[misc]
    """Keeps as many workers of a group as there are tasks for them; those of others do not count.

    Args:
        cluster: of the class that `replacing` makes, with its scheduler in this process.
        group: the workers.
        minimum: fewest of them.
        maximum: most.
    """

    def __init__(self, cluster: Any, group: Group, *, minimum: int, maximum: int) -> None:
        self._group = group
        super().__init__(cluster, minimum=minimum, maximum=maximum)

    @property
    def plan(self) -> set[str]:
        """Names of the workers that should be."""
        return {name for job in self._jobs for name in self.cluster.names_of(job)}

    @property
    def requested(self) -> set[str]:
        """Names of those whose jobs are submitted."""
        return {name for job in self._jobs if job in self.cluster.workers for name in self.cluster.names_of(job)}

    @property
    def observed(self) -> set[str]:
        """Names of those that are there."""
        return self.plan & self.cluster.observed  # type: ignore[no-any-return]

    @property
    def _jobs(self) -> list[str]:
        return self.cluster.jobs_of(self._group.name)  # type: ignore[no-any-return]

    async def target(self) -> int:
        """Return how many workers the tasks fill that wait for such a worker, or run on any."""
        scheduler = self.cluster.scheduler
        waiting = [*scheduler.queued, *scheduler.unrunnable]
        running = [task for worker in scheduler.workers.values() for task in worker.processing]
        wanted = sum(self._group.grows_with(task) for task in (*waiting, *running))
        return math.ceil(wanted / self._group.size.at_once)

    async def workers_to_close(self, target: int) -> list[str]:
        """Return workers, all of a job, that run nothing which their group is for."""
        there = {worker.name: worker for worker in self.cluster.scheduler.workers.values()}
        room = len(self.plan) - target
        spare: list[str] = []
        for job in self._jobs:
            names = [name for name in self.cluster.names_of(job) if name in there]
            if len(spare) + len(names) <= room and not any(self._needed(there[name]) for name in names):
                spare += names
        return spare

    def _needed(self, worker: WorkerState) -> bool:
        return any(self._group.grows_with(task) for task in worker.processing)

    async def scale_up(self, n: int) -> None:
        """Submit jobs until there are `n` workers."""
        self.cluster.request(self._group.name, math.ceil(n / self._group.options.processes))
        await self.cluster
