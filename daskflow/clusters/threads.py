"""A pool of threads in this process, for small jobs and for debugging."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self

from daskflow.clusters.request import SIZES, Request, check_names
from daskflow.errors import JobError


class Threads:
    """A pool of threads in this process that runs the blocks of a job.

    The threads are daemons, so a second Ctrl-C need not wait for the blocks they are in.

    Args:
        threads: how many; one per core that this process may use by default.
        memory: limit in bytes that plans are checked against; what the machine has by default.
    """

    def __init__(self, threads: int | None = None, *, memory: int | None = None) -> None:
        self.threads = threads or cores()
        self.memory = memory or available_memory()
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = (
            queue.SimpleQueue()
        )
        self._started: list[threading.Thread] = []

    def __repr__(self) -> str:
        return f"<Threads {self.threads} in this process>"

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Call a function in one of the threads."""
        if self.threads == 0:
            raise JobError("this pool of threads is closed; make another one")
        if not self._started:
            for number in range(self.threads):
                thread = threading.Thread(target=self._serve, name=f"daskflow-block-{number}", daemon=True)
                self._started.append(thread)
                thread.start()
        future: Future[Any] = Future()
        self._calls.put((future, function, args))
        return future

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, args = call
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*args)
                except BaseException as error:  # noqa: BLE001 (a thread has nobody else to report to)
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del call, future, function, args

    def close(self) -> None:
        """Take no more calls; those that run go on."""
        for _ in self._started:
            self._calls.put(None)
        self._started.clear()
        self.threads = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def available_memory() -> int:
    """Return the bytes of memory that this machine, or the container around this process, has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max") as file:  # noqa: PTH123
            limit = file.read().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def start(kind: str, request: Request) -> Threads:
    """Return a pool of workers x threads threads."""
    check_names(kind, request.options, SIZES)
    workers = request.fixed_workers(kind)
    count = None if workers is None and request.threads is None else (workers or 1) * (request.threads or 1)
    return Threads(count, memory=request.memory)
