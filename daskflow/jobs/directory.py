"""What a job keeps beside its output: its description, ledgers, failures, totals and report, all as JSON and zarr."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import daskflow
from daskflow.errors import JobError
from daskflow.geometry import BlockGrid, BoundingBox, as_zyx
from daskflow.jobs.report import Failure, Report
from daskflow.jobs.shapes import fits, from_json
from daskflow.redaction import redact, redacted
from daskflow.stores import kvstore
from daskflow.volume.stage import Output

_FORMAT = 1
_IN_PROCESS = "in-process.json"


@dataclass(frozen=True)
class _Described:
    """A stage in ``job.json``, as far as it is read."""

    grid: dict[str, Any]


@dataclass(frozen=True)
class _Job:
    """``job.json``, as far as it is read."""

    name: str
    stages: dict[str, _Described]
    command: list[str] | None = None
    run: str | None = None
    outputs: list[Output] | None = None


@dataclass(frozen=True)
class _Cut:
    """``parts.json``: which parts there are, and by stage how many blocks one has, and what was counted before."""

    run: str
    sizes: dict[str, int]
    totals: dict[str, dict[str, float]]


_KINDS: dict[str, Any] = {
    "job.json": _Job,
    "parts.json": _Cut,
    "failures.json": list[Failure],
    "totals.json": dict[str, dict[str, float]],
    "report.json": Report,
}


@dataclass(frozen=True)
class JobDirectory:
    """The place at a URL where a job keeps what must survive its driver."""

    url: str

    @property
    def scratch(self) -> str:
        """URL below which stages keep data for each other, until the job has succeeded."""
        return kvstore.join(self.url, "scratch")

    @property
    def lock(self) -> str:
        """URL of the object that says which driver runs the job."""
        return kvstore.join(self.url, "lock")

    def ledger(self, stage: str) -> str:
        """Return the URL of a stage's ledger."""
        return kvstore.join(self.url, "ledger", stage)

    def parts(self, run: str, stage: str) -> str:
        """Return the URL below which the parts of a stage lie that several drivers take in a run."""
        return kvstore.join(self.url, "parts", run, stage)

    def forget_parts(self) -> None:
        """Delete the parts of all stages."""
        kvstore.delete(kvstore.join(self.url, "parts.json"))
        kvstore.delete_tree(kvstore.join(self.url, "parts"))

    def read(self, name: str) -> Any:
        """Return the values of a JSON object, None when there is none; a damaged one is refused."""
        url = kvstore.join(self.url, name)
        data = kvstore.read_bytes(url)
        if data is None:
            return None
        reason = "it does not hold what it should"
        try:
            values = redacted(json.loads(data))  # it may come from a stranger
            if fits(values, _KINDS.get(name, Any)):
                return values
        except (ValueError, RecursionError) as error:
            reason = str(error)
        raise JobError(f"{url} is damaged ({reason}); delete {self.url} to start over")

    @property
    def outputs(self) -> list[Output]:
        """What its job makes; nothing where that is not stated."""
        stated = (self.read("job.json") or {}).get("outputs") or []
        return [from_json(Output, one) for one in stated]

    def write(self, name: str, values: Any) -> None:
        """Store JSON values as an object, atomically."""
        url = kvstore.join(self.url, name)
        kvstore.write_bytes(url, json.dumps(as_json(values), indent=1).encode())
        path = kvstore.local_path(url)
        if path is not None and name == "job.json":  # `retry` runs what it says if only its owner can have written it
            path.chmod(path.stat().st_mode & ~0o022)

    def claim(
        self,
        name: str,
        description: dict[str, Any],
        command: Sequence[str] | None,
        *,
        outputs: Sequence[Output] = (),
        anew: bool = False,
    ) -> None:
        """Store what job the directory is now: its name, description, command line and outputs.

        It is `anew` where an earlier run had ended the job, so that this one does not go on with it.
        """
        earlier = self.read("job.json")
        same = earlier is not None and earlier["stages"] == description and not anew
        values = {
            "format": _FORMAT,
            "daskflow": daskflow.__version__,
            "name": name,
            "user": user(),
            "command": None if command is None else [redact(word) for word in command],
            "run": earlier.get("run") if same else uuid.uuid4().hex,
            "outputs": [one.to_json() for one in outputs],
            "stages": description,
        }
        if earlier != values:
            self.write("job.json", values)

    def clear(self) -> None:
        """Forget every earlier run: all but the lock and the description, which holds until the next claim."""
        self.forget_report()
        self.forget_parts()
        kvstore.delete_tree(kvstore.join(self.url, "ledger"))
        for name in ("failures.json", "totals.json"):
            kvstore.delete(kvstore.join(self.url, name))
        kvstore.delete_tree(self.scratch)

    @property
    def died_in_process(self) -> bool:
        """Whether the last driver that ran blocks itself, in threads, died without a word."""
        return self.read(_IN_PROCESS) is not None

    @contextlib.contextmanager
    def in_process(self) -> Iterator[None]:
        """Remember, while entered, that blocks run in the driver itself, which one of them may kill."""
        self.write(_IN_PROCESS, {"pid": os.getpid()})
        try:
            yield
        finally:
            self.forget_death()

    def forget_death(self) -> None:
        """Let blocks run in the driver itself again."""
        kvstore.delete(kvstore.join(self.url, _IN_PROCESS))

    def forget_report(self) -> None:
        """Delete the report of an earlier run."""
        kvstore.delete(kvstore.join(self.url, "report.json"))

    def load_failures(self) -> list[Failure]:
        """Return the blocks that failed and were not retried yet, as far as they were recorded."""
        return [from_json(Failure, values) for values in self.read("failures.json") or []]

    def save_failures(self, failures: Sequence[Failure]) -> None:
        """Store the blocks that failed."""
        self.write("failures.json", [asdict(failure) for failure in failures])

    def load_report(self) -> Report | None:
        """Return the report of the last run that ended, None when none did since the last one began."""
        values = self.read("report.json")
        return None if values is None else from_json(Report, values)

    def save_report(self, report: Report) -> None:
        """Store a report; its results must be JSON values."""
        self.write("report.json", asdict(report))


def as_json(values: Any) -> Any:
    """Return values as they are stored: as JSON has them, and without secrets."""
    return redacted(json.loads(json.dumps(values, default=_plain)))


def _plain(value: Any) -> Any:
    """Return numpy's numbers and arrays as JSON has them, and other things by their text."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def load_grid(values: dict[str, Any]) -> BlockGrid:
    """Return the grid that `describe_stages` described."""
    try:
        box, block, origin = values["box"], as_zyx(values["block"], name="block"), as_zyx(values["origin"])
        return BlockGrid(BoundingBox.from_string(box), block, origin)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise JobError(f"a job's description is damaged: {values} is not a grid of blocks") from error


def user() -> str:
    """Return who runs this process, as far as the system knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
