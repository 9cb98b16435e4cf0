"""A job in parts that several drivers take: what is stored of each part, and what all of them come to.

A part is blocks of one stage that follow each other, and one object: what became of them, and who is at it. Its holder
renews it; whoever replaces it puts new bytes in the place of those read before, so that one who was stopped and goes on
late cannot undo what others have done since.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from daskflow.clusters import Threads
from daskflow.errors import CorruptChunkError, JobError
from daskflow.jobs.directory import JobDirectory, as_json, load_grid
from daskflow.jobs.ledger import FAILED, PENDING, STATES, Journal, Ledger
from daskflow.jobs.lock import Holder
from daskflow.jobs.report import Failure
from daskflow.jobs.shapes import fits, from_json
from daskflow.redaction import redacted
from daskflow.stores import kvstore
from daskflow.stores.compressed import MOST_ALWAYS, decompress
from daskflow.volume.stage import Stage

_MOST_PARTS = 256  # tens of drivers take several each; each part costs some requests
_BATCH = 8  # blocks that a worker overlaps, which are of one part
_FEW_PARTS = 32
_READERS = 16
_MOST_BLOCKS = 2**30 // _MOST_PARTS


@dataclass(frozen=True)
class Work:
    """What one driver did of a stage: of a part the blocks and voxels, of all of its parts until then the rest."""

    blocks: int = 0
    voxels: int = 0
    seconds: float = 0.0
    retries: int = 0
    lost_workers: int = 0
    memory: int = 0

    def and_of(self, other: Work) -> Work:
        """Return that of two parts."""
        values = {one.name: max(getattr(self, one.name), getattr(other, one.name)) for one in dataclasses.fields(Work)}
        return Work(**{**values, "blocks": self.blocks + other.blocks, "voxels": self.voxels + other.voxels})


@dataclass(frozen=True)
class Part:
    """What is stored of a part.

    Attributes:
        states: of its blocks, compressed, as text.
        pending: how many of these are left to run.
        holder: the driver that is at it, if any.
        beat: how often it was stored.
        counts: sums of what its blocks counted.
        failures: its blocks that failed for good.
        work: by driver.
    """

    states: str
    pending: int
    holder: Holder | None = None
    beat: int = 0
    counts: dict[str, float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    work: dict[str, Work] = field(default_factory=dict)

    @classmethod
    def of(cls, states: NDArray[np.uint8], failures: Sequence[Failure] = ()) -> Self:
        """Return a part that nobody is at."""
        return cls(**packed(states), failures=list(failures))

    @classmethod
    def decoded(cls, data: bytes, url: str, blocks: range) -> Self:
        """Return what an object holds, if it is a part of these blocks."""
        with suppress(ValueError, RecursionError, CorruptChunkError):
            values = json.loads(data)
            if fits(values, Part):
                told = redacted({**values, "states": ""})
                part: Self = from_json(cls, {**told, "states": values["states"]})
                states = part.unpacked()
                if len(states) == len(blocks) and states.max(initial=0) < len(STATES):
                    return replace(part, pending=int(np.count_nonzero(states == PENDING)))
        raise JobError(f"{url} is damaged; delete it to run the blocks {blocks.start} to {blocks.stop - 1} again")

    @property
    def complete(self) -> bool:
        """Whether no block is left to run."""
        return self.pending == 0

    def encoded(self) -> bytes:
        """Return the object that is stored."""
        return json.dumps({**as_json(dataclasses.asdict(replace(self, states=""))), "states": self.states}).encode()

    def unpacked(self) -> NDArray[np.uint8]:
        """Return the states of its blocks."""
        data = decompress(base64.b64decode(self.states), ".gz", "a part", MOST_ALWAYS + _MOST_BLOCKS)
        return np.frombuffer(data, np.uint8)


def packed(states: NDArray[np.uint8]) -> dict[str, Any]:
    """Return the states of blocks as a part has them, and how many are pending."""
    text = base64.b64encode(igzip.compress(states.tobytes(), 1, mtime=0)).decode()
    return {"states": text, "pending": int(np.count_nonzero(states == PENDING))}


def cut(directory: JobDirectory, journal: Journal, stages: Sequence[Stage]) -> None:
    """Cut the stages of a job into parts: enough for tens of drivers, each of several blocks where there are many."""
    sizes = {}
    for stage in stages:
        blocks = len(stage.grid)
        sizes[stage.name] = max(1, -(-blocks // _MOST_PARTS), min(_BATCH, -(-blocks // _FEW_PARTS)))
    directory.forget_parts()
    directory.write("parts.json", {"run": uuid.uuid4().hex, "sizes": sizes, "totals": journal.counts})


def blocks_of(number: int, size: int, count: int) -> range:
    """Return the blocks of a part of a stage of `count` blocks."""
    return range(number * size, min((number + 1) * size, count))


@dataclass(frozen=True)
class Records:
    """What is recorded of a job, that of its parts included.

    Attributes:
        ledgers: by stage.
        failures: the blocks that failed for good, as far as they are recorded.
        totals: sums of counts, by stage.
        work: by stage and driver, where drivers share the job.
        continued: whether a part was taken over from another driver.
    """

    ledgers: dict[str, Ledger]
    failures: list[Failure]
    totals: dict[str, dict[str, Any]]
    work: dict[str, dict[str, Work]]
    continued: bool = False


def recorded(directory: JobDirectory) -> Records:
    """Return what is recorded of the job of a directory."""
    stages = directory.read("job.json")["stages"]
    ledgers = {name: Ledger.load(directory.ledger(name), load_grid(values["grid"])) for name, values in stages.items()}
    failures = directory.load_failures()
    cut = directory.read("parts.json")
    if cut is None:
        return Records(ledgers, failures, directory.read("totals.json") or {}, {})
    totals = {name: Counter[str](cut["totals"].get(name, {})) for name in stages}
    work: dict[str, dict[str, Work]] = {name: {} for name in stages}
    continued = False
    for name, ledger in ledgers.items():
        size = cut["sizes"].get(name, 1)
        for number, part in load_parts(directory.parts(cut["run"], name), size, len(ledger)).items():
            blocks = blocks_of(number, size, len(ledger))
            ledger.mark(blocks, part.unpacked().tobytes())
            totals[name].update(part.counts)
            failures = [one for one in failures if one.stage != name or one.index not in blocks] + part.failures
            continued = continued or len(part.work) > 1
            for driver, done in part.work.items():
                work[name][driver] = work[name].get(driver, Work()).and_of(done)
    failures = [one for one in failures if one.stage in ledgers and ledgers[one.stage].has(one.index, FAILED)]
    return Records(ledgers, failures, {name: dict(counts) for name, counts in totals.items()}, work, continued)


def load_parts(url: str, size: int, count: int) -> dict[int, Part]:
    """Return the parts of a stage of `count` blocks that are stored below a URL, by number."""
    numbers = [int(name) for name in kvstore.list_names(url) if name.isdecimal()]
    with Threads(_READERS) as pool:
        read = [pool.submit(kvstore.read_bytes, kvstore.join(url, str(number))) for number in numbers]
        found = {number: one.result() for number, one in zip(numbers, read, strict=True)}
    return {
        number: Part.decoded(data, f"{url}/{number}", blocks_of(number, size, count))
        for number, data in found.items()
        if data is not None
    }


def fold(directory: JobDirectory) -> Records:
    """Record what the parts of a job come to where a job without parts has it, and return it; leave the parts there.

    It is for who holds the lease of the directory alone. Doing so again changes nothing.
    """
    records = recorded(directory)
    if records.failures or directory.read("failures.json"):
        directory.save_failures(records.failures)
    for stage, ledger in records.ledgers.items():
        ledger.save(directory.ledger(stage))
    directory.write("totals.json", records.totals)
    return records


def settle(directory: JobDirectory) -> None:
    """Do away with the parts that drivers have left which shared the job, keeping what is recorded in them."""
    if directory.read("parts.json") is not None:
        fold(directory)
        directory.forget_parts()
