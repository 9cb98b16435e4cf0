"""How one of several drivers claims parts of a job, renews those that it has, and sees what others have done."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from daskflow.errors import DaskflowError, JobError
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.ledger import Ledger
from daskflow.jobs.lock import Holder
from daskflow.jobs.parts import Part, blocks_of
from daskflow.jobs.report import Failure
from daskflow.stores import kvstore
from daskflow.stores.local_files import flush

_ROUND = 0.1
_SAVE_EVERY = 2.0
_FIRST_PAUSE = 0.5
_MOST_LOOKS = 32  # parts read at a time by a driver that waits for others
_FEW_LOOKS = 4  # and by one that is busy

Event = tuple[Literal["claimed", "complete", "lost"], int, Part]


@dataclass
class _Kept:
    """A part that this driver holds: what is stored, when it was, and what is to be stored next."""

    data: bytes
    stored: Part
    at: float
    latest: Part


@dataclass
class _Seen:
    """A part that another driver holds: what was stored at the last look, and seconds for which it stood still."""

    data: bytes
    at: float
    still: float = 0.0


class Shelf:
    """The parts of one stage as one driver sees them.

    The driver asks for blocks by `ask`, says by `put` what became of those it has, and takes what has happened from
    `events`; all else is done by the thread of the `Keeper`.

    Attributes:
        size: blocks of a part.
        count: of the parts.
        leaving: set by the driver while it cannot run blocks: the parts that it holds are given back.
    """

    def __init__(
        self,
        directory: JobDirectory,
        cut: dict[str, Any],
        stage: str,
        ledger: Ledger,
        failures: Sequence[Failure],
        me: Holder,
    ) -> None:
        size: int = cut["sizes"][stage]
        self.size, self.count = size, -(-len(ledger) // size)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.leaving = False
        self._directory = directory
        self._cut = cut
        self._url = directory.parts(cut["run"], stage)
        self._blocks = len(ledger)
        self._first = ledger.copy()
        self._failures = [one for one in failures if one.stage == stage]
        self._me = me
        self._start = int(me.key, 16) % max(1, self.count)
        self._kept: dict[int, _Kept] = {}
        self._seen: dict[int, _Seen] = {}
        self._complete: set[int] = set()
        self._asked: int | None = None
        self._pause, self._next = _FIRST_PAUSE, 0.0
        for number in range(self.count):
            part = self._untouched(number)
            if part.complete:
                self._end(number, "complete", part)

    def blocks(self, number: int) -> range:
        """Return the blocks of a part."""
        return blocks_of(number, self.size, self._blocks)

    @property
    def idle(self) -> bool:
        """Whether nothing is asked for; then all that came of the last `ask` is among the events."""
        return self._asked is None

    def ask(self, blocks: int) -> None:
        """Ask for parts of so many blocks, and for what others have done."""
        self._asked = blocks

    def put(self, number: int, part: Part) -> None:
        """Have a part stored soon, if this driver still holds it."""
        kept = self._kept.get(number)
        if kept is not None:
            kept.latest = part

    def due(self, interval: float, *, release: bool) -> list[tuple[int, Part]]:
        """Return the parts that are to be stored now."""
        now = time.monotonic()
        return [
            (number, kept.latest)
            for number, kept in list(self._kept.items())
            if release
            or self.leaving
            or now - kept.at >= interval
            or (kept.latest is not kept.stored and (kept.latest.complete or now - kept.at >= _SAVE_EVERY))
        ]

    def store(self, number: int, part: Part, *, release: bool) -> None:
        """Store a part, and give it back if `release`; or notice that another driver has taken it."""
        kept = self._kept[number]
        release = release or self.leaving
        holder = None if release or part.complete else self._me
        data = replace(part, holder=holder, beat=kept.stored.beat + 1).encoded()
        stored = kvstore.replace(self._part(number), kept.data, data)
        if stored and part.complete:
            self._end(number, "complete", part)
        elif release or not stored:
            self._end(number, "lost", part)
        else:
            kept.data, kept.at = data, time.monotonic()
            kept.stored = replace(part, beat=kept.stored.beat + 1)
            if kept.latest is part:
                kept.latest = kept.stored

    def _end(self, number: int, how: Literal["complete", "lost"], part: Part) -> None:
        self._kept.pop(number, None)
        if how == "complete":
            self._complete.add(number)
        self._pause = _FIRST_PAUSE
        self.events.put((how, number, part))

    def look(self, interval: float) -> None:
        """Claim what was asked for, as far as it is free, and see what others have done."""
        wanted, now = self._asked, time.monotonic()
        if wanted is None or now < self._next:
            return
        self._pause = min(2 * self._pause, interval)
        names = set(kvstore.list_names(self._url))
        if self._directory.read("parts.json") != self._cut:
            return  # the job has ended while this process was stopped
        order = [(self._start + number) % self.count for number in range(self.count)]
        others = [number for number in order if number not in self._complete and number not in self._kept]
        for number in (one for one in others if str(one) not in names):
            if wanted <= 0:
                break
            wanted -= self._claim(number, None, self._untouched(number))
        looked = {number: seen.at for number, seen in self._seen.items()}
        known = sorted((one for one in others if str(one) in names), key=lambda one: looked.get(one, 0.0))
        for number in known[: _MOST_LOOKS if wanted > 0 else _FEW_LOOKS]:
            wanted -= self._look_at(number, interval, claim=wanted > 0)
        self._next = time.monotonic() + self._pause
        self._asked = None

    def _untouched(self, number: int) -> Part:
        blocks = self.blocks(number)
        failures = [one for one in self._failures if one.index in blocks]
        return Part.of(self._first.states(blocks), failures)

    def _look_at(self, number: int, interval: float, *, claim: bool) -> int:
        """See how another driver's part stands, and take it over if that driver is gone; return the blocks taken."""
        data = kvstore.read_bytes(self._part(number))
        if data is None:
            return 0
        part = Part.decoded(data, self._part(number), self.blocks(number))
        if part.complete:
            self._end(number, "complete", part)
            return 0
        now, seen = time.monotonic(), self._seen.get(number)
        if seen is None or seen.data != data:
            self._seen[number] = seen = _Seen(data, now)
        seen.still += min(now - seen.at, interval)  # this process may have been stopped, too
        seen.at = now
        gone = part.holder is None or part.holder.alive is False or seen.still >= 3 * interval
        return self._claim(number, data, part) if gone and claim else 0

    def _claim(self, number: int, old: bytes | None, part: Part) -> int:
        mine = replace(part, holder=self._me, beat=part.beat + 1)
        data = mine.encoded()
        if not kvstore.replace(self._part(number), old, data):
            return 0
        self._kept[number] = _Kept(data, mine, time.monotonic(), mine)
        self._pause = _FIRST_PAUSE
        self.events.put(("claimed", number, mine))
        return part.pending

    def _part(self, number: int) -> str:
        return kvstore.join(self._url, str(number))


class Keeper:
    """Keeps shelves while its context is entered, and gives back in the end what is not complete.

    Args:
        shelves: of the stages.
        places: what blocks are written to, which must be on disk before they are recorded.
        interval: seconds in which parts are renewed; one that was not for three of them is taken over.
    """

    def __init__(self, shelves: Iterable[Shelf], places: Iterable[str], *, interval: float = 5.0) -> None:
        self._shelves = list(shelves)
        self._places = set(places)
        self._interval = interval
        self._error: Exception | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="daskflow-parts", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def _keep(self) -> None:
        while not self._end.wait(_ROUND):
            try:
                self._store()
                for shelf in self._shelves:
                    shelf.look(self._interval)
            except Exception as error:  # noqa: BLE001 (raised where the driver asks)
                self._error = error
                return

    def _store(self, *, release: bool = False) -> None:
        due = [(shelf, one) for shelf in self._shelves for one in shelf.due(self._interval, release=release)]
        if due:
            flush(self._places)
        for shelf, (number, part) in due:
            shelf.store(number, part, release=release)

    def check(self) -> None:
        """Raise what has ended the thread.

        Raises:
            JobError: parts cannot be stored or read.
        """
        if self._error is not None:
            raise JobError(f"cannot keep parts of the job: {self._error}") from self._error

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        with contextlib.suppress(DaskflowError):  # they are taken over when they are not renewed
            self._store(release=True)
