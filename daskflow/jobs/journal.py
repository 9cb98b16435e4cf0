"""What the driver knows of a job's blocks, loaded from and saved to the job's directory."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from daskflow.errors import DaskflowError, JobError
from daskflow.jobs.batch import Failure
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.ledger import DONE, EMPTY, FAILED, Ledger
from daskflow.stores.local_files import flush
from daskflow.volume.stage import Stage

_EVERY = 2.0
_MOST_FAILURES = 10_000
_MOST_TRACEBACKS = 100

_Snapshot = tuple[dict[str, Ledger], list[Failure], dict[str, dict[str, int]]]


class Journal:
    """Ledgers, failures and sums of counts of all stages of a job.

    They are saved in the order failures, ledgers, counts, once what the blocks wrote is on a local disk. A driver that
    dies in between leaves failures that the ledger does not know, which are dropped, or counts that lack the last
    seconds; never a block taken for done that is not. Counts of a stage of which nothing is done are left from blocks
    that were set back, and dropped, too.
    """

    def __init__(self, directory: JobDirectory, stages: Sequence[Stage]) -> None:
        self._directory = directory
        self._places = {directory.url, *(one.url for stage in stages for one in stage.task.makes())}
        self.ledgers = {stage.name: Ledger.load(directory.ledger(stage.name), stage.grid) for stage in stages}
        self.failures = [
            failure
            for failure in directory.load_failures()
            if failure.stage in self.ledgers and self.ledgers[failure.stage].has(failure.index, FAILED)
        ]
        totals = directory.read("totals.json") or {}
        self.counts = {
            name: Counter[str](totals.get(name, {}) if ledger.count(DONE) or ledger.count(EMPTY) else {})
            for name, ledger in self.ledgers.items()
        }
        self._saving: threading.Thread | None = None
        self._error: DaskflowError | None = None
        self._next = 0.0

    @property
    def finished(self) -> bool:
        """Whether every block of every stage is done."""
        return all(ledger.finished for ledger in self.ledgers.values())

    def forget(self, stage: str, *states: int) -> bool:
        """Set the blocks of a stage that are in one of `states` back to pending; return whether there were any."""
        reset = self.ledgers[stage].reset(*states)
        if FAILED in states:
            self.failures = [failure for failure in self.failures if failure.stage != stage]
        if not any(self.ledgers[stage].count(state) for state in states if state != FAILED) and set(states) > {FAILED}:
            self.counts[stage].clear()
        return reset > 0

    def add_failures(self, failures: Iterable[Failure]) -> None:
        """Keep failures: all of the first, then without traceback, then only in the ledger."""
        for failure in failures:
            if len(self.failures) < _MOST_FAILURES:
                full = len(self.failures) < _MOST_TRACEBACKS
                self.failures.append(failure if full else replace(failure, traceback=""))

    def save_soon(self, *stages: str) -> None:
        """Save stages in the background, when the last time is some seconds ago.

        Raises:
            JobError: the last attempt to save failed.
        """
        if self._error is not None:
            raise JobError(f"cannot save the ledger: {self._error}") from self._error
        if (self._saving is not None and self._saving.is_alive()) or time.monotonic() < self._next:
            return
        self._saving = threading.Thread(
            target=self._save_in_background, args=self._snapshot(stages), name="daskflow-ledger", daemon=True
        )
        self._saving.start()

    def save(self, *stages: str) -> None:
        """Save stages now."""
        if self._saving is not None:
            self._saving.join()
        self._write(*self._snapshot(stages))

    def _snapshot(self, stages: Sequence[str]) -> _Snapshot:
        counts = {name: dict(counter) for name, counter in self.counts.items()}
        return {stage: self.ledgers[stage].copy() for stage in stages}, list(self.failures), counts

    def _save_in_background(self, *snapshot: *_Snapshot) -> None:
        started = time.monotonic()
        try:
            self._write(*snapshot)
        except DaskflowError as error:
            self._error = error
        took = time.monotonic() - started
        self._next = time.monotonic() + max(_EVERY, 10 * took)

    def _write(self, ledgers: dict[str, Ledger], failures: list[Failure], counts: dict[str, dict[str, int]]) -> None:
        flush(self._places)
        if failures or self._directory.read("failures.json"):
            self._directory.save_failures(failures)
        for stage, ledger in ledgers.items():
            ledger.save(self._directory.ledger(stage))
        self._directory.write("totals.json", counts)
