"""Waiting for the first worker of a batch system, whose jobs may be queued for hours, or fail at once."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from distributed import Client

from daskflow.clusters.batch_systems import System
from daskflow.errors import JobError

_log = logging.getLogger(__name__)

_LOOK = 5.0  # seconds between looks at the queue
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
        states = _states(system, jobs)
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


def _arrived(client: Client) -> bool:
    try:
        client.wait_for_workers(1, timeout=_LOOK)
    except TimeoutError:
        return False
    return True


def _states(system: System, jobs: Sequence[str]) -> list[str] | None:
    """Return state and reason of the jobs that are in the queue, each once; None where that cannot be known."""
    if not system.queue:
        return None
    command = [*system.queue, ",".join(jobs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and "invalid job id" not in done.stderr.lower():
        return None
    return sorted({line.partition(" ")[2].replace(" (None)", "") for line in done.stdout.splitlines()})


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
