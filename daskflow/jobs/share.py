"""Several drivers on one job: each runs parts of the stages that it has claimed; one of them ends the job for all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from daskflow.errors import JobError, LockedJobError
from daskflow.jobs.batch import Batch, BatchResult
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.driver import Driver
from daskflow.jobs.evaluate import warn
from daskflow.jobs.keeper import Keeper, Shelf
from daskflow.jobs.ledger import DONE, EMPTY, PENDING, Journal, Ledger, Remaining
from daskflow.jobs.lock import Lease
from daskflow.jobs.parts import Part, Work, cut, fold, packed
from daskflow.jobs.prepare import Prepared
from daskflow.jobs.report import Failure, Report, StageReport
from daskflow.jobs.stage_run import Policy, Rehearsal, StageRun
from daskflow.stores import kvstore
from daskflow.stores.local_files import sweep
from daskflow.volume.stage import Stage

_LOOK_EVERY = 25  # exchanges, of about five a second, after which a busy driver sees what others have done
_PATIENCE = 300  # exchanges without workers after which a driver leaves its parts to others
_NOT_CONDITIONAL = (
    "{} does not refuse writes whose condition does not hold, so two drivers may now and then run the same blocks, with"
    " the same result, and count them twice"
)


def begin_sharing(directory: JobDirectory, prepared: Prepared, lease: Lease) -> None:
    """Cut a job that this driver has prepared into parts, and let others join."""
    directory.forget_report()
    cut(directory, prepared.journal, prepared.stages)
    if not kvstore.is_conditional(directory.url):
        warn((_NOT_CONDITIONAL.format(directory.url),))
    lease.share()


@dataclass
class _Own:
    """A part that this driver has claimed: as it was then, and what became of it since."""

    blocks: range
    claimed: Part
    settled: int
    states: NDArray[np.uint8]
    counts: Counter[str]
    failures: list[Failure]
    voxels: int = 0


class SharedPass(StageRun):
    """One driver's pass over a stage of which others run parts, too; its ledger has what is known of all.

    The driver's own first two blocks run before its others: its workers may lack what those of others have.
    """

    def __init__(
        self, stage: Stage, ledger: Ledger, policy: Policy, after: Sequence[StageRun], shelf: Shelf, driver: str
    ) -> None:
        super().__init__(stage, ledger, policy, Counter(), after)
        self._shelf = shelf
        self._driver = driver
        self._blocks = Remaining(ledger)
        self._own: dict[int, _Own] = {}
        self._complete: set[int] = set()
        self._begun = False
        self._since_asked = self._without_workers = 0

    @property
    def over(self) -> bool:
        return len(self._complete) == self._shelf.count

    @property
    def left(self) -> int:
        others = self._shelf.count - len(self._complete) - len(self._own)
        return self._blocks.left + others * self._shelf.size

    def _first_blocks(self) -> list[int]:
        return []

    def submit(self, room: int) -> int:
        if not self._begun and self._blocks.left > 1 and room > 0:
            self._begun = True
            self._rehearsal = Rehearsal([int(self._blocks.take(1)[0]) for _ in range(2)])
        return super().submit(room)

    def _record(self, batch: Batch, result: BatchResult) -> None:
        super()._record(batch, result)
        own = self._own.get(int(batch.blocks[0]) // self._shelf.size)
        if own is not None:
            own.counts.update(result.counts)
            own.voxels += result.voxels

    def exchange(self, *, claim: bool) -> bool:
        """Have stored what became of own parts, take what is known of others, and ask for more if `claim`.

        Return whether a part was lost to another driver.
        """
        lost = False
        idle = self._shelf.idle  # before the events are taken, so that they are all that came of it
        while not self._shelf.events.empty():
            how, number, part = self._shelf.events.get()
            if how == "lost":
                lost = True
                self._own.pop(number, None)
                self._blocks.drop(self._shelf.blocks(number))
            else:
                self._take(number, part)
        failures, self.failures = self.failures, []
        for failure in failures:
            own = self._own.get(failure.index // self._shelf.size)
            if own is not None:
                own.failures.append(failure)
        for number, own in self._own.items():
            self._put(number, own)
        self._without_workers = 0 if self._threads else self._without_workers + 1
        self._shelf.leaving = self._without_workers > _PATIENCE
        self._since_asked += 1
        wanted = self._wanted()
        if idle and claim and not self.over and (wanted > 0 or self._since_asked > _LOOK_EVERY):
            self._since_asked = 0
            self._shelf.ask(wanted)
        return lost

    def take_back(self, withdrawn: Sequence[Batch]) -> None:
        """Run later, of batches that no worker has begun, those of parts that this driver still holds."""
        mine = self.flying.intersection(withdrawn)
        self.flying -= mine
        for batch in mine:
            blocks = [int(block) for block in batch.blocks]
            if self._rehearsal is not None:
                self._rehearsal.together += blocks
            elif blocks[0] // self._shelf.size not in self._own:
                continue
            elif batch is self._alone:
                self._retries.suspects.extend(blocks)
            else:
                self._blocks.give_back(blocks)

    def _take(self, number: int, part: Part) -> None:
        """Take a part as it is stored: one to be run, or one that is complete."""
        blocks = self._shelf.blocks(number)
        states = part.unpacked()
        self.ledger.mark(blocks, states.tobytes())
        if part.complete:
            self._complete.add(number)
            self._own.pop(number, None)
            self.stops = self.stops or (self._policy.fail_fast and bool(part.failures))
            return
        counts, failures = Counter[str](part.counts), list(part.failures)
        self._own[number] = _Own(blocks, part, _settled(states), states, counts, failures)
        self._blocks.give_back(np.asarray(blocks)[states == PENDING])

    def _put(self, number: int, own: _Own) -> None:
        states = self.ledger.states(own.blocks)
        if np.array_equal(states, own.states):
            return
        own.states = states
        if PENDING not in states:
            self.lost_workers += self._executor.take_lost()
        blocks = _settled(states) - own.settled
        mine = Work(blocks, own.voxels, self.seconds, self.retried, self.lost_workers, self.memory)
        work = {**own.claimed.work, self._driver: own.claimed.work.get(self._driver, Work()).and_of(mine)}
        part = Part(**packed(states), counts=dict(own.counts), failures=list(own.failures), work=work)
        self._shelf.put(number, part)

    def _wanted(self) -> int:
        """Return how many blocks more keep the workers busy for a while; what is claimed, no other driver can run."""
        threads, size = self._threads, self._size()
        busy = self._blocks.left + sum(len(batch.blocks) for batch in self.flying)
        return (3 * threads + 2) * size - busy if threads and busy <= (2 * threads + 2) * size else 0

    @property
    def _threads(self) -> int:
        return self._executor.workers.of(gpu=self.gpu).threads


def _settled(states: NDArray[np.uint8]) -> int:
    return int(np.count_nonzero((states == DONE) | (states == EMPTY)))


class SharingDriver(Driver):
    """One of several drivers of a job."""

    def run(self) -> Report:
        """Run parts of the stages until all are complete, and end the job unless another driver does."""
        self._cut = self.directory.read("parts.json")
        self._shelves = {stage.name: self._shelf(stage, self._cut) for stage in self.stages if self._cut is not None}
        places = (self.directory.url, *(one.url for one in self.job.outputs))
        try:
            with Keeper(self._shelves.values(), places) as self._keeper:
                self._stream(self._passes() if self._shelves else ())
        except JobError as error:  # it may come of others that have ended the job while this process was stopped
            return self._ended_by_others(error)
        if self.stream.stopping:
            report = self._report("stopped")
            self._leave(report)
            return report
        return self._fold() if self.lease.alone() else self._ended_by_others()

    def _ended_by_others(self, error: JobError | None = None) -> Report:
        """Return the report of the driver that ends the job, end it if that one did not, or raise the error."""
        if error is not None and self.lease.lost is None and self.directory.load_report() is None:
            raise error
        with Lease(self.directory.lock, writes=self.job.outputs, sharing=True) as lease:  # waits for the one who ends
            report = self.directory.load_report()
            if report is not None:
                return self._show(report)
            if error is None and not lease.joined and self._cut == self.directory.read("parts.json"):
                return self._fold()
        raise error or LockedJobError(
            f"{self.directory.url} was begun again meanwhile; run the same again to take part in it"
        )

    def _shelf(self, stage: Stage, cut: dict[str, Any]) -> Shelf:
        ledger, failures = self.journal.ledgers[stage.name], self.journal.failures
        return Shelf(self.directory, cut, stage.name, ledger, failures, self.lease.me.member)

    def _pass(self, stage: Stage, after: Sequence[StageRun] = ()) -> StageRun:
        ledger, shelf = self.journal.ledgers[stage.name], self._shelves[stage.name]
        return SharedPass(stage, ledger, self._policy(stage), after, shelf, self.lease.me.name)

    def _save_soon(self, passes: Sequence[StageRun]) -> None:
        self._keeper.check()
        shared = cast(Sequence[SharedPass], passes)
        lost = [one.exchange(claim=not self.stream.stopping) for one in shared]
        if any(lost):
            withdrawn = self.executor.withdraw()
            for one in shared:
                one.take_back(withdrawn)

    def _save(self, passes: Sequence[StageRun]) -> None:
        for one in cast(Sequence[SharedPass], passes):
            one.exchange(claim=False)

    def _leave(self, report: Report) -> None:
        self._say(report)  # it is not stored: others go on

    def _fold(self) -> Report:
        """End the job for all its drivers, whose parts are complete."""
        records = fold(self.directory)
        self.journal = Journal(self.directory, self.stages)
        self.reports = {stage.name: self._sum(stage, records.work.get(stage.name, {})) for stage in self.stages}
        drivers = Counter[str]()
        for work in records.work.values():
            drivers.update({name: one.blocks for name, one in work.items()})
        report = self._report("finished" if self.journal.finished else "failed")
        report = self._finish(replace(report, drivers=dict(drivers)))
        self.directory.forget_parts()
        for one in self.job.outputs if records.continued else ():
            sweep(one.url, before=time.time())
        return report

    def _sum(self, stage: Stage, work: dict[str, Work]) -> StageReport:
        """Return what all drivers did of a stage."""
        done = work.values()
        moved = self._moved(stage, sum(one.voxels for one in done))
        return replace(
            moved,
            skipped=moved.skipped - sum(one.blocks for one in done),
            seconds=max((one.seconds for one in done), default=0.0),
            retries=sum(one.retries for one in done),
            lost_workers=sum(one.lost_workers for one in done),
            memory=max((one.memory for one in done), default=0),
        )

    def _show(self, report: Report) -> Report:
        """Show the report of the driver that has ended the job."""
        if report.ok:
            kvstore.delete_tree(self.directory.scratch)  # blocks of this driver that others ran, too, may have used it
        self._say(report)
        return report
