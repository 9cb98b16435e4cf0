"""Where data came from: what is stored beside them once they are complete."""

from __future__ import annotations

import platform
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import daskflow
from daskflow.jobs.directory import JobDirectory, user
from daskflow.jobs.evaluate import sources
from daskflow.jobs.report import Finish, Report
from daskflow.plugins import versions
from daskflow.stores import kvstore
from daskflow.stores.states import add_note
from daskflow.volume import Volume

_PACKAGES = (
    "numpy",
    "dask",
    "distributed",
    "tensorstore",
    "zarr",
    "scipy",
    "scikit-image",
    "connected-components-3d",
    "torch",
)


def provenance(report: Report) -> dict[str, Any]:
    """Return who made the data of a finished job, when, with what, and how, as JSON values without secrets.

    The parameters are the descriptions of the stages, as the job's fingerprint has them.
    """
    job = JobDirectory(report.directory).read("job.json") or {}
    return {
        **circumstances(),
        "job": report.name,
        "run": job.get("run"),
        "command": job.get("command"),
        "parameters": job.get("stages"),
        "blocks": {stage.name: {"done": stage.done, "empty": stage.empty} for stage in report.stages},
        "counts": report.counts,
        "results": report.results,
        "warnings": list(report.warnings),
    }


def circumstances() -> dict[str, Any]:
    """Return who does something, when and with what, as JSON values."""
    return {
        "software": "daskflow",
        "version": daskflow.__version__,
        "packages": versions(_PACKAGES),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "user": user(),
        "host": socket.gethostname(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@dataclass(frozen=True)
class WriteProvenance(Finish):
    """Writes what `provenance` returns with the data: the last thing that a finished job does.

    Precomputed layers have a file ``provenance`` in CloudVolume's form, to whose ``processing`` the job is added, other
    data a file ``<name>.provenance.json`` beside them. A run whose last steps are repeated has one entry still. As many
    levels as `levels` were written, from `mip` on; what other levels are read for does not change with them.
    """

    provenance: str
    mip: int = 0
    levels: int = 1

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        record = {**provenance(report), "mip": self.mip}
        if self.levels > 1:
            record["mips"] = list(range(self.mip, self.mip + self.levels))
        add_note(self.provenance, record)


@dataclass(frozen=True)
class NoteInSource(Finish):
    """Adds to the provenance of a layer what a finished job made of it; what is read there does not change with it."""

    provenance: str
    target: str

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        record = {**provenance(report), "mip": None, "written_to": kvstore.redact(self.target)}
        add_note(self.provenance, record)


def notes_in_sources(volume: Volume, target: str) -> tuple[NoteInSource, ...]:
    """Return what notes, in the provenance of every layer that a volume is read from, that `target` was made of it."""
    stores = [node.store for node in sources(volume)]
    layers = {store.opened.url: store for store in stores if store.opened is not None}
    for url in layers:
        kvstore.refuse_http(url)
    return tuple(NoteInSource(store.provenance_url(url), target) for url, store in layers.items())
