"""One driver at a time: a lease on the job directory that a living driver renews."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from daskflow.errors import DaskflowError, LockedJobError
from daskflow.jobs.directory import user
from daskflow.jobs.shapes import fits, from_json
from daskflow.stores import kvstore
from daskflow.volume.stage import Output

_SLACK = 1.0
_PATIENCE = 0.2  # seconds between looks at who prepares, or ends, a shared job


@dataclass(frozen=True)
class Holder:
    """The driver that holds a lease, and what it writes or removes.

    Attributes:
        started: when its process began, in seconds since its machine did; differs for later processes of its number.
        key: identifies the lease.
        beat: how often the lease was renewed; clocks of different machines are never compared.
        place: within which process numbers mean something: the boot and the process namespace of the machine.
        sharing: whether drivers that share the job may join it, or wait until they can.
        members: the drivers that hold it together, if they do; any of them renews it.
    """

    host: str
    pid: int
    started: float
    user: str
    key: str
    beat: int = 0
    place: str = ""
    writes: list[Output] = field(default_factory=list)
    sharing: bool = False
    members: list[Holder] = field(default_factory=list)

    @classmethod
    def here(cls, writes: Sequence[Output] = (), *, sharing: bool = False) -> Self:
        """Return this process as a holder."""
        pid, key = os.getpid(), uuid.uuid4().hex
        host, started = socket.gethostname(), _started(pid) or 0.0
        return cls(host, pid, started, user(), key, place=_place(), writes=list(writes), sharing=sharing)

    @property
    def member(self) -> Self:
        """The same driver, as one of those that hold a lease together."""
        return replace(self, writes=[], members=[])

    @property
    def alive(self) -> bool | None:
        """Whether the process lives; None when it is on another machine, or in another container of this one's name.

        Of several that hold it together, whether any lives.
        """
        if self.members:
            lives = {one.alive for one in self.members}
            return True if True in lives else None if None in lives else False
        if (self.host, self.place) != (socket.gethostname(), _place()):
            return None
        started = _started(self.pid)
        return started is not None and abs(started - self.started) < _SLACK

    @property
    def name(self) -> str:
        """The process, for people."""
        return f"{self.user} on {self.host}, process {self.pid}"

    def __str__(self) -> str:
        if not self.sharing:
            return self.name
        first, *others = self.members or [self]
        more = f", and {len(others)} more" if others else ""
        return f"{first.name}{more} (shared: others join with --share)"


def holder_of(url: str) -> Holder | None:
    """Return who holds the lease at a URL, None when nobody does."""
    data = kvstore.read_bytes(url)
    return None if data is None else _decoded(data)


def _decoded(data: bytes) -> Holder:
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(data)
        if fits(values, Holder):
            holder: Holder = from_json(Holder, values)
            return holder
    return Holder("unknown", 0, 0.0, "unknown", "", hash(data))


def _encoded(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def living(url: str, interval: float = 5.0) -> Holder | None:
    """Return who holds the lease at a URL and lives, which takes three intervals to see of another machine's."""
    holder = holder_of(url)
    if holder is None or holder.alive is False:
        return None
    end = time.monotonic() + (3 * interval if holder.alive is None else 0)
    now: Holder | None = holder
    while now == holder and time.monotonic() < end:
        time.sleep(interval / 5)
        now = holder_of(url)
    return now if holder.alive or now != holder else None


class Lease:
    """A lease at a URL, renewed by a thread for as long as the context is entered; it says what is written meanwhile.

    A lease whose process died on this machine, since it was booted and in the same container, is taken over at once;
    any other when it was not renewed for three intervals, in seconds. A local directory that holds nothing else is
    removed with the lease.

    Drivers that share a job hold its lease together: the first has it alone until `share`, those that come later join
    it then, and one of them has it `alone` in the end.

    Attributes:
        joined: whether others held it when this driver came.
        lost: who holds it instead, once that was noticed.
    """

    def __init__(
        self, url: str, *, interval: float = 5.0, writes: Sequence[Output] = (), sharing: bool = False
    ) -> None:
        self._url = url
        self._interval = interval
        self.me = Holder.here(writes, sharing=sharing)
        self._beat = -1
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="daskflow-lease", daemon=True)
        self.joined = False
        self.lost: str | None = None

    def __enter__(self) -> Self:
        while not self._take():
            pass
        self._thread.start()
        return self

    def _take(self) -> bool:
        """Try to hold the lease, or to join those who share it."""
        if kvstore.write_if_absent(self._url, _encoded(self.me)):
            return True
        seen = kvstore.read_bytes(self._url)
        holder = living(self._url, self._interval)
        if holder is None:
            return seen is not None and kvstore.replace(self._url, seen, _encoded(self.me))
        if not (self.me.sharing and holder.sharing):
            alone = ", and not shared" if self.me.sharing else ""
            raise LockedJobError(
                f"{self._url.removesuffix('/lock')} is being run by {holder}{alone}; wait for it, or stop it and run"
                " again"
            )
        self.joined = self._join()
        if not self.joined:
            time.sleep(_PATIENCE)
        return self.joined

    def _join(self) -> bool:
        """Become one of those that share the lease; return whether that was possible."""
        data = kvstore.read_bytes(self._url)
        holder = None if data is None else _decoded(data)
        if holder is None or not holder.members:
            return False
        return kvstore.replace(self._url, data, _encoded(replace(holder, members=[*holder.members, self.me.member])))

    def share(self) -> None:
        """Let others join from now on."""
        self._change(lambda holder: replace(holder, members=[self.me.member]))

    def alone(self) -> bool:
        """Have to oneself what was shared, and return whether this driver has; of those that share it one may."""
        return self._change(lambda holder: replace(self.me, beat=holder.beat + 1))

    def _change(self, change: Callable[[Holder], Holder | None]) -> bool:
        """Store what is made of the holder, None for nothing; return whether that was possible: it is still held."""
        while True:
            data = kvstore.read_bytes(self._url)
            holder = None if data is None else _decoded(data)
            if holder is None or self.me.key not in (holder.key, *(one.key for one in holder.members)):
                self.lost = "nobody" if holder is None else str(holder)
                return False
            after = change(holder)
            if after is holder or kvstore.replace(self._url, data, None if after is None else _encoded(after)):
                return True

    def _renew(self) -> None:
        while self.lost is None and not self._end.wait(self._interval):
            with contextlib.suppress(DaskflowError):  # the store does not answer; the next renewal may
                self._change(self._renewed)

    def _renewed(self, holder: Holder) -> Holder:
        if holder.members and holder.beat != self._beat:  # another of them has renewed it
            self._beat = holder.beat
            return holder
        self._beat = holder.beat + 1
        return replace(holder, beat=self._beat)

    def _left(self, holder: Holder) -> Holder | None:
        others = [one for one in holder.members if one.key != self.me.key]
        return replace(holder, members=others) if others else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        try:
            if self._change(self._left):
                kvstore.drop_empty(self._url.rpartition("/")[0])
        except DaskflowError:
            if error is None:
                raise


@functools.cache
def _place() -> str:
    """Return what identifies this boot of a machine, and this container on it; "" if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> float | None:
    """Return when a process of this machine began, None when there is no such process or it is a zombie.

    Linux counts from when the machine began, which setting the clock does not change.
    """
    if sys.platform == "linux":
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "ZX" else int(fields[18]) / os.sysconf("SC_CLK_TCK")
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None
