"""What there is to run on, or will be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GPU = "GPU"  # the resource that workers declare
TASKS_PER_GPU = 2  # of which one has the GPU, while the other reads or writes
# For glibc. By Dask's MALLOC_TRIM_THRESHOLD_ of 64 KiB every larger array gets fresh pages from the kernel and gives
# them back, a quarter of the CPU of small blocks; with these, memory of arrays below 32 MiB is used again.
ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_ARENA_MAX": "1",
}


@dataclass(frozen=True)
class Workers:
    """What there is to run on, at this moment: how many worker processes, and how many blocks run at once over all.

    `threads_per_worker` is of the worker with the most, `memory` (bytes, None without a limit) of the smallest. `gpu`
    is the same of the workers that declare GPUs, where a block takes a thread and a GPU; None where none has any. With
    `at_most` there may be fewer.
    """

    count: int
    threads: int
    threads_per_worker: int
    memory: int | None
    gpu: Workers | None = None
    at_most: bool = False

    def of(self, *, gpu: bool) -> Workers:
        """Return those on which a stage runs that uses a GPU where there is one, or that does not."""
        return self.gpu if gpu and self.gpu is not None else self


@dataclass(frozen=True)
class Size:
    """How many workers of a group there may be, and what each has: threads, bytes of memory, resources."""

    least: int
    most: int
    threads: int
    memory: int
    resources: Mapping[str, float]

    @property
    def at_once(self) -> int:
        """How many tasks that ask for one of its resources run at once on a worker."""
        shares = (TASKS_PER_GPU ** (name == GPU) * amount for name, amount in self.resources.items())
        return min([self.threads, *(int(share) for share in shares if share >= 1)])


def expected(groups: Sequence[Size]) -> Workers:
    """Return what there is to run on when all groups have as many workers as they may."""
    with_gpu = [group for group in groups if group.resources.get(GPU, 0) >= 1]
    gpu = _together(with_gpu, sum(group.most * group.at_once for group in with_gpu)) if with_gpu else None
    return _together(groups, sum(group.most * group.threads for group in groups), gpu)


def _together(groups: Sequence[Size], at_once: int, gpu: Workers | None = None) -> Workers:
    return Workers(
        sum(group.most for group in groups),
        at_once,
        max(group.threads for group in groups),
        min(group.memory for group in groups),
        gpu,
        at_most=any(group.least < group.most for group in groups),
    )
