"""The streaming loop: a bounded window of batches over one stage, its ledger, its retries."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daskflow.errors import JobError
from daskflow.jobs.batch import Batch, Failure, Verb
from daskflow.jobs.executor import Executor, Settled
from daskflow.jobs.ledger import DONE, EMPTY, FAILED, PENDING, Ledger
from daskflow.jobs.plan import outgrown
from daskflow.jobs.retry import Retries
from daskflow.volume.stage import Stage

_TASK_SECONDS = 1.0  # a task costs about 1.5 ms of scheduler and client, so it should last this long
_OVERLAP_BLOCKS = 4  # reading ahead and writing behind need several blocks in a batch
_OVERLAP_SECONDS = 30.0
_MOST_BLOCKS = 10_000
_SMALLEST_WINDOW = 32
_TICK = 0.2
_HOPELESS = 100

KILLED = "KilledWorker"


@dataclass(frozen=True)
class Policy:
    """How a stage is streamed.

    Attributes:
        retries: how often a block that raises is tried again.
        fail_fast: stop at the first block that failed for good.
        overlap: let workers read the next block while computing one.
        verb: run the blocks, or verify those that are done.
        batched: let a task run several blocks.
    """

    retries: int = 2
    fail_fast: bool = False
    overlap: bool = True
    verb: Verb = "run"
    batched: bool = True


class Stream:
    """One pass over one stage: keeps a few batches per worker thread in flight and records what comes back.

    Args:
        stage: what is run.
        executor: where.
        ledger: what is done already; changed as blocks come back.
        policy: how.
        counts: sums of what blocks counted; added to.
        tick: called several times per second.
    """

    def __init__(
        self,
        stage: Stage,
        executor: Executor,
        ledger: Ledger,
        policy: Policy,
        counts: Counter[str],
        tick: Callable[[Stream], None],
    ) -> None:
        self.stage = stage
        self.ledger = ledger
        self.failures: list[Failure] = []
        self.counts = counts
        self.voxels = 0
        self.ran = 0
        self.memory = 0
        self.seconds = 0.0
        self._executor = executor
        self._policy = policy
        self._tick = tick
        self._retries = Retries(policy.retries)
        self._flying: set[Batch] = set()
        self._source = _Source(ledger, policy.verb)
        self._pace: float | None = None
        self._alone = False
        self.stopping = False
        self._fatal: str | None = None
        self._failed_in_a_row = 0
        self._started = time.monotonic()

    @property
    def retried(self) -> int:
        """How often blocks were tried again."""
        return self._retries.count

    def run(self) -> None:
        """Run the blocks that are pending until each is done or failed, or `stop` was called.

        Raises:
            JobError: the operator, the storage or the cluster is at fault, rather than single blocks.
        """
        self._started = time.monotonic()
        self._executor.open(self.stage, overlap=self._policy.overlap, verb=self._policy.verb)
        try:
            self._rehearse()
            while self._fill():
                self._collect()
        finally:
            self.seconds = time.monotonic() - self._started
        if self._fatal is not None:
            raise JobError(self._fatal)

    def stop(self) -> None:
        """Begin no further block; `run` returns when those that run are finished."""
        if self.stopping:
            return
        self.stopping = True
        self._flying.difference_update(self._executor.withdraw())

    def _collect(self) -> list[Settled]:
        settled = self._executor.collect(_TICK)
        for one in settled:
            self._flying.discard(one.batch)
            self._settle(one)
        self.seconds = time.monotonic() - self._started
        self._tick(self)
        return settled

    def _fill(self) -> bool:
        """Submit what fits into the window; return whether there is anything to wait for."""
        if self.stopping:
            return bool(self._flying)
        if self._alone and self._flying:
            return True
        self._alone = False
        window = self._window()
        room = window - len(self._flying)
        if room < window // 4:  # tasks cost less when several are submitted together
            return True
        batches = [Batch([block]) for block in self._retries.due(room)]
        while len(batches) < room and len(blocks := self._source.take(self._size())):
            batches.append(Batch(blocks, self._budget(len(blocks))))
        if not batches and not self._flying and not self._retries.waiting:
            suspect = self._retries.next_suspect()
            if suspect is None:
                return False
            self._alone = True
            batches = [Batch([suspect])]
        self._submit(batches)
        return True

    def _submit(self, batches: Sequence[Batch]) -> None:
        self._flying.update(batches)
        self._executor.submit(batches)

    def _window(self) -> int:
        return max(_SMALLEST_WINDOW, 2 * self._executor.workers.threads + 2)

    def _size(self) -> int:
        """Return how many blocks the next batch should have, from how long the last ones took."""
        if self._pace is None or not self._policy.batched:
            return 1
        pace = max(self._pace, 1e-6)
        size = int(_TASK_SECONDS / pace)
        threads = max(1, self._executor.workers.threads)
        share = self._source.left // (2 * threads)
        if self._policy.overlap:
            size = max(size, min(_OVERLAP_BLOCKS, int(_OVERLAP_SECONDS / pace)))
            share = max(share, min(_OVERLAP_BLOCKS, self._source.left // threads))
        return max(1, min(size, share, _MOST_BLOCKS))

    def _budget(self, blocks: int) -> float:
        return 2 * max(_TASK_SECONDS, blocks * (self._pace or 0.0))

    def _settle(self, settled: Settled) -> None:
        batch, result = settled.batch, settled.result
        if result is None:
            self._bury(settled)
            return
        tried = len(result.states)
        self._source.give_back(batch.blocks[tried:])
        pace = result.seconds / max(1, tried)
        self._pace = pace if self._pace is None else (self._pace + pace) / 2
        self.counts.update(result.counts)
        self.voxels += result.voxels
        self.memory = max(self.memory, result.memory)
        self.ran += tried - len(result.failures)
        if tried > len(result.failures):
            self._failed_in_a_row = 0
        if self._policy.verb == "verify":
            for failure in result.failures:
                self.ledger.mark([failure.index], PENDING)
                self.failures.append(failure)
            return
        self.ledger.mark(batch.blocks[:tried], result.states.replace(bytes([FAILED]), bytes([PENDING])))
        for failure in result.failures:
            self._raised(failure)

    def _raised(self, failure: Failure) -> None:
        if failure.systemic:
            self._abort(
                f"the storage refuses: block {failure.index} of {self.stage.name} ({failure.box}) raised "
                f"{failure.exception}: {failure.message}"
            )
            return
        final = self._retries.failed(failure)
        if final is not None:
            self._condemn(final)

    def _bury(self, settled: Settled) -> None:
        """Take a batch whose workers died."""
        batch = settled.batch
        if not (self._alone and len(batch.blocks) == 1):
            self._retries.suspect(int(block) for block in batch.blocks)
            return
        index = int(batch.blocks[0])
        total = self._retries.died_alone(index, settled.deaths)
        if total is not None:
            self._condemn(self._killer(index, total, settled.memory))

    def _killer(self, index: int, deaths: int, memory: int) -> Failure:
        return Failure(
            stage=self.stage.name,
            index=index,
            box=str(self.stage.grid[index]),
            exception=KILLED,
            message=(
                f"its worker died each of {deaths} times, with no other block on it: it crashed, or ran out of memory. "
                f"{outgrown(self.stage, index, memory, self._executor.workers)}"
            ),
            attempts=deaths,
        )

    def _condemn(self, failure: Failure) -> None:
        self.ledger.mark([failure.index], FAILED)
        self.failures.append(failure)
        self._failed_in_a_row += 1
        if self._policy.fail_fast:
            self.stop()
        elif self._failed_in_a_row == _HOPELESS:
            self._abort(
                f"{_HOPELESS} blocks of {self.stage.name} in a row failed; the last, {failure.box}, raised "
                f"{failure.exception}: {failure.message}"
            )

    def _abort(self, message: str) -> None:
        self._fatal = self._fatal or message
        self.stop()

    def _rehearse(self) -> None:
        """Run an interior and a corner block before the others, and go no further when both fail alike.

        Raises:
            JobError: both failed, twice, with the same exception.
        """
        blocks = rehearsal(self.ledger)
        if self._policy.verb == "verify" or len(blocks) < 2:
            return
        self._source.exclude(blocks)
        failures = self._try(blocks)
        if _alike(failures, blocks):
            failures = [failure for block in blocks for failure in self._try([block])]
            if _alike(failures, blocks) and not self.stopping:
                first = failures[0]
                boxes = " and ".join(failure.box for failure in failures)
                raise JobError(
                    f"{self.stage.name}: the first two blocks, {boxes}, both raised "
                    f"{first.exception}: {first.message}\n{first.traceback}"
                )
        for failure in failures:
            if failure.exception == KILLED:
                self._retries.suspect([failure.index])
            else:
                self._raised(failure)

    def _try(self, blocks: Sequence[int]) -> list[Failure]:
        """Run blocks one per batch, and return those that failed without counting it."""
        failures: list[Failure] = []
        self._submit([Batch([block]) for block in blocks])
        while self._flying:
            for settled in self._executor.collect(_TICK):
                self._flying.discard(settled.batch)
                if settled.result is None:
                    failures.append(self._killer(int(settled.batch.blocks[0]), settled.deaths, settled.memory))
                elif settled.result.failures:
                    failures.extend(settled.result.failures)
                else:
                    self._settle(settled)
            self.seconds = time.monotonic() - self._started
            self._tick(self)
        return sorted(failures, key=lambda failure: failure.index)


def rehearsal(ledger: Ledger) -> list[int]:
    """Return an interior and a corner block of a grid of which nothing is done yet; none otherwise."""
    grid = ledger.grid
    if ledger.count(DONE) or ledger.count(EMPTY) or len(ledger) < 2:
        return []
    z, y, x = (n // 2 for n in grid.shape)
    blocks = {grid.index((z, y, x)), len(ledger) - 1}
    if len(blocks) < 2:
        blocks.add(0)
    return sorted(block for block in blocks if ledger.state(block) == PENDING)


def _alike(failures: Sequence[Failure], blocks: Sequence[int]) -> bool:
    return len(failures) == len(blocks) and len({failure.exception for failure in failures}) == 1


class _Source:
    """The blocks that are still to be run, from the ledger a part at a time."""

    def __init__(self, ledger: Ledger, verb: Verb) -> None:
        states = (PENDING,) if verb == "run" else (DONE, EMPTY)
        self.left = sum(ledger.count(state) for state in states)
        self._parts = ledger.blocks(*states)
        self._part: NDArray[np.int64] = np.empty(0, np.int64)
        self._returned: deque[NDArray[np.int64]] = deque()
        self._excluded: list[int] = []

    def exclude(self, blocks: Sequence[int]) -> None:
        """Leave out blocks that are run otherwise; before the first `take`."""
        self._excluded = list(blocks)
        self.left -= len(blocks)

    def take(self, most: int) -> NDArray[np.int64]:
        """Return the next blocks, at most `most`; none when all were taken."""
        if self._returned:
            blocks = self._returned.popleft()
            if len(blocks) > most:
                self._returned.appendleft(blocks[most:])
            self.left -= min(most, len(blocks))
            return blocks[:most]
        while not len(self._part):
            part = next(self._parts, None)
            if part is None:
                return self._part
            self._part = part[~np.isin(part, self._excluded)] if self._excluded else part
        blocks, self._part = self._part[:most], self._part[most:]
        self.left -= len(blocks)
        return blocks

    def give_back(self, blocks: Sequence[int] | NDArray[np.int64]) -> None:
        """Take blocks again that were not tried."""
        if len(blocks):
            self._returned.append(np.asarray(blocks, np.int64))
            self.left += len(blocks)
