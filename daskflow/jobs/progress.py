"""How far a job is: a bar in the terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from daskflow.config import format_count, format_seconds

if TYPE_CHECKING:
    from rich.progress import TaskID

_LINE_EVERY = 10.0
_LONG = 10.0  # seconds without a finished block, ...
_MUCH_LONGER = 3  # ... and times the mean of a block, after which its remaining time is anybody's guess
_NOTEBOOK_EVERY = 0.5


@dataclass(frozen=True)
class Snapshot:
    """How far a stage is.

    Attributes:
        stage: its name.
        blocks: in its grid.
        done: blocks done or empty, those of earlier runs included.
        failed: blocks that failed for good.
        ran: blocks that this run finished.
        voxels: voxels of those, 0 where a stage counts something else.
        seconds: in which blocks of the stage were in flight in this run.
        workers: worker processes at the moment.
        threads: those of all workers together.
        busy: seconds that the blocks took which this run finished, each counted for itself.
        silent: seconds since the last block was finished.
    """

    stage: str
    blocks: int
    done: int
    failed: int
    ran: int
    voxels: int
    seconds: float
    workers: int
    threads: int = 1
    busy: float = 0.0
    silent: float = 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds until the stage is done if its blocks take as long as those of this run; None before the first.

        What blocks that run have taken so far says nothing of the others, so it does not count.
        """
        if not self.ran or not self.seconds:
            return None
        apart = self.busy / self.threads if self.busy else self.seconds
        return (self.blocks - self.done - self.failed) * min(apart, self.seconds) / self.ran

    @property
    def stuck(self) -> bool:
        """Whether the blocks that run take much longer than those before them."""
        return bool(self.ran) and self.silent > max(_LONG, _MUCH_LONGER * self.busy / self.ran)

    def __str__(self) -> str:
        seconds = max(self.seconds, 1e-9)
        parts = [f"{self.stage}: {self.done:,} of {self.blocks:,} blocks"]
        if self.ran:
            parts.append(f"{format_count(self.ran / seconds)} blocks/s")
        if self.voxels:
            parts.append(f"{format_count(self.voxels / seconds)} voxels/s")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if not self.workers:
            parts.append("waiting for workers")
        elif self.stuck:
            parts.append(f"those that run take long: {format_seconds(self.silent)} so far")
        elif self.remaining:
            parts.append(f"{format_seconds(self.remaining)} left")
        return ", ".join(parts)


class Progress(Protocol):
    """Shows how far a job is; made by `progress_of`, or by the caller of `Job.run`."""

    def update(self, snapshot: Snapshot) -> None:
        """Show how far a stage is; called several times per second."""

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def close(self) -> None:
        """Show nothing more."""


def progress_of(choice: bool | Progress | None) -> Progress:
    """Return what shows progress: nothing for False, for None or True what suits where this process writes to."""
    if choice is False:
        return Silent()
    if choice is not None and choice is not True:
        return choice
    if _in_notebook():
        return Notebook()
    return Terminal() if sys.stderr.isatty() else Lines(sys.stderr)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class Silent:
    """Shows nothing."""

    def update(self, snapshot: Snapshot) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


class Lines(Silent):
    """A line every ten seconds for each stage that runs, for logs; only what is said for one that is over sooner."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shown: dict[str, float] = {}

    def update(self, snapshot: Snapshot) -> None:
        now = self._clock()
        if now - self._shown.setdefault(snapshot.stage, now) >= _LINE_EVERY:
            self._shown[snapshot.stage] = now
            self.say(str(snapshot))

    def say(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class Terminal:
    """A bar per stage, on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._bars.start()

    def update(self, snapshot: Snapshot) -> None:
        if snapshot.stage not in self._tasks:
            self._tasks[snapshot.stage] = self._bars.add_task(snapshot.stage, total=snapshot.blocks, text="")
        text = str(snapshot).removeprefix(f"{snapshot.stage}: ")
        self._bars.update(self._tasks[snapshot.stage], completed=snapshot.done + snapshot.failed, text=text)

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._bars.stop()


class Notebook:
    """The same as an HTML element that is updated in place."""

    def __init__(self) -> None:
        self._snapshots: dict[str, Snapshot] = {}
        self._lines: list[str] = []
        self._handle: Any = None
        self._shown = 0.0

    def update(self, snapshot: Snapshot) -> None:
        self._snapshots[snapshot.stage] = snapshot
        if time.monotonic() - self._shown > _NOTEBOOK_EVERY:
            self._show()

    def say(self, line: str) -> None:
        self._lines.append(line)
        self._show()

    def close(self) -> None:
        self._show()

    def _show(self) -> None:
        from IPython.display import HTML, display

        self._shown = time.monotonic()
        element = HTML(self._html())
        if self._handle is None:
            self._handle = display(element, display_id=True)
        else:
            self._handle.update(element)

    def _html(self) -> str:
        import html

        rows = [
            f'<div><progress value="{snapshot.done + snapshot.failed}" max="{max(1, snapshot.blocks)}"></progress> '
            f"{html.escape(str(snapshot))}</div>"
            for snapshot in self._snapshots.values()
        ]
        return "".join(rows) + "".join(f"<div>{html.escape(line)}</div>" for line in self._lines)
