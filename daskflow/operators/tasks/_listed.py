"""Boxes that are known, and the files and queues that they go to."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry import BoundingBox, as_zyx
from daskflow.operators.tasks._sqs import TaskQueue
from daskflow.stores import kvstore
from daskflow.volume import ListedTasks
from daskflow.volume.tasks import Boxes


@dataclass(frozen=True)
class PublishedTasks(ListedTasks):
    """Some of the boxes of a list, and where they are stored or sent.

    Attributes:
        chosen: their numbers.
        file_path: file in which they are stored.
        queue_name: queue to which they are sent, for other lines.
        visibility_timeout: seconds for which the queue hides a task from others, if it is made.
    """

    chosen: range
    file_path: str | None = None
    queue_name: str | None = None
    visibility_timeout: int = 3600

    @functools.cached_property
    def listed(self) -> Boxes:
        whole = self.chosen == range(len(self.boxes))
        return self.boxes if whole else tuple(self.boxes[number] for number in self.chosen)

    @property
    def elsewhere(self) -> bool:
        return self.queue_name is not None

    def publish(self, say: Callable[[str], None]) -> None:
        if self.file_path is not None:
            name = write_boxes(self.file_path, self.listed)
            say(f"{name}: {self.counted}")
        if self.queue_name is not None:
            queue = TaskQueue.make(self.queue_name, self.visibility_timeout)
            queue.send(self.listed)
            say(f"queue {self.queue_name}: {self.counted}")


def write_boxes(path: str, boxes: Iterable[BoundingBox]) -> str:
    """Store boxes in a file, NPY unless its name ends in .txt; return its name.

    Raises:
        ParameterError: another file has this name.
    """
    if path.endswith(".txt"):
        data = "".join(f"{box}\n" for box in boxes).encode()
    else:
        path = path if path.endswith(".npy") else f"{path}.npy"
        held = io.BytesIO()
        np.save(held, np.array([[*box.start, *box.stop] for box in boxes], np.int64).reshape(-1, 6))
        data = held.getvalue()
    url = kvstore.normalise(path)
    if kvstore.read_bytes(url) not in (None, data):
        raise ParameterError(f"{path} exists and does not hold these boxes; delete it, or write to another file")
    kvstore.write_bytes(url, data)
    return path


def read_boxes(path: str | os.PathLike[str]) -> list[BoundingBox]:
    """Return the boxes of an NPY file, rows of start and stop (zyx), or of a text file with one in each line.

    Raises:
        ParameterError: there is no such file, or it holds something else.
    """
    url = kvstore.normalise(path)
    data = kvstore.read_bytes(url)
    if data is None:
        raise ParameterError(f"there is no file {os.fspath(path)}")
    if not data.startswith(b"\x93NUMPY"):
        try:
            return [BoundingBox.from_string(line) for line in data.decode(errors="replace").split()]
        except GeometryError as error:
            raise ParameterError(f"{os.fspath(path)}: {error}") from error
    try:
        rows = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # of a damaged header anything
        raise ParameterError(f"{os.fspath(path)} cannot be read: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != 6 or rows.dtype.kind not in "iu":
        raise ParameterError(f"{os.fspath(path)} holds {rows.dtype} {rows.shape}, not rows of six integers (zyx)")
    return [BoundingBox(as_zyx(row[:3]), as_zyx(row[3:])) for row in rows.tolist()]


def number_of(variable: str, option: str) -> int:
    """Return the number that an environment variable holds.

    Raises:
        ParameterError: it holds none.
    """
    text = os.environ.get(variable, "")
    if not text.isdigit():
        raise ParameterError(f"{option} reads the number of the task from {variable}, which is {text!r}")
    return int(text)
