"""What a worker does with a few blocks: read the next while computing one and writing the last."""

from __future__ import annotations

import contextvars
import errno
import functools
import os
import pickle
import resource
import socket
import sys
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from daskflow.clusters import Threads
from daskflow.errors import CredentialsError, DaskflowError, JobError, StoreAccessError
from daskflow.geometry import BoundingBox
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.ledger import DONE, EMPTY, FAILED
from daskflow.jobs.report import Failure
from daskflow.redaction import redact
from daskflow.volume.stage import BlockResult, Stage

Verb = Literal["run", "verify"]

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_LONGEST_TRACEBACK = 20_000


@dataclass(frozen=True)
class BatchResult:
    """What came out of the first blocks of a batch; a batch out of time leaves the rest.

    Attributes:
        states: one ledger state per block that was tried, in the order of the batch.
        counts: sums of `BlockResult.counts`.
        failures: one for each block that raised.
        seconds: wall time of the batch.
        voxels: voxels of the blocks that succeeded.
        memory: peak resident bytes of the worker's process.
        process: host and process of the worker.
    """

    states: bytes
    counts: dict[str, int]
    failures: tuple[Failure, ...]
    seconds: float
    voxels: int
    memory: int
    process: str

    @classmethod
    def of_nothing(cls) -> Self:
        """Return that of a batch of which no block was tried."""
        return cls(b"", {}, (), 0.0, 0, 0, process_name())


@dataclass(frozen=True)
class Home:
    """The URL of a job's directory, if there is one, and what identifies this run in its ``job.json``.

    By these, and by what its stage reads, a worker finds out whether it sees what the driver sees.
    """

    url: str | None = None
    run: str | None = None


@dataclass(frozen=True)
class PickledStage:
    """A stage as it travels to workers: pickled once by the driver, unpickled once by each worker.

    Its token identifies the stage without its bytes. Where not all blocks run on the driver's machine, `home` is what a
    worker must see before it runs one.
    """

    token: str
    data: bytes = field(compare=False, repr=False)
    home: Home | None = None

    @classmethod
    def of(cls, stage: Stage, home: Home | None = None) -> Self:
        """Pickle a stage."""
        return cls(uuid.uuid4().hex, cloudpickle.dumps(replace(stage, after=())), home)


class BlindWorkerError(JobError):
    """A worker, by its address, does not see what its stage reads, or where the job writes."""

    def __init__(self, worker: str, reason: str) -> None:
        super().__init__(worker, reason)
        self.worker, self.reason = worker, reason

    def __str__(self) -> str:
        return self.reason


_loading = threading.Lock()


@functools.lru_cache(maxsize=16)  # stages that may run at the same time
def _unpickled(pickled: PickledStage) -> Stage:
    stage: Stage = pickle.loads(pickled.data)
    if pickled.home is not None:
        _look(stage, pickled.home)
    return stage


def _look(stage: Stage, home: Home) -> None:
    """Raise on a worker that does not see the directory of its job, as the driver left it, or what its stage reads."""
    from distributed import get_worker

    reason = f"{redact(home.url or '')}, where the job keeps its records, is not there, or another of that name"
    try:
        if home.url is None or (JobDirectory(home.url).read("job.json") or {}).get("run") == home.run:
            stage.task.describe()
            return
    except (DaskflowError, OSError) as error:
        reason = _text(error)
    raise BlindWorkerError(get_worker().address, f"{process_name()}: {reason}")


@dataclass(frozen=True, eq=False)
class Batch:
    """Blocks that one task runs, by their numbers; none is begun once so many seconds have gone by."""

    blocks: Sequence[int] | NDArray[np.int64]
    seconds: float = 60.0


def run_batch(batch: Batch, *, stage: Stage | PickledStage, overlap: bool = True, verb: Verb = "run") -> BatchResult:
    """Run blocks one after another until all are tried or the time is over, and say how each went.

    What a block raises is recorded, not raised. With `overlap` the next block is read while one is computed and the
    last one written; "verify" calls `task.verify(box)` instead of all three.
    """
    if isinstance(stage, PickledStage):
        with _loading:
            try:
                stage = _unpickled(stage)
            except Exception:
                raise
            except BaseException as error:  # Dask would lose the worker, and wait for it
                raise JobError(f"loading the stage raised {type(error).__qualname__}: {_text(error)}") from error
    return _Run(stage).run(batch, overlap=overlap and len(batch.blocks) > 1, verb=verb)


class _WriteError(Exception):
    """Carries what the writing of a block raised as its cause."""


class _Run:
    def __init__(self, stage: Stage) -> None:
        self.name = stage.name
        self.grid = stage.grid
        self.task = stage.task
        self.states: list[int] = []
        self.counts: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.voxels = 0

    def run(self, batch: Batch, *, overlap: bool, verb: Verb) -> BatchResult:
        blocks = [int(block) for block in batch.blocks]
        started = time.perf_counter()
        end = started + batch.seconds
        if verb == "verify":
            self._one_by_one(blocks, end, self._verify)
        elif overlap:
            self._overlapped(blocks, end)
        else:
            self._one_by_one(blocks, end, self._run)
        return BatchResult(
            states=bytes(self.states),
            counts=dict(self.counts),
            failures=tuple(self.failures),
            seconds=time.perf_counter() - started,
            voxels=self.voxels,
            memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT,
            process=process_name(),
        )

    def _run(self, box: BoundingBox) -> BlockResult:
        return self._write(box, self.task.compute(box, self.task.read(box)))

    def _write(self, box: BoundingBox, outputs: Any) -> BlockResult:
        try:
            return self.task.write(box, outputs)
        except BaseException as error:
            raise _WriteError from error

    def _verify(self, box: BoundingBox) -> BlockResult:
        self.task.verify(box)
        return BlockResult()

    def _one_by_one(self, blocks: Sequence[int], end: float, act: Callable[[BoundingBox], BlockResult]) -> None:
        for index in blocks:
            box = self.grid[index]
            self._settle(index, box, functools.partial(contextvars.copy_context().run, act, box))
            if time.perf_counter() > end:
                return

    def _overlapped(self, blocks: Sequence[int], end: float) -> None:
        behind: tuple[int, BoundingBox, Callable[[], BlockResult]] | None = None
        with Threads(1) as reads, Threads(1) as writes:

            def begin(index: int) -> tuple[BoundingBox, contextvars.Context, Future[Any]]:
                box, context = self.grid[index], contextvars.copy_context()
                return box, context, reads.submit(context.run, self.task.read, box)

            following = begin(blocks[0]) if blocks else None
            for number, index in enumerate(blocks):
                if following is None:
                    break
                box, context, reading = following
                more = number + 1 < len(blocks) and time.perf_counter() <= end
                following = begin(blocks[number + 1]) if more else None
                result = self._write_behind(writes, box, context, reading)
                if behind is not None:
                    self._settle(*behind)
                behind = index, box, result
            if behind is not None:
                self._settle(*behind)

    def _write_behind(
        self, writes: Threads, box: BoundingBox, context: contextvars.Context, reading: Future[Any]
    ) -> Callable[[], BlockResult]:
        """Compute a block, hand it to the writing lane, and return what waits for that."""
        try:
            outputs = context.run(self.task.compute, box, reading.result())
        except BaseException as error:  # noqa: BLE001 (raised again where the block is settled)
            raised = error
        else:
            return writes.submit(context.run, self._write, box, outputs).result

        def fail() -> BlockResult:
            raise raised

        return fail

    def _settle(self, index: int, box: BoundingBox, result: Callable[[], BlockResult]) -> None:
        try:
            outcome = result()
        except BaseException as error:  # noqa: BLE001 (whatever an operator raises is the block's outcome)
            raised = (error.__cause__ or error) if isinstance(error, _WriteError) else error
            systemic = _is_systemic(raised, writing=raised is not error)
            self.states.append(FAILED)
            self.failures.append(_failure(self.name, index, box, raised, systemic=systemic))
            return
        self.states.append(EMPTY if outcome.empty else DONE)
        self.counts.update(outcome.counts)
        self.voxels += box.size


def process_name() -> str:
    """Return where this runs, e.g. ``"node7:4711"``."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _failure(stage: str, index: int, box: BoundingBox, error: BaseException, *, systemic: bool) -> Failure:
    text = redact("".join(traceback.format_exception(error)))
    return Failure(
        stage=stage,
        index=index,
        box=str(box),
        exception=type(error).__qualname__,
        message=_text(error),
        traceback=text[-_LONGEST_TRACEBACK:],
        worker=process_name(),
        systemic=systemic,
    )


def _text(error: BaseException) -> str:
    try:
        return redact(str(error))
    except Exception as second:  # noqa: BLE001 (the text of a stranger's exception)
        return f"(its text raised {type(second).__qualname__})"


def _is_systemic(error: BaseException | None, *, writing: bool) -> bool:
    """Return whether the storage, not the block, is at fault: it is full, or refuses credentials or what is written.

    What cannot be read from a disk may be a single chunk.
    """
    while error is not None:
        refused = isinstance(error, StoreAccessError if writing else CredentialsError)
        if refused or "No space left on device" in _text(error):
            return True
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
