"""What came out of a run, and what is done with it in the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from daskflow.config import Summary, format_bytes, format_count, format_seconds, text_table
from daskflow.volume.stage import Bound

_MOST_CAUSES = 8
_MOST_BAD = 5
_REPAIR = "the blocks in which these lie are marked as not done: the same line, run again, recreates only them"

State = Literal["finished", "failed", "stopped", "interrupted"]


@dataclass(frozen=True)
class Failure:
    """A block that raised, or that ended its worker.

    Attributes:
        stage: name of the stage.
        index: number of the block in the stage's grid.
        box: its voxels, ``z0-z1_y0-y1_x0-x1``.
        exception: type of what was raised, "KilledWorker" when the worker died.
        message: its text.
        traceback: where it was raised.
        attempts: how often the block was tried.
        worker: host and process of the last try.
        systemic: whether other blocks would fail alike, e.g. for want of disk space.
    """

    stage: str
    index: int
    box: str
    exception: str
    message: str
    traceback: str = ""
    attempts: int = 1
    worker: str = ""
    systemic: bool = False


@dataclass(frozen=True)
class StageReport:
    """What came out of one stage.

    Attributes:
        name: the stage's.
        blocks: in its grid.
        done: blocks computed and stored, by this run or an earlier one.
        empty: blocks in which every voxel is background, likewise.
        failed: blocks that failed for good.
        skipped: blocks among done and empty that an earlier run had computed.
        counts: sums of what blocks counted, e.g. missing chunks, over all runs.
        seconds: wall time in which blocks of it were in flight in this run.
        voxels: voxels of the blocks that this run computed.
        bytes_read: what reading them took, uncompressed, as planned.
        bytes_written: likewise.
        retries: how often this run tried blocks again.
        lost_workers: workers that went away during this run.
        memory: peak resident bytes of a worker process.
    """

    name: str
    blocks: int
    done: int = 0
    empty: int = 0
    failed: int = 0
    skipped: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    voxels: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    retries: int = 0
    lost_workers: int = 0
    memory: int = 0

    @property
    def pending(self) -> int:
        """Blocks that are neither done nor failed."""
        return self.blocks - self.done - self.empty - self.failed

    @property
    def voxels_per_second(self) -> float:
        """Voxels that this run computed per second of it."""
        return self.voxels / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, repr=False)
class Report(Summary):
    """What came out of a run.

    Attributes:
        name: the job's.
        directory: where it keeps its ledger.
        state: finished (every block is done), failed (some are not), stopped (by `fail_fast`) or interrupted.
        stages: one report each, in the order they run.
        failures: the blocks that failed for good, as far as they are recorded.
        results: what the job's `finish` functions found, JSON values by name.
        warnings: what was taken for granted, a line each.
        already_done: an earlier run had finished the job, and this one did nothing.
        verified: what was read back, where that was all that was done.
        seconds: wall time of all stages, of which some may have run at the same time.
        drivers: how many blocks each did, where several shared the job.
    """

    header = (
        *("stage", "blocks", "done", "empty", "failed", "skipped"),
        *("time", "voxels/s", "retries", "lost workers", "peak"),
    )
    spared = ("empty", "failed", "skipped", "voxels/s", "retries", "lost workers")

    name: str
    directory: str
    state: State
    stages: tuple[StageReport, ...]
    failures: tuple[Failure, ...] = ()
    results: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    already_done: bool = False
    verified: Literal["", "blocks", "chunks"] = ""
    seconds: float = 0.0
    drivers: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every block of every stage is done."""
        return self.state == "finished"

    @property
    def counts(self) -> dict[str, int]:
        """Sums of what blocks counted, over all stages."""
        total: Counter[str] = Counter()
        for stage in self.stages:
            total.update(stage.counts)
        return dict(total)

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                stage.name,
                *(f"{n:,}" for n in (stage.blocks, stage.done, stage.empty, stage.failed, stage.skipped)),
                format_seconds(stage.seconds),
                format_count(stage.voxels_per_second) if stage.voxels else "-",
                str(stage.retries),
                str(stage.lost_workers),
                format_bytes(stage.memory),
            )
            for stage in self.stages
        ]

    @property
    def notes(self) -> list[str]:
        """What was counted, why blocks failed, and what to do next: a line each."""
        notes = counted(self.stages)
        if self.verified and self.failures:
            return [*notes, *_bad(self.failures), _REPAIR]
        notes += _shares(self.drivers)
        notes += causes(self.failures)
        notes += next_steps(self.state, self.stages, self.directory)
        return notes

    @property
    def headline(self) -> str:
        """The outcome in a line."""
        if self.already_done and self.ok:
            return f"{self.name}: already done, nothing was run"
        done = sum(stage.done + stage.empty for stage in self.stages)
        blocks = sum(stage.blocks for stage in self.stages)
        failed = sum(stage.failed for stage in self.stages)
        if self.verified:
            bad = f", {blocks - done:,} missing or damaged" if blocks > done else ""
            told = f"{done:,} of {blocks:,} {self.verified} are whole{bad}"
            return f"verified {self.name}: {told}, {format_seconds(self.seconds)}"
        tail = f", {failed:,} failed" if failed else ""
        return f"{self.name}: {self.state}, {done:,} of {blocks:,} blocks done{tail}, {format_seconds(self.seconds)}"

    @property
    def details(self) -> str:
        """What `str` has and the progress does not say when the job ends, for who sees both."""
        table = text_table(self.header, self._rows(), self.spared)
        return "\n".join([table, *(self.notes if self.ok else ()), *self.found])

    def summary(self) -> tuple[str, list[tuple[str, ...]], list[str]]:
        warnings = (f"warning: {line}" for line in self.warnings)
        return self.headline, self._rows(), [*warnings, *self.notes, *self.found]

    @property
    def found(self) -> list[str]:
        """A line for each of the results that no count says; those of a verification are lists of chunks."""
        lines = []
        groups = [name for name, value in self.results.items() if isinstance(value, dict)]
        by_stage = {stage.name for stage in self.stages}  # as some counts are
        for name, value in () if self.verified else self.results.items():
            if isinstance(value, dict) and value.keys() <= by_stage:
                continue
            if isinstance(value, list) and value and isinstance(value[0], dict):
                rows = [tuple(_told(found) for found in row.values()) for row in value]
                lines += [f"{name}:", text_table([one.replace("_", " ") for one in value[0]], rows)]
                continue
            if name in groups[1:] and any(self.counts.get(label) != found for label, found in value.items()):
                lines.append(f"{name.replace('_', ' ')}:")
            for label, found in value.items() if isinstance(value, dict) else [(name, value)]:
                if self.counts.get(label) == found:
                    continue
                told = ", ".join(map(str, found)) if isinstance(found, list) else found
                named = label.replace("_", " ")
                lines.append(f"  {named:<28}{told:.6g}" if isinstance(told, float) else f"  {named}: {told}")
        return lines


def _told(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def counted(stages: Sequence[StageReport]) -> list[str]:
    """Return a line for each count of each stage; alike lines of several stages name the stage."""
    found = [
        (stage.name, name.replace("_", " "), n) for stage in stages for name, n in sorted(stage.counts.items()) if n
    ]
    shared = {name for name, times in Counter(name for _, name, _ in found).items() if times > 1}
    return [f"{n:,} {name}{f' ({stage})' if name in shared else ''}" for stage, name, n in found]


def _shares(drivers: dict[str, int]) -> list[str]:
    """Return a line for each driver of a shared job, and one before them."""
    if not drivers:
        return []
    lines = [f"  {name}: {blocks:,} block{'s' * (blocks != 1)}" for name, blocks in sorted(drivers.items())]
    return [f"{len(drivers)} driver{'s' * (len(drivers) != 1)} took part:", *lines]


class Interrupted(KeyboardInterrupt):
    """A job that was stopped by Ctrl-C or SIGTERM, its ledger saved; a KeyboardInterrupt, so that nothing swallows it.

    Attributes:
        report: what was done until then.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(f"{report.headline}; {next_steps(report.state, report.stages, report.directory)[-1]}")
        self.report = report


def _bad(failures: Iterable[Failure]) -> list[str]:
    """Return a line for each of the first bad chunks, and how many more there are."""
    lines = [f"  {line}" for failure in failures for line in failure.message.splitlines()]
    more = len(lines) - _MOST_BAD
    return [*lines[:_MOST_BAD], *([f"  and {more:,} more; verify LAYER --list FILE lists all"] if more > 0 else [])]


def causes(failures: Iterable[Failure]) -> list[str]:
    """Return a line per kind of failure, the most frequent first, each with one block as an example."""
    groups: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        groups.setdefault((failure.stage, failure.exception), []).append(failure)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    lines = []
    for (stage, exception), group in ordered[:_MOST_CAUSES]:
        first = group[0]
        message = first.message.splitlines()[0][:300] if first.message else ""
        count = f"{len(group):,} block{'s' * (len(group) != 1)}"
        lines.append(f"{count} of {stage} failed: {exception}: {message} (e.g. block {first.index}, {first.box})")
    if len(ordered) > _MOST_CAUSES:
        lines.append(f"and {len(ordered) - _MOST_CAUSES} more causes, in failures.json")
    return lines


def next_steps(state: State, stages: Sequence[StageReport], directory: str) -> list[str]:
    """Return what to do next, for people; nothing when all is done."""
    if state == "finished":
        return []
    steps = []
    failed = sum(stage.failed for stage in stages)
    waiting = [stage.name for stage in stages if stage.pending and not stage.failed]
    if state == "failed" and failed and waiting:
        steps.append(f"not run, because what it comes after failed: {', '.join(waiting)}")
    if failed:
        steps.append(
            f"to run the {failed:,} failed block{'s' * (failed != 1)} again: daskflow retry {directory} "
            "(in Python: job.run(client, retry_failed=True))"
        )
    if state != "failed" or not failed:
        steps.append(f"to go on where it stopped, run the same again; see daskflow status {directory}")
    return steps


@dataclass(frozen=True)
class Finish(Bound, ABC):
    """A last step, in the driver's process; the next run does it again when this one dies before the report is stored.

    Attributes:
        reads_scratch: whether it needs scratch data, which are gone once the job is complete.
    """

    reads_scratch: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, report: Report, directory: str) -> None:
        """Do so for the job in `directory`, and add JSON values to `report.results`, which are stored with it."""
