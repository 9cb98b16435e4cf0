"""The streaming loop: passes over stages that share a bounded window of batches, each begun as soon as it can be."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Self

from daskflow.errors import JobError
from daskflow.jobs.executor import Executor
from daskflow.jobs.stage_run import StageRun

_SMALLEST_WINDOW = 32
_TICK = 0.2


class Stream:
    """Keeps a few batches per worker thread in flight, of all passes that need not wait for others.

    The first of these comes first; the others get the room that it leaves, e.g. while its last blocks run. Those that
    ask for GPUs have a window of their own: a batch that runs on each, and one that is next; Dask hands out all of it
    at once, so that no more of them are with a worker when it dies, or when the job is to stop. As a thread runs one
    batch at a time, workers need no more memory than for the stage that needs most. `tick` is called several
    times per second with the passes that run, `ended` with each when it is over.
    """

    def __init__(
        self,
        executor: Executor,
        passes: Sequence[StageRun],
        *,
        tick: Callable[[Sequence[StageRun]], None] = lambda _: None,
        ended: Callable[[StageRun], None] = lambda _: None,
    ) -> None:
        self.stopping = False
        self._executor = executor
        self._left = list(passes)
        self._tick = tick
        self._ended = ended
        self._alone = False
        self._seen_at = time.monotonic()

    @property
    def running(self) -> list[StageRun]:
        """The passes that have begun and are not over."""
        return [one for one in self._left if one.running]

    def run(self) -> None:
        """Run what is pending until it is done, or failed, or comes after what failed, or `stop` was called.

        Raises:
            JobError: the operator, the storage or the cluster is at fault, rather than single blocks.
        """
        fatal = None
        self._seen_at = time.monotonic()
        while running := self._begin():
            self._fill(running)
            self._collect(running)
            fatal = fatal or next((one.fatal for one in running if one.fatal is not None), None)
            for one in running:
                if not one.flying and (self.stopping or (one.at_rest and one.over and not one.suspicious)):
                    self._end(one)
        if fatal is not None:
            raise JobError(fatal)

    def _end(self, one: StageRun) -> None:
        self._left.remove(one)
        one.end()
        self._ended(one)

    def abandon(self) -> None:
        """Take back what runs, too, and end the passes."""
        self._executor.withdraw(running=True)
        for one in self.running:
            self._end(one)

    def stop(self) -> None:
        """Begin no further block; `run` returns when those that run are finished."""
        if self.stopping:
            return
        self.stopping = True
        withdrawn = self._executor.withdraw()
        for one in self.running:
            one.flying.difference_update(withdrawn)

    def _begin(self) -> list[StageRun]:
        """Begin the passes that are ready, and return those that run."""
        for one in self._left:
            if not self.stopping and not one.running and one.ready:
                one.begin(self._executor)
        return self.running

    def _fill(self, running: Sequence[StageRun]) -> None:
        """Submit what fits into the window; what must be tried alone, when nothing else is in flight."""
        flying = sum(len(one.flying) for one in running)
        if self.stopping or (self._alone and flying):
            return
        suspicious = next((one for one in running if one.suspicious), None)
        self._alone = suspicious is not None and not flying
        if suspicious is not None:
            if self._alone:
                suspicious.submit_alone()
            return
        workers = self._executor.workers
        on_gpus = [one for one in running if one.gpu and workers.gpu is not None]
        self._fill_window(on_gpus, 2 * max(1, workers.of(gpu=True).threads))  # what waits is what makes one start
        anywhere = [one for one in running if one not in on_gpus]
        self._fill_window(anywhere, max(_SMALLEST_WINDOW, 2 * workers.threads + 2))

    def _fill_window(self, running: Sequence[StageRun], window: int) -> None:
        room = window - sum(len(one.flying) for one in running)
        if room < window // 4:  # tasks cost less when several are submitted together
            return
        for one in running:
            room -= one.submit(room)

    def _collect(self, running: Sequence[StageRun]) -> None:
        flying = [one for one in running if one.flying]
        if any(not (one.at_rest and one.over) for one in running):
            for settled in self._executor.collect(_TICK):
                next(one for one in flying if settled.batch in one.flying).settle(settled)
        now = time.monotonic()
        for one in flying:
            one.seconds += now - self._seen_at
        self._seen_at = now
        self._tick(running)
        if any(one.stops for one in running):
            self.stop()


class Interrupts:
    """While entered, counts Ctrl-C and SIGTERM: one is to let what runs finish, the second raises KeyboardInterrupt.

    Does nothing outside the main thread, where signals cannot be handled.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()
