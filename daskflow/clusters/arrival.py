"""Waiting for workers of a batch system, whose jobs may be queued for hours, or fail at once."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.core import Status
from tornado.ioloop import PeriodicCallback

from daskflow.clusters.batch_systems import System
from daskflow.errors import JobError

_log = logging.getLogger(__name__)

_LOOK = 5.0  # seconds between looks at the queue until the first worker is there
_WATCH = 60.0  # and then
_REMIND = 600.0
_TAIL = 15  # lines of a log


def await_worker(client: Client, kind: str, system: System, logs: Path) -> None:
    """Return when the first worker is there; say meanwhile what its jobs wait for.

    Raises:
        JobError: no job is left that could bring one.
    """
    started = time.time()
    told, told_at, gone = "", 0.0, 0
    while not _arrived(client):
        jobs = sorted(str(job.job_id) for job in client.cluster.workers.values())
        queued = _look_up(system, jobs)
        states = None if queued is None else sorted(set(queued.values()))
        gone = gone + 1 if states == [] else 0
        if gone > 1 and not _arrived(client):
            raise JobError(
                f"{kind}: {_named(jobs)} ended before a worker came; {_tail(logs, started)}\n"
                f"`daskflow clusters --show-script {kind}` shows the script"
            )
        now = f"{_named(jobs)}: {'; '.join(states)}" if states else f"{_named(jobs)}; see `{system.look}`"
        if states == []:
            continue
        if now != told or time.monotonic() - told_at > _REMIND:
            _log.warning("%s: waiting for the first worker of %s (Ctrl-C cancels)", kind, now)
            told, told_at = now, time.monotonic()


class QueueWatch:
    """Looks at the queue from time to time, and replaces jobs that ended before their workers came.

    Those of which a worker was there are replaced when it goes. What the jobs of a group wait for is said while none of
    its workers is there.

    Args:
        cluster: of the class that `replacing` makes.
        kind: its name.
        system: its batch system.
        logs: folder of what jobs print.
    """

    def __init__(self, cluster: Any, kind: str, system: System, logs: Path) -> None:
        self._cluster = cluster
        self._kind = kind
        self._system = system
        self._logs = logs
        self._gone: set[Any] = set()
        self._seen_at = time.time()
        self._looked_at = time.monotonic()
        self._told: dict[str, tuple[str, float]] = {}
        self._callback = PeriodicCallback(self._look, min(_LOOK, _WATCH) * 1000)
        cluster.loop.add_callback(self._callback.start)

    async def _look(self) -> None:
        if self._cluster.status != Status.running:
            self._callback.stop()
            return
        awaited = self._cluster.awaited_jobs()
        lacking = {group: jobs for group, jobs in self._cluster.jobs.items() if jobs and awaited.keys() >= set(jobs)}
        if not lacking and time.monotonic() - self._looked_at < _WATCH:
            return
        self._looked_at = time.monotonic()
        queued = await asyncio.to_thread(_look_up, self._system, list(awaited.values())) if awaited else None
        gone = set() if queued is None else {name for name, job in awaited.items() if job not in queued}
        for name in gone & self._gone & self._cluster.awaited_jobs().keys():
            what = f"{self._kind}: job {awaited[name]} ended before its worker came, and is replaced"
            _log.warning("%s; %s", what, _tail(self._logs, self._seen_at))
            self._cluster.forget(name)
            self._seen_at = time.time()
        self._gone = gone
        self._tell({group: [awaited[name] for name in jobs] for group, jobs in lacking.items()}, queued or {})

    def _tell(self, lacking: dict[str, list[str]], queued: dict[str, str]) -> None:
        """Say what groups without a worker wait for, where that has changed, or was said long ago."""
        self._told = {group: told for group, told in self._told.items() if group in lacking}
        for group, jobs in lacking.items():
            states = "; ".join(sorted({queued[job] for job in jobs if job in queued})) or f"see `{self._system.look}`"
            told, told_at = self._told.get(group, ("", 0.0))
            if states != told or time.monotonic() - told_at > _REMIND:
                named = f"{self._kind}, {group}" if group else self._kind
                _log.warning("%s: no worker is there; waiting for one of %s: %s", named, _named(jobs), states)
                self._told[group] = states, time.monotonic()


def _arrived(client: Client) -> bool:
    try:
        client.wait_for_workers(1, timeout=_LOOK)
    except TimeoutError:
        return False
    return True


def _look_up(system: System, jobs: Sequence[str]) -> dict[str, str] | None:
    """Return state and reason of those jobs that are in the queue; None where that cannot be known."""
    if not system.queue:
        return None
    command = [*system.queue, ",".join(jobs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and "invalid job id" not in done.stderr.lower():
        return None
    lines = (line.replace(" (None)", "").partition(" ") for line in done.stdout.splitlines())
    return {job: state for job, _, state in lines}


def _named(jobs: Sequence[str]) -> str:
    shown = ", ".join(jobs[:3]) + (f" and {len(jobs) - 3} more" if len(jobs) > 3 else "")
    return f"job{'s' * (len(jobs) != 1)} {shown}"


def _tail(logs: Path, since: float) -> str:
    """Return the last lines of what the newest job has printed."""
    files = [(path.stat(), path) for path in logs.glob("[!.]*") if path.is_file()]
    written = [(status.st_mtime, path) for status, path in files if status.st_size and status.st_mtime >= since - 1]
    if not written:
        return f"it wrote nothing to {logs}; that folder must be on a disk that the nodes share"
    _, newest = max(written)
    return f"the last lines of {newest}:\n" + "\n".join(newest.read_text(errors="replace").splitlines()[-_TAIL:])
