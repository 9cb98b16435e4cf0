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
from collections.abc import Sequence
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


@dataclass(frozen=True)
class Holder:
    """The driver that holds a lease, and what it writes or removes.

    Attributes:
        started: when its process began, in seconds since its machine did; tells later ones of its number apart.
        key: tells leases apart.
        beat: how often the lease was renewed; clocks of different machines are never compared.
        place: within which process numbers mean something: the boot and the process namespace of the machine.
    """

    host: str
    pid: int
    started: float
    user: str
    key: str
    beat: int = 0
    place: str = ""
    writes: list[Output] = field(default_factory=list)

    @classmethod
    def here(cls, writes: Sequence[Output] = ()) -> Self:
        """Return this process as a holder."""
        pid, key = os.getpid(), uuid.uuid4().hex
        return cls(socket.gethostname(), pid, _started(pid) or 0.0, user(), key, place=_place(), writes=list(writes))

    @property
    def alive(self) -> bool | None:
        """Whether the process lives; None when it is on another machine, or in another container of this one's name."""
        if (self.host, self.place) != (socket.gethostname(), _place()):
            return None
        started = _started(self.pid)
        return started is not None and abs(started - self.started) < _SLACK

    def __str__(self) -> str:
        return f"{self.user} on {self.host}, process {self.pid}"


def holder_of(url: str) -> Holder | None:
    """Return who holds the lease at a URL, None when nobody does."""
    data = kvstore.read_bytes(url)
    if data is None:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(data)
        if fits(values, Holder):
            holder: Holder = from_json(Holder, values)
            return holder
    return Holder("unknown", 0, 0.0, "unknown", "", hash(data))


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

    Raises:
        LockedJobError: on entering, when another driver holds it.
    """

    def __init__(self, url: str, *, interval: float = 5.0, writes: Sequence[Output] = ()) -> None:
        self._url = url
        self._interval = interval
        self._me = Holder.here(writes)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="daskflow-lease", daemon=True)
        self.lost: str | None = None

    def __enter__(self) -> Self:
        while not kvstore.write_if_absent(self._url, self._encoded()):
            seen = holder_of(self._url)
            holder = living(self._url, self._interval)
            if holder is not None:
                raise LockedJobError(
                    f"{self._url.removesuffix('/lock')} is being run by {holder}; wait for it, or stop it and run again"
                )
            if seen is not None and holder_of(self._url) == seen:
                kvstore.delete(self._url)
        self._thread.start()
        return self

    def _encoded(self) -> bytes:
        return json.dumps(asdict(self._me)).encode()

    def _renew(self) -> None:
        while not self._end.wait(self._interval):
            try:
                holder = holder_of(self._url)
                if holder is None or holder.key != self._me.key:
                    self.lost = "nobody" if holder is None else str(holder)
                    return
                self._me = replace(self._me, beat=self._me.beat + 1)
                kvstore.write_bytes(self._url, self._encoded())
            except DaskflowError:
                continue  # the store does not answer; the next renewal may

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        try:
            holder = holder_of(self._url)
            if holder is not None and holder.key == self._me.key:
                kvstore.delete(self._url)
                kvstore.drop_empty(self._url.rpartition("/")[0])
        except DaskflowError:
            if error is None:
                raise


@functools.cache
def _place() -> str:
    """Return what tells this boot of a machine, and this container on it, from others of its name; "" if unknown."""
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
