"""What there is to run on, or will be."""

from __future__ import annotations

from dataclasses import dataclass

GPU = "GPU"  # the resource that workers declare


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
