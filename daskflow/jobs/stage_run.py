"""One pass over one stage: which blocks are next, what became of those that came back, and which are tried again."""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from daskflow import errors
from daskflow.jobs.batch import Batch, BatchResult, Verb
from daskflow.jobs.executor import Executor, Settled, uses_gpu
from daskflow.jobs.ledger import DONE, EMPTY, FAILED, PENDING, Ledger, Remaining
from daskflow.jobs.plan import outgrown
from daskflow.jobs.report import Failure
from daskflow.volume.stage import Stage

_TASK_SECONDS = 1.0  # a task costs 2 to 3 ms of CPU of scheduler and client (benchmarks/soak.py)
_OVERLAP_BLOCKS = 4  # reading ahead and writing behind need several blocks in a batch
_OVERLAP_SECONDS = 30.0
_MOST_BLOCKS = 10_000
_HOPELESS = 100
_FIRST_DELAY = 0.25
_LONGEST_DELAY = 30.0

KILLED = "KilledWorker"


@dataclass(frozen=True)
class Policy:
    """How a stage is run: with `overlap` a block is read while one is computed; a `batched` task runs several."""

    retries: int = 2
    fail_fast: bool = False
    overlap: bool = True
    verb: Verb = "run"
    batched: bool = True


class StageRun:
    """One pass over one stage: hands its blocks to a `Stream` in batches, and records what comes back.

    An interior and a corner block run before the others; if both fail alike, twice, the operator is at fault. It begins
    once the passes that it comes after are finished, changes the ledger as blocks come back, and adds to the counts.

    Attributes:
        failures: the blocks that failed for good.
        skipped: blocks that were done before it began.
        ran: blocks that it finished.
        voxels: voxels of these.
        seconds: wall time in which blocks of it were in flight.
        memory: peak resident bytes of a worker process.
        lost_workers: workers that went away meanwhile, unless a pass that ended before has counted them.
        flying: the batches in flight.
        running: whether it has begun, and not ended.
        gpu: whether its blocks compute on a GPU where there is one.
        stops: whether no further block of any stage is to be begun.
        fatal: why, if the operator or the storage is at fault, rather than single blocks.
    """

    def __init__(
        self, stage: Stage, ledger: Ledger, policy: Policy, counts: Counter[str], after: Sequence[StageRun] = ()
    ) -> None:
        self.stage = stage
        self.ledger = ledger
        self.counts = counts
        self.failures: list[Failure] = []
        self.skipped = self.ran = self.voxels = self.memory = self.lost_workers = 0
        self.seconds = self.busy = 0.0
        self.latest = 0.0
        self.flying: set[Batch] = set()
        self.fatal: str | None = None
        self.running = self.stops = False
        self.gpu = uses_gpu(stage, policy.verb)
        self._policy = policy
        self._after = after
        self._blocks = Remaining(ledger, *((PENDING,) if policy.verb == "run" else (DONE, EMPTY)))
        self._retries = Retries(policy.retries)
        self._rehearsal: Rehearsal | None = None
        self._pace: float | None = None
        self._alone: Batch | None = None
        self._failed_in_a_row = 0

    @property
    def ready(self) -> bool:
        """Whether what it comes after is finished."""
        return all(one.ledger.finished for one in self._after)

    @property
    def retried(self) -> int:
        """How often blocks were tried again."""
        return self._retries.count

    @property
    def at_rest(self) -> bool:
        """Whether no batch is in flight, and none can be submitted but what must be tried alone."""
        waiting = self._blocks.left or self._retries.waiting if self._rehearsal is None else self._rehearsal.together
        return not (self.flying or waiting)

    @property
    def over(self) -> bool:
        """Whether no other driver can leave blocks to it any more."""
        return True

    @property
    def left(self) -> int:
        """How many blocks are left to be submitted, those that wait for another try aside."""
        return self._blocks.left

    @property
    def suspicious(self) -> bool:
        """Whether it is at rest, and blocks are left that must be tried alone."""
        return self.at_rest and (self._rehearsal is not None or bool(self._retries.suspects))

    def begin(self, executor: Executor) -> None:
        """Let workers know the stage."""
        self.skipped = self.ledger.count(DONE) + self.ledger.count(EMPTY)
        self._send = executor.open(self.stage, overlap=self._policy.overlap, verb=self._policy.verb)
        self._executor, self.running, self.latest = executor, True, time.monotonic()
        first = self._first_blocks()
        if len(first) > 1:
            self._rehearsal = Rehearsal(first)

    def _first_blocks(self) -> list[int]:
        """Take the blocks that run before the others."""
        first = rehearsal(self.ledger) if self._policy.verb == "run" else []
        if len(first) > 1:
            self._blocks.exclude(first)
        return first

    def end(self) -> None:
        """Let go of the stage."""
        self.lost_workers += self._executor.take_lost()
        self.running = False
        del self._send

    def submit(self, room: int) -> int:
        """Submit the next batches, about `room` of them at most; return how many."""
        if room <= 0:
            return 0
        if self._rehearsal is not None:
            batches = [Batch([block]) for block in self._rehearsal.together]
            self._rehearsal.together = []
        else:
            batches = [Batch([block]) for block in self._retries.due(room)]
            while len(batches) < room and len(blocks := self._blocks.take(self._size())):
                batches.append(Batch(blocks, 2 * max(_TASK_SECONDS, len(blocks) * (self._pace or 0.0))))
        self._submit(batches)
        return len(batches)

    def submit_alone(self) -> None:
        """Submit a block that must be tried with nothing else in flight."""
        block = self._retries.suspects.popleft() if self._rehearsal is None else self._rehearsal.alone.pop(0)
        self._alone = Batch([block])
        self._submit([self._alone])

    def _submit(self, batches: Sequence[Batch]) -> None:
        self.flying.update(batches)
        self._send(batches)

    def _size(self) -> int:
        """Return how many blocks the next batch should have, from how long the last ones took."""
        if self._pace is None or not self._policy.batched:
            return 1
        pace = max(self._pace, 1e-6)
        size = int(_TASK_SECONDS / pace)
        threads = max(1, self._executor.workers.of(gpu=self.gpu).threads)
        share = self.left // (2 * threads)
        if self._policy.overlap:
            size = max(size, min(_OVERLAP_BLOCKS, int(_OVERLAP_SECONDS / pace)))
            share = max(share, min(_OVERLAP_BLOCKS, self.left // threads))
        return max(1, min(size, share, _MOST_BLOCKS))

    def settle(self, settled: Settled) -> None:
        """Take a batch that came back."""
        batch, result = settled.batch, settled.result
        self.flying.discard(batch)
        if self._rehearsal is not None:
            self._rehearse(self._rehearsal, settled)
        elif result is not None:
            self._record(batch, result)
        elif batch is not self._alone:
            self._retries.suspects.extend(int(block) for block in batch.blocks)
        else:
            index = int(batch.blocks[0])
            total = self._retries.died_alone(index, settled.deaths)
            if total is not None:
                self._condemn(self._killer(index, total, settled.memory))

    def _record(self, batch: Batch, result: BatchResult) -> None:
        tried = len(result.states)
        self._blocks.give_back(batch.blocks[tried:])
        if not tried:
            return
        self.busy += result.seconds
        self.latest = time.monotonic()
        pace = result.seconds / tried
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

    def _killer(self, index: int, deaths: int, memory: int) -> Failure:
        return Failure(
            stage=self.stage.name,
            index=index,
            box=str(self.stage.grid[index]),
            exception=KILLED,
            message=(
                f"its worker died each of {deaths} times, with no other block on it: it crashed, or ran out of memory. "
                f"{outgrown(self.stage, index, memory, self._executor.workers.of(gpu=self.gpu))}"
            ),
            attempts=deaths,
        )

    def _condemn(self, failure: Failure) -> None:
        self.ledger.mark([failure.index], FAILED)
        self.failures.append(failure)
        self._failed_in_a_row += 1
        if self._policy.fail_fast:
            self.stops = True
        elif self._failed_in_a_row == _HOPELESS:
            self._abort(
                f"{_HOPELESS} blocks of {self.stage.name} in a row failed; the last, {failure.box}, raised "
                f"{failure.exception}: {failure.message}"
            )

    def _abort(self, message: str) -> None:
        self.fatal, self.stops = self.fatal or message, True

    def _rehearse(self, rehearsal: Rehearsal, settled: Settled) -> None:
        """Take one of the first blocks; when both came back, go on with the others unless both failed alike, twice."""
        if settled.result is None:
            rehearsal.failures.append(self._killer(int(settled.batch.blocks[0]), settled.deaths, settled.memory))
        elif settled.result.failures:
            rehearsal.failures.extend(settled.result.failures)
        else:
            self._record(settled.batch, settled.result)
        if self.flying or rehearsal.alone:
            return
        failures = sorted(rehearsal.failures, key=lambda failure: failure.index)
        if rehearsal.alike and not rehearsal.repeated:
            self._rehearsal = Rehearsal(rehearsal.blocks, repeated=True)
            return
        if rehearsal.alike:
            first = failures[0]
            boxes = " and ".join(failure.box for failure in failures)
            told = f"{self.stage.name}: the first two blocks, {boxes}, both raised {first.exception}: {first.message}"
            self._abort(told if hasattr(errors, first.exception) else f"{told}\n{first.traceback}")
        self._rehearsal = None
        for failure in failures:
            if failure.exception == KILLED:
                self._retries.suspects.append(failure.index)
            else:
                self._raised(failure)


class Rehearsal:
    """The first two blocks of a stage: run at the same time or, repeated, one after the other and alone."""

    def __init__(self, blocks: Sequence[int], *, repeated: bool = False) -> None:
        self.blocks = blocks
        self.repeated = repeated
        self.together = [] if repeated else list(blocks)
        self.alone = list(blocks) if repeated else []
        self.failures: list[Failure] = []

    @property
    def alike(self) -> bool:
        """Whether both failed with the same exception."""
        return len(self.failures) == len(self.blocks) and len({one.exception for one in self.failures}) == 1


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


class Retries:
    """Blocks that raised and wait for their next try, and suspects: blocks whose worker died.

    A suspect may be innocent: another block of the worker may have killed it. So it is tried again with nothing else
    in flight, and blamed only when its worker then dies `allowed` + 1 times.

    Attributes:
        waiting: when blocks that raised may be tried again, and their numbers, as a heap.
        suspects: blocks to be tried alone, in order.
        count: how often blocks were tried again.
    """

    def __init__(self, allowed: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed = allowed
        self._clock = clock
        self.waiting: list[tuple[float, int]] = []
        self._attempts: dict[int, int] = {}
        self._deaths: dict[int, int] = {}
        self.suspects: deque[int] = deque()
        self.count = 0

    def failed(self, failure: Failure) -> Failure | None:
        """Take a block that raised; return its failure if it is not tried again."""
        attempts = self._attempts[failure.index] = self._attempts.get(failure.index, 0) + 1
        if attempts > self._allowed:
            return replace(failure, attempts=attempts)
        self.count += 1
        delay = min(_FIRST_DELAY * 4 ** (attempts - 1), _LONGEST_DELAY)
        heapq.heappush(self.waiting, (self._clock() + delay, failure.index))
        return None

    def died_alone(self, index: int, deaths: int) -> int | None:
        """Take a suspect whose workers died with nothing else in flight; return how often, if it is to blame."""
        total = self._deaths[index] = self._deaths.get(index, 0) + deaths
        if total > self._allowed:
            return total
        self.count += 1
        self.suspects.appendleft(index)
        return None

    def due(self, most: int) -> list[int]:
        """Return up to `most` blocks whose wait is over; they wait no longer."""
        blocks: list[int] = []
        while len(blocks) < most and self.waiting and self.waiting[0][0] <= self._clock():
            blocks.append(heapq.heappop(self.waiting)[1])
        return blocks
