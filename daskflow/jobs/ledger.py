"""What became of every block, one byte each: a zarr array that is itself a coarse volume; and why some failed."""

from __future__ import annotations

import json
import operator
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from daskflow.errors import CorruptChunkError, DaskflowError, JobError
from daskflow.geometry import BlockGrid
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.report import Failure, StageReport
from daskflow.stores import kvstore
from daskflow.stores.compressed import MOST_ALWAYS, decompress
from daskflow.stores.local_files import flush
from daskflow.volume.stage import Stage

PENDING, DONE, EMPTY, FAILED = range(4)
STATES = ("pending", "done", "empty", "failed")

_SCAN = 1 << 18
_EVERY = 2.0
_MOST_FAILURES = 10_000
_MOST_TRACEBACKS = 100


class Ledger:
    """The state of every block of a stage, uint8 in grid order, in the memory of the driver; by default all pending.

    Stored, it is a zarr v3 array of one gzipped chunk, whose voxels are the blocks: it opens like any volume.
    """

    def __init__(self, grid: BlockGrid, states: NDArray[np.uint8] | None = None) -> None:
        self.grid = grid
        self._states = np.zeros(len(grid), np.uint8) if states is None else states
        self._counts = [0] * len(STATES)
        self._count()

    def _count(self) -> None:
        for state in range(len(STATES)):
            self._counts[state] = int(np.count_nonzero(self._states == state))

    def __len__(self) -> int:
        return len(self._states)

    def count(self, state: int) -> int:
        """Return how many blocks are in a state."""
        return self._counts[state]

    def state(self, index: int) -> int:
        """Return the state of a block."""
        return int(self._states[index])

    def states(self, blocks: range) -> NDArray[np.uint8]:
        """Return the states of blocks that follow each other, as they are now."""
        return self._states[blocks.start : blocks.stop].copy()

    def has(self, index: int, state: int) -> bool:
        """Return whether there is a block of that number, in that state."""
        return 0 <= index < len(self) and self.state(index) == state

    @property
    def finished(self) -> bool:
        """Whether every block is done or empty."""
        return self._counts[DONE] + self._counts[EMPTY] == len(self)

    def mark(self, blocks: Sequence[int] | NDArray[np.int64], states: bytes | int) -> None:
        """Record the states of blocks: one for each, or one for all."""
        where = np.asarray(blocks, np.int64)
        before = np.bincount(self._states[where], minlength=len(STATES))
        self._states[where] = states if isinstance(states, int) else np.frombuffer(states, np.uint8)
        after = np.bincount(self._states[where], minlength=len(STATES))
        for state in range(len(STATES)):
            self._counts[state] += int(after[state]) - int(before[state])

    def reset(self, *states: int) -> int:
        """Set the blocks that are in one of `states` back to pending, and return how many there were."""
        chosen = _table(states)[self._states]
        self._states[chosen] = PENDING
        self._count()
        return int(np.count_nonzero(chosen))

    def blocks(self, *states: int) -> Iterator[NDArray[np.int64]]:
        """Yield the numbers of the blocks in one of `states`, in order and in parts, each as the ledger is by then."""
        wanted = _table(states)
        for first in range(0, len(self), _SCAN):
            part = np.flatnonzero(wanted[self._states[first : first + _SCAN]])
            if len(part):
                yield part + first

    def report(self, name: str, counts: dict[str, int]) -> StageReport:
        """Return the report of a stage that nothing was run of."""
        done, empty, failed = (self.count(state) for state in (DONE, EMPTY, FAILED))
        return StageReport(name, len(self), done, empty, failed, skipped=done + empty, counts=counts)

    def copy(self) -> Ledger:
        """Return a snapshot that later marks do not change."""
        return Ledger(self.grid, self._states.copy())

    def save(self, url: str) -> None:
        """Store the states at a URL, atomically, with the metadata that make them a zarr array."""
        if not kvstore.exists(kvstore.join(url, "zarr.json")):
            kvstore.write_bytes(kvstore.join(url, "zarr.json"), json.dumps(self._metadata(), indent=1).encode())
        kvstore.write_bytes(kvstore.join(url, "c/0/0/0"), igzip.compress(self._states.tobytes(), 1, mtime=0))

    @classmethod
    def load(cls, url: str, grid: BlockGrid) -> Self:
        """Return the states stored at a URL, all pending when there are none; refuse those of another grid."""
        data = kvstore.read_bytes(kvstore.join(url, "c/0/0/0"))
        if data is None:
            return cls(grid)
        try:
            most = max(MOST_ALWAYS, len(grid))
            states = np.frombuffer(decompress(data, ".gz", "it", most), np.uint8).copy()
        except CorruptChunkError as error:
            raise JobError(f"the ledger {url} is damaged ({error}); delete it to run every block again") from error
        if len(states) != len(grid) or (len(states) and int(states.max()) >= len(STATES)):
            raise JobError(f"the ledger {url} is not one of {len(grid):,} blocks; delete it to run every block again")
        return cls(grid, states)

    def _metadata(self) -> dict[str, Any]:
        grid = self.grid
        origin = grid.origin or (0, 0, 0)
        first = tuple(a // b for a, b in zip(map(operator.sub, grid.box.start, origin), grid.block, strict=True))
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(grid.shape),
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, n) for n in grid.shape]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": PENDING,
            "codecs": [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}],
            "dimension_names": ["z", "y", "x"],
            "attributes": {
                "voxel_size": list(grid.block),
                "voxel_offset": list(first),
                "origin": list(origin),
                "states": list(STATES),
            },
        }


class Remaining:
    """The blocks of a ledger that are in some states and were not taken yet, found a part at a time."""

    def __init__(self, ledger: Ledger, *states: int) -> None:
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

    def drop(self, blocks: range) -> None:
        """Leave out blocks that follow each other, of those that were given back."""
        before = sum(map(len, self._returned))
        left = (part[(part < blocks.start) | (part >= blocks.stop)] for part in self._returned)
        self._returned = deque(part for part in left if len(part))
        self.left -= before - sum(map(len, self._returned))


_Snapshot = tuple[dict[str, Ledger], list[Failure], dict[str, dict[str, int]]]


class Journal:
    """Ledgers, failures and sums of counts of all stages of a job.

    They are saved in the order failures, ledgers, counts, once what the blocks wrote is on a local disk; the counts of
    a stage with its ledger, else blocks that run again would be counted again. A driver that dies in between leaves
    failures that the ledger does not know, which are dropped, or counts that lack the last seconds; never a block taken
    for done that is not. Counts of a stage of which nothing is done are left from blocks that are pending again, and
    dropped, too.
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
        self._saved = {name: dict(counter) for name, counter in self.counts.items()}
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
        """Save stages in the background, when the last time is some seconds ago; raise if that failed."""
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
        self._saved = {**self._saved, **{stage: dict(self.counts[stage]) for stage in stages}}
        return {stage: self.ledgers[stage].copy() for stage in stages}, list(self.failures), self._saved

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


def _table(states: Sequence[int]) -> NDArray[np.bool_]:
    table = np.zeros(len(STATES), bool)
    table[list(states)] = True
    return table
