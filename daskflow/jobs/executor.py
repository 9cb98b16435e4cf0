"""Where batches run: threads of this process, or the workers of a Dask client, behind one small interface."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import queue
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from daskflow.clusters import Threads
from daskflow.clusters.workers import GPU, TASKS_PER_GPU, Workers
from daskflow.errors import JobError, ParameterError
from daskflow.jobs.batch import Batch, BatchResult, BlindWorkerError, Home, PickledStage, Verb, run_batch
from daskflow.volume.stage import Stage

if TYPE_CHECKING:
    from distributed import Client

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
Submit = Callable[[Sequence[Batch]], None]

_INLINE = 64_000  # bytes of a pickled stage that travel with every task; larger ones are kept on the workers
_WATCH = 1.0
_FORGET = 30  # looks after which the scheduler is to forget what it notes of each submission
_ROUND = 0.02  # seconds after which the results of all batches that are done are fetched together
_OUTGROWN = "worker-restart-memory"  # what nannies report to the scheduler when they end a worker for its memory
_LOCAL_PATIENCE = 60  # looks that see no worker on this machine; other clusters may be queued for hours


@dataclass(frozen=True)
class Settled:
    """A batch that came back: with its result, or with how many workers died while they ran it.

    `memory` is the most bytes that the last of these was seen to use; 0 when nobody saw it.
    """

    batch: Batch
    result: BatchResult | None
    deaths: int = 0
    memory: int = 0


class Executor(ABC):
    """Runs batches of stages."""

    @abstractmethod
    def take_lost(self) -> int:
        """Return how many workers went away since the last call."""

    @property
    @abstractmethod
    def workers(self) -> Workers:
        """What there is to run on; changes as workers come and go."""

    @abstractmethod
    def open(self, stage: Stage, *, overlap: bool, verb: Verb) -> Submit:
        """Take a stage, and return what queues batches of it; workers may forget it once that is gone."""

    @abstractmethod
    def collect(self, timeout: float) -> list[Settled]:
        """Return the batches that came back since the last call, after waiting up to `timeout` seconds for one."""

    def close(self) -> None:  # noqa: B027 (most have nothing to close)
        """Let go of what was submitted; the client or pool itself stays open."""

    @abstractmethod
    def withdraw(self, *, running: bool = False) -> list[Batch]:
        """Take back, and return, the batches that no worker has begun; with `running` those that one has, too."""


def uses_gpu(stage: Stage, verb: Verb) -> bool:
    """Return whether blocks of a stage compute on a GPU where there is one."""
    return verb == "run" and stage.task.gpu


def executor_of(client: Client | Threads, home: Home | None = None) -> Executor:
    """Return the executor of a pool of threads or of a Dask client, whose workers are asked whether they see `home`."""
    if isinstance(client, Threads):
        return ThreadsExecutor(client)
    if not hasattr(client, "scheduler_info"):
        raise ParameterError(f"{client!r} runs no jobs; give a distributed.Client, or what daskflow.connect returns")
    if client.asynchronous:
        raise ParameterError("jobs cannot run on an asynchronous client; give one made with asynchronous=False")
    return DistributedExecutor(client, home)


class ThreadsExecutor(Executor):
    """Runs batches in threads of this process; nothing is pickled."""

    def __init__(self, pool: Threads) -> None:
        self._pool = pool
        self._settled: queue.SimpleQueue[tuple[Batch, Future[BatchResult]]] = queue.SimpleQueue()
        self._futures: dict[Batch, Future[BatchResult]] = {}

    def take_lost(self) -> int:
        return 0

    @property
    def workers(self) -> Workers:
        return Workers(1, self._pool.threads, self._pool.threads, self._pool.memory)

    def open(self, stage: Stage, *, overlap: bool, verb: Verb) -> Submit:
        return functools.partial(self._submit, functools.partial(run_batch, stage=stage, overlap=overlap, verb=verb))

    def _submit(self, call: Callable[[Batch], BatchResult], batches: Sequence[Batch]) -> None:
        for batch in batches:
            future = self._futures[batch] = self._pool.submit(call, batch)
            future.add_done_callback(functools.partial(self._done, batch))

    def _done(self, batch: Batch, future: Future[BatchResult]) -> None:
        self._settled.put((batch, future))

    def collect(self, timeout: float) -> list[Settled]:
        settled = []
        for batch, future in _drain(self._settled, timeout):
            if self._futures.pop(batch, None) is not None:
                settled.append(Settled(batch, future.result()))
        return settled

    def withdraw(self, *, running: bool = False) -> list[Batch]:
        taken = [batch for batch, future in self._futures.items() if future.cancel() or running]
        for batch in taken:
            del self._futures[batch]
        return taken


class DistributedExecutor(Executor):
    """Runs batches as Dask tasks; their futures are released as soon as they are done."""

    def __init__(self, client: Client, home: Home | None = None) -> None:
        from distributed import LocalCluster

        from daskflow.clusters.owning import OwningClient

        self._client = client
        self._numbers = itertools.count()
        self._run = uuid.uuid4().hex
        self._settled: queue.SimpleQueue[tuple[Batch, BatchResult | BaseException]] = queue.SimpleQueue()
        self._futures: dict[Batch, Any] = {}
        self._lost = 0
        self._unseen = 0  # counted in looks: this process may have been stopped, or the machine asleep
        self._following: set[asyncio.Task[None]] = set()
        self._local = isinstance(client.cluster, LocalCluster)
        self._home = None if self._local else home
        self._blind: dict[str, str] = {}
        self._seen: dict[str, dict[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
        self._last = self._seen  # there may be none for a while
        self._last_gpu = _with_gpu(self._seen)
        expected = client.expected if isinstance(client, OwningClient) else None
        self._expected_gpu = None if expected is None else expected.gpu
        self._workers = self._counted()
        self._peaks: dict[str, int] = {}
        self._watch = asyncio.run_coroutine_threadsafe(self._watch_workers(), client.loop.asyncio_loop)

    @property
    def workers(self) -> Workers:
        return self._workers

    def _counted(self) -> Workers:
        """Return what the last look saw; asked for at every batch, and counted once a look."""
        everywhere = _workers(self._seen, self._last)
        if not self._last_gpu:
            none_yet = self._expected_gpu and replace(self._expected_gpu, count=0, threads=0, at_most=False)
            return replace(everywhere, gpu=none_yet)
        seen = _with_gpu(self._seen)
        at_once = sum(
            min(int(TASKS_PER_GPU * worker["resources"][GPU]), worker["nthreads"]) for worker in seen.values()
        )
        return replace(everywhere, gpu=replace(_workers(seen, self._last_gpu), threads=at_once))

    async def _watch_workers(self) -> None:
        for look in itertools.count(1):
            await asyncio.sleep(_WATCH)
            await self._look()
            self._unseen = 0 if self._seen else self._unseen + 1
            if look % _FORGET == 0:
                with contextlib.suppress(Exception):  # the scheduler may be lost, or run nothing of its clients
                    await self._client.run_on_scheduler(_forget_submissions)

    async def _look(self) -> None:
        with contextlib.suppress(OSError):  # `collect` sees whether the client found the scheduler again
            now = (await self._client.scheduler.identity(n_workers=-1))["workers"]
            self._lost += len(self._seen.keys() - now.keys())
            self._seen, self._last = now, now or self._last
            self._last_gpu = _with_gpu(now) or self._last_gpu
            self._workers = self._counted()
            for address, worker in now.items():
                self._saw(address, worker.get("metrics", {}).get("memory", 0))
            for _, event in await self._client.scheduler.events(topic=_OUTGROWN):
                self._saw(event["worker"], event["rss"])

    def _saw(self, address: str, memory: int) -> None:
        self._peaks[address] = max(memory, self._peaks.get(address, 0))

    def take_lost(self) -> int:
        if self._client.status == "running":
            self._client.sync(self._look)
        lost, self._lost = self._lost, 0
        return lost

    def open(self, stage: Stage, *, overlap: bool, verb: Verb) -> Submit:
        import dask

        pickled: Any = PickledStage.of(stage, self._home)
        name, gpu = f"{stage.name}-{self._run}", uses_gpu(stage, verb)
        if len(pickled.data) > _INLINE:
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 PB"}):
                pickled = self._client.submit(_same, pickled, key=f"stage-{name}", pure=False)
        options = {"stage": pickled, "overlap": overlap, "verb": verb}
        return functools.partial(self._submit, name, options, gpu=gpu)

    def _submit(self, name: str, options: dict[str, Any], batches: Sequence[Batch], *, gpu: bool) -> None:
        if not batches:
            return
        keys = [(name, next(self._numbers)) for _ in batches]
        needs = {GPU: 1 / TASKS_PER_GPU} if gpu and self._workers.gpu is not None else None
        futures = self._client.map(run_batch, list(batches), key=keys, pure=False, resources=needs, **options)
        self._futures.update(zip(batches, futures, strict=True))
        asyncio.run_coroutine_threadsafe(self._follow(list(zip(batches, futures, strict=True))), self._loop)

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = self._client.loop.asyncio_loop
        return loop

    async def _follow(self, submitted: list[tuple[Batch, Any]]) -> None:
        """Follow each future alone: while one is held, the death of the worker that has its result runs it again."""
        while submitted:
            task = asyncio.create_task(self._follow_one(*submitted.pop()))
            self._following.add(task)
            task.add_done_callback(self._following.discard)

    async def _follow_one(self, batch: Batch, future: Any) -> None:
        from distributed import KilledWorker

        outcome: BatchResult | BaseException
        try:
            await future.exception()  # is it done? No data has moved yet
            await asyncio.sleep(_ROUND - self._loop.time() % _ROUND)
            outcome = await future  # all that ask at the same moment share one request
        except (Exception, CancelledError, asyncio.CancelledError) as error:  # noqa: BLE001 (told to the driver)
            outcome = error
        if isinstance(outcome, KilledWorker):
            await self._look()
        self._settled.put((batch, outcome))

    def collect(self, timeout: float) -> list[Settled]:
        from distributed import KilledWorker

        settled = []
        for batch, outcome in _drain(self._settled, timeout):
            if self._futures.pop(batch, None) is None:
                continue
            if isinstance(outcome, BatchResult):
                settled.append(Settled(batch, outcome))
            elif isinstance(outcome, BlindWorkerError):
                self._turn_away(outcome)
                settled.append(Settled(batch, BatchResult.of_nothing()))
            elif isinstance(outcome, KilledWorker):
                peak = self._peaks.get(outcome.last_worker.address, 0)
                settled.append(Settled(batch, None, outcome.allowed_failures + 1, peak))
            elif isinstance(outcome, CancelledError | asyncio.CancelledError):
                raise JobError(f"lost the Dask scheduler {self._address}: {outcome}")
            else:
                raise JobError(
                    f"workers of {self._address} cannot run the stage: {type(outcome).__name__}: {outcome}; "
                    "see that they have the same packages as this process"
                ) from outcome
        if self._client.status not in ("running", "newly-created"):
            raise JobError(f"lost the Dask scheduler {self._address}: the client is {self._client.status}")
        if self._local and self._unseen > _LOCAL_PATIENCE:
            raise JobError(
                "all worker processes on this machine are gone, and none came back; run it again to go on from there"
            )
        return settled

    def _turn_away(self, error: BlindWorkerError) -> None:
        """Retire a worker that does not see what the driver sees; raise where no worker does."""
        if error.worker in self._blind:
            return
        self._blind[error.worker] = error.reason
        if self._seen.keys() <= self._blind.keys():
            raise JobError(
                f"no worker of {self._address} sees what this process sees; on {error.reason}. "
                "Paths must lie on a disk that all of them share, and buckets need credentials there, too"
            )
        _log.warning("a worker is sent away, as it does not see what this process sees: %s", error.reason)
        self._client.retire_workers([error.worker], close_workers=True)

    @property
    def _address(self) -> str:
        scheduler = self._client.scheduler
        return str(scheduler.address if scheduler is not None else "")

    def withdraw(self, *, running: bool = False) -> list[Batch]:
        if self._client.status != "running":
            taken, self._futures = list(self._futures), {}
            return taken
        begun: set[Any] = set()
        if not running:
            begun = set(itertools.chain.from_iterable(self._client.processing().values()))
        left = {b: f for b, f in self._futures.items() if running or (f.key not in begun and not f.done())}
        for batch in left:
            del self._futures[batch]
        self._client.cancel(list(left.values()), reason="daskflow withdrew it")
        return list(left)

    def close(self) -> None:
        self._watch.cancel()
        self._futures.clear()


def _workers(now: Mapping[str, Any], last: Mapping[str, Any]) -> Workers:
    threads = [worker["nthreads"] for worker in now.values()]
    limits = [worker["memory_limit"] for worker in last.values() if worker["memory_limit"]]
    return Workers(len(threads), sum(threads), max(threads, default=1), min(limits, default=None))


def _with_gpu(workers: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the workers that declare one GPU or more."""
    return {address: worker for address, worker in workers.items() if worker["resources"].get(GPU, 0) >= 1}


def _forget_submissions(dask_scheduler: Any) -> None:
    """Run on a scheduler: drop the lines that spans get with every submission, and keep for the scheduler's life."""
    for span in dask_scheduler.extensions["spans"].spans.values():
        if span.metadata is not None:
            span.metadata["collections"].clear()


def _same(value: Any) -> Any:
    return value


def _drain(source: queue.SimpleQueue[_T], timeout: float) -> list[_T]:
    """Return all that is in a queue, after waiting up to `timeout` seconds for the first."""
    items: list[_T] = []
    try:
        items.append(source.get(timeout=timeout))
        while True:
            items.append(source.get_nowait())
    except queue.Empty:
        return items
