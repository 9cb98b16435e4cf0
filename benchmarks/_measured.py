"""What a command costs: wall time, CPU seconds and memory of its process and of all that it starts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

_SET_CHILD_SUBREAPER = 36
_EVERY = 0.05


@dataclass(frozen=True)
class Cost:
    """What one command, or several after each other, took.

    Attributes:
        wall: seconds by the clock.
        cpu: seconds of all processes.
        peak: most bytes that all processes held at once, files they share counted once.
    """

    wall: float
    cpu: float
    peak: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.peak, other.peak))

    @classmethod
    def least(cls, costs: Sequence[Cost]) -> Self:
        """Return the least of each figure over repetitions."""
        return cls(min(c.wall for c in costs), min(c.cpu for c in costs), min(c.peak for c in costs))


def run(command: Sequence[str], folder: Path) -> Cost:
    """Run a command in a folder and return its cost.

    Raises:
        SystemExit: it failed; with what it said.
    """
    if sys.platform == "linux":  # processes that a server of forks leaves behind come to us, and are counted
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, started = _children(), time.perf_counter()
    with (folder / "output.txt").open("w") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
        with _Memory(process.pid) as memory:
            status = process.wait()
            wall = time.perf_counter() - started
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    if status:
        raise SystemExit(f"{' '.join(command)} failed with status {status}:\n{(folder / 'output.txt').read_text()}")
    return Cost(wall, _children() - before, memory.peak)


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class _Memory:
    """Looks again and again at what a process and its descendants hold."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._root = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        pause = _EVERY
        while not self._over.wait(pause):
            started = time.perf_counter()
            with contextlib.suppress(psutil.NoSuchProcess):
                held = [_held(process) for process in (self._root, *self._root.children(recursive=True))]
                own = sum(resident - shared for resident, shared in held)
                self.peak = max(self.peak, own + max(shared for _, shared in held))
            pause = max(_EVERY, 50 * (time.perf_counter() - started))


def _held(process: psutil.Process) -> tuple[int, int]:
    """Return the bytes that a process holds, and those of them that lie in files and shared memory."""
    try:
        _, resident, shared = Path(f"/proc/{process.pid}/statm").read_text().split()[:3]
    except OSError:
        with contextlib.suppress(psutil.NoSuchProcess):
            return int(process.memory_info().rss), 0
        return 0, 0
    return int(resident) * resource.getpagesize(), int(shared) * resource.getpagesize()
