"""How a job stands, read from its directory by anybody, while it runs or afterwards."""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass
from typing import Any, Literal

from daskflow.config import Summary
from daskflow.errors import JobError, StoreNotFoundError
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.lock import Holder, holder_of
from daskflow.jobs.outputs import jobs_of
from daskflow.jobs.parts import recorded
from daskflow.jobs.report import Failure, StageReport, causes, counted
from daskflow.stores import kvstore
from daskflow.stores.opening import split_dataset, split_prefix
from daskflow.volume.stage import Output

_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, repr=False)
class Status(Summary):
    """How a job stands, as of the last time its driver saved its ledger (every few seconds).

    Attributes:
        name: the job's.
        directory: where it keeps its ledger.
        state: running, finished, failed (blocks failed for good) or unfinished.
        stages: blocks by state and sums of counts; the rest of each report is empty.
        failures: the blocks that failed for good, as far as they are recorded.
        command: the command line that made the job, None when it was made in Python.
        holder: the driver that runs it, None when none does.
        results: what the finished job found.
        outputs: what the job makes.
    """

    header = ("stage", "blocks", "done", "empty", "failed", "pending", "part")

    name: str
    directory: str
    state: Literal["running", "finished", "failed", "unfinished"]
    stages: tuple[StageReport, ...]
    failures: tuple[Failure, ...]
    command: tuple[str, ...] | None
    holder: Holder | None
    results: dict[str, Any]
    outputs: tuple[Output, ...] = ()

    @property
    def next_step(self) -> str:
        """What to do next, for people."""
        if self.state == "running":
            return f"being run by {self.holder}"
        if self.state == "finished":
            return "nothing is left to do"
        if self.state == "failed":
            return f"to run the failed blocks again: daskflow retry {self.directory}"
        again = shlex.join(self.command) if self.command else "run the job again in Python: job.run(client)"
        return f"to go on: {again}"

    def summary(self) -> tuple[str, list[tuple[str, ...]], list[str]]:
        rows = []
        for stage in self.stages:
            part = (stage.done + stage.empty) / max(1, stage.blocks)
            counts = (stage.blocks, stage.done, stage.empty, stage.failed, stage.pending)
            rows.append((stage.name, *(f"{count:,}" for count in counts), f"{part:.1%}"))
        notes = counted(self.stages)
        notes += [f"{name.replace('_', ' ')}: {_told(value)}" for name, value in self.results.items()]
        made = dict.fromkeys(map(str, self.outputs))
        notes += [f"makes {', '.join(made)}"] if made else []
        return f"{self.name}: {self.state}", rows, [*notes, *causes(self.failures), self.next_step]


def _told(value: Any) -> str:
    """Return one of the results of a job in a line."""
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_told(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def status(directory: str) -> Status:
    """Return how the job of a directory stands; the URL of its output will do, too.

    Raises:
        StoreNotFoundError: no job was ever run there.
    """
    home = find(directory)
    job = home.read("job.json")
    records = recorded(home)
    stages = tuple(ledger.report(name, records.totals.get(name, {})) for name, ledger in records.ledgers.items())
    holder = holder_of(home.lock)
    if holder is not None and holder.alive is False:
        holder = None
    report = home.load_report()
    failed = any(stage.failed for stage in stages)
    finished = report is not None and report.ok and not any(stage.failed or stage.pending for stage in stages)
    return Status(
        name=job["name"],
        directory=home.url,
        state="running" if holder else "finished" if finished else "failed" if failed else "unfinished",
        stages=stages,
        failures=tuple(records.failures),
        command=None if job["command"] is None else tuple(job["command"]),
        holder=holder,
        results={} if report is None else report.results,
        outputs=tuple(home.outputs),
    )


def find(directory: str) -> JobDirectory:
    """Return the job directory at a URL, or that of the job which made an output at that URL.

    It is refused where several jobs made parts of the output, e.g. levels and meshes, and none the output itself.
    """
    url = _place(directory)
    for candidate in (url, f"{url}.daskflow", f"{kvstore.resolved(url)}.daskflow"):
        if kvstore.exists(kvstore.join(candidate, "job.json")):
            return JobDirectory(candidate)
    parts = jobs_of(url)
    if not parts:
        raise StoreNotFoundError(f"no job was run in {url} or {url}.daskflow: neither has a job.json")
    if len(parts) > 1:
        raise JobError("\n  ".join([f"several jobs made parts of {url}; name one of:", *(job.url for job in parts)]))
    return parts[0]


def find_all(directory: str) -> list[JobDirectory]:
    """Return the job directory at a URL, or those of all jobs which made an output at that URL or parts of it."""
    parts = jobs_of(_place(directory))
    return parts or [find(directory)]


def _place(named: str) -> str:
    """Return the URL of a layer or file, of which a format or dataset may be named."""
    return kvstore.normalise(split_dataset(split_prefix(named)[1])[0])


def own_command(directory: str) -> list[str]:
    """Return the words of the command line that made the job of a directory, for it to be run again.

    It is refused unless this user wrote it on a local disk: a stranger's is not to be run unread.
    """
    home = find(directory)
    command: list[str] | None = home.read("job.json")["command"]
    if command is None:
        raise JobError(f"{home.url} was made in Python; call job.run(client, retry_failed=True) there")
    url = kvstore.join(home.url, "job.json")
    path = kvstore.local_path(url)
    state = None if path is None else path.lstat()
    if state is None or not stat.S_ISREG(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & _OF_OTHERS:
        line = shlex.join([*command[:1], "--retry-failed", *command[1:]])
        raise JobError(
            f"{url} is not a file that only you can have written on a disk of this machine, so its command is not run;"
            f" if you trust it, type:\n  {line}"
        )
    return command
