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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from daskflow.errors import DaskflowError, LockedJobError
from daskflow.jobs.directory import user
from daskflow.stores import kvstore

_SLACK = 1.0


@dataclass(frozen=True)
class Holder:
    """The driver that holds a lease.

    Attributes:
        host: its machine.
        pid: its process there.
        started: when that process began, in seconds since its machine did; tells later ones of its number apart.
        user: who runs it.
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

    @classmethod
    def here(cls) -> Self:
        """Return this process as a holder."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _started(pid) or 0.0, user(), uuid.uuid4().hex, place=_place())

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
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        return Holder("unknown", 0, 0.0, "unknown", "", hash(data))


class Lease:
    """A lease at a URL, renewed by a thread for as long as the context is entered.

    A lease whose process died on this machine, since it was booted and in the same container, is taken over at once;
    any other when it was not renewed for three intervals. A local directory that holds nothing else is removed with
    the lease.

    Args:
        url: where the lease is kept.
        interval: seconds between renewals.

    Raises:
        LockedJobError: on entering, when another driver holds it.
    """

    def __init__(self, url: str, *, interval: float = 5.0) -> None:
        self._url = url
        self._interval = interval
        self._me = Holder.here()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="daskflow-lease", daemon=True)
        self.lost: str | None = None

    def __enter__(self) -> Self:
        while not kvstore.write_if_absent(self._url, self._encoded()):
            dead = self._wait_for_death()
            if dead is not None and holder_of(self._url) == dead:
                kvstore.delete(self._url)
        self._thread.start()
        return self

    def _encoded(self) -> bytes:
        return json.dumps(asdict(self._me)).encode()

    def _wait_for_death(self) -> Holder | None:
        """Return who held the lease once they are known to be dead, None when they gave it back meanwhile."""
        holder = holder_of(self._url)
        if holder is None or holder.alive is False:
            return holder
        if holder.alive is None:
            end = time.monotonic() + 3 * self._interval
            while time.monotonic() < end:
                time.sleep(self._interval / 5)
                now = holder_of(self._url)
                if now is None:
                    return None
                if now != holder:
                    holder = now
                    break
            else:
                return holder
        raise LockedJobError(
            f"{self._url.removesuffix('/lock')} is being run by {holder}; wait for it, or stop it and run again"
        )

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
                _remove_if_empty(kvstore.local_path(self._url))
        except DaskflowError:
            if error is None:
                raise


def _remove_if_empty(lock: Path | None) -> None:
    if lock is not None:
        with contextlib.suppress(OSError):
            lock.parent.rmdir()


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
