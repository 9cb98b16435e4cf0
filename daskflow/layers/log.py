"""How long tasks took: logs as chunkflow keeps them beside a layer, and what many of them come to."""

from __future__ import annotations

import html
import json
import math
import platform
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskflow.config import format_seconds, text_table
from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.report import Finish, Report
from daskflow.stores import kvstore
from daskflow.stores.figure import svg
from daskflow.volume.stage import place_of

_ALL = "complete_task"
_HEADER = ("compute device", "step", "tasks", "mean", "max", "min", "total")
_BAR, _ROW, _LEFT = 400, 22, 320  # pixels of a plot


def compute_device() -> str:
    """Return what this process computes on: the name of the GPU that torch uses here, or else of the processor."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    cpus = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpus.read_text(), re.MULTILINE) if cpus.is_file() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


@dataclass(frozen=True)
class UploadLog(Finish):
    """Stores the seconds that writing a box of a level took, in ``log/z0-z1_y0-y1_x0-x1.json`` in its layer.

    Attributes:
        step: what the log calls it, whatever its stage is called in a job of many.
    """

    url: str
    mip: int
    box: BoundingBox
    step: str

    def __call__(self, report: Report, directory: str) -> None:
        place = place_of(self.url)
        own = {
            one.stage
            for one in JobDirectory(directory).outputs
            if (one.url, one.mip) == (place, self.mip) and one.grid is not None and one.grid["box"] == str(self.box)
        }
        log = {
            "timer": {self.step: sum(stage.seconds for stage in report.stages if stage.name in own)},
            "compute_device": compute_device(),
            "bbox": str(self.box),
        }
        kvstore.write_bytes(kvstore.join(self.url, "log", f"{self.box}.json"), json.dumps(log, indent=1).encode())


@dataclass(frozen=True)
class _Log:
    """What is known of one task or job: seconds by step, and what it computed on."""

    seconds: dict[str, float]
    device: str


@dataclass(frozen=True)
class LogSummary:
    """What logs come to.

    Attributes:
        rows: by device and step: how many tasks, and their mean, greatest, least and total seconds.
        voxels: of the output of a task; 0 where that is not said.
        others: files that are not logs.
    """

    rows: dict[tuple[str, str], tuple[int, float, float, float, float]]
    voxels: int = 0
    others: int = 0

    def __str__(self) -> str:
        rows = [
            (device, step, f"{count:,}", *map(format_seconds, numbers))
            for (device, step), (count, *numbers) in self.rows.items()
        ]
        lines = [text_table(_HEADER, rows)]
        for (device, step), (_, mean, *_rest) in self.rows.items():
            if step == _ALL and self.voxels and mean:
                lines.append(f"{device}: {self.voxels / mean / 1e6:.3g} million voxels per second and task")
        if self.others:
            lines.append(f"{self.others:,} files are not logs")
        return "\n".join(lines)

    def plot(self, path: str) -> None:
        """Write a picture (SVG) of the mean seconds of every step, with lines from the least to the greatest."""
        longest = max(most for _, _, most, _, _ in self.rows.values()) or 1.0
        shapes = []
        for number, ((device, step), (_, mean, most, least, _)) in enumerate(self.rows.items()):
            y = _ROW * (number + 1)
            bar, low, high = (_BAR * value / longest for value in (mean, least, most))
            name = html.escape(f"{step}, {device}")
            shapes += [
                f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end">{name}</text>',
                f'<rect x="{_LEFT}" y="{y - 11}" width="{bar:.1f}" height="14" fill="#4477aa"/>',
                f'<line x1="{_LEFT + low:.1f}" x2="{_LEFT + high:.1f}" y1="{y - 4}" y2="{y - 4}" stroke="black"/>',
                f'<text x="{_LEFT + high + 6:.1f}" y="{y}">{format_seconds(mean)}</text>',
            ]
        picture = svg(shapes, _LEFT + _BAR + 90, _ROW * (len(self.rows) + 1))
        kvstore.write_bytes(kvstore.normalise(path), picture.encode())


def summarize_logs(log_dir: str, *, output_size: Sequence[int] | None = None) -> LogSummary:
    """Return what the logs of a directory come to: those of chunkflow and of `--upload-log`, and reports of jobs.

    Args:
        log_dir: directory of the logs, a layer that has one, or a job's directory.
        output_size: voxels that a task writes (zyx).

    Raises:
        ParameterError: there are no logs.
    """
    url = kvstore.normalise(log_dir)
    names = [name for name in kvstore.list_names(url) if name.endswith(".json") and "/scratch/" not in name]
    logs: list[_Log] = []
    others = 0
    for name in names:
        found = _read(kvstore.read_bytes(kvstore.join(url, *name.split("/"))))
        logs += [] if found is None else [found]
        others += found is None and name.count("/") == 0
    if not logs:
        raise ParameterError(f"there are no logs in {log_dir}; they are stored by save-precomputed --upload-log")
    devices = Counter(log.device for log in logs)
    rows = {}
    for device in devices:
        theirs = [log for log in logs if log.device == device]
        steps = dict.fromkeys(step for log in theirs for step in log.seconds)
        for step in (*steps, _ALL):
            values = [sum(log.seconds.values()) if step == _ALL else log.seconds.get(step) for log in theirs]
            known = [value for value in values if value is not None]
            rows[device, step] = (len(known), math.fsum(known) / len(known), max(known), min(known), math.fsum(known))
    return LogSummary(rows, math.prod(output_size) if output_size else 0, others)


def _read(data: bytes | None) -> _Log | None:
    """Return what a file says, None where it is not a log: chunkflow encodes uploaded ones twice."""
    try:
        values: Any = json.loads(data or b"null")
        values = json.loads(values) if isinstance(values, str) else values
        if isinstance(values, dict) and isinstance(values.get("timer"), dict):
            seconds = {str(step): float(value) for step, value in values["timer"].items()}
            return _Log(seconds, str(values.get("compute_device") or "unknown"))
        if isinstance(values, dict) and {"stages", "directory", "state"} <= set(values):
            seconds = {str(stage["name"]): float(stage["seconds"]) for stage in values["stages"]}
            return _Log(seconds, "unknown")
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return None
