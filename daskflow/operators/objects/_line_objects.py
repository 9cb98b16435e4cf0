"""Files of the objects that a line passes on beside volumes: which one a task's box means, and the job that writes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daskflow.errors import StoreNotFoundError
from daskflow.geometry import BoundingBox
from daskflow.jobs import Job
from daskflow.stores import kvstore
from daskflow.stores.opening import begins_with_box
from daskflow.volume import BlockResult, Stage, Task, numbered
from daskflow.volume.stage import Output

_ENDINGS = (".h5", ".hdf5", ".json")


@dataclass(frozen=True)
class WriteFiles(Task):
    """Write whole files; the one block is all of them.

    Attributes:
        files: URLs and contents.
    """

    files: tuple[tuple[str, bytes], ...]

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        for url, data in self.files:
            kvstore.write_bytes(url, data)
        return BlockResult(counts={"files": len(self.files), "bytes": sum(len(data) for _, data in self.files)})

    def check(self) -> None:
        for place in {url.rpartition("/")[0] for url, _ in self.files}:
            kvstore.check_writable(place)

    def intact(self) -> bool:
        return all(kvstore.exists(url) for url, _ in self.files)

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for url, data in self.files:
            digest.update(f"{url} {len(data)} ".encode() + data)
        return {"does": "WriteFiles", "files": digest.hexdigest()}


def writing_job(name: str, place: str, files: Sequence[tuple[str, bytes]], kind: str = "file") -> Job:
    """Return the job that writes files; `place` is the one file, or the directory of all."""
    stage = Stage(name.replace(" ", "-"), numbered(1), WriteFiles(tuple(files)), numbered=True)
    return Job((stage,), f"{place}.daskflow/", name=name, makes=(Output(place, kind),), renewable=True)


def file_to_write(path: str) -> str:
    """Return the URL of a file of synapses or points, which ends in .h5 unless said otherwise."""
    url = kvstore.normalise(path)
    return url if url.endswith(_ENDINGS) else f"{url}.h5"


def file_to_read(path: str, box: BoundingBox | None, suffix: str | None) -> str:
    """Return the URL of a file, or of the one that a directory or a prefix means for a box, as chunkflow names it.

    Raises:
        StoreNotFoundError: there is none of these.
    """
    url = kvstore.normalise(path)
    if url.endswith(_ENDINGS) or box is None:
        return url
    stem = kvstore.normalise(begins_with_box(path, box))
    names = [f"{stem}{suffix}"] if suffix is not None else [stem, *(f"{stem}{ending}" for ending in _ENDINGS)]
    found = next((name for name in names if kvstore.exists(name)), None)
    if found is None:
        raise StoreNotFoundError(f"none of {', '.join(map(kvstore.redact, names))} is there; name it, or its suffix")
    return found


def required_bytes(url: str) -> bytes:
    """Return the content of a file that must be there."""
    data = kvstore.read_bytes(url)
    if data is None:
        raise kvstore.missing(url)
    return data
