"""Small arrays per block, kept in a job's scratch data, and stages that merge them as a tree."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskflow.errors import CorruptChunkError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.stores import kvstore
from daskflow.volume.stage import BlockResult, Stage, Task

Arrays = dict[str, NDArray[Any]]
Combine = Callable[[list[Arrays]], Mapping[str, NDArray[Any]]]

_PER_FOLDER = 4096
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_record(directory: str, stage: str, index: int, arrays: Mapping[str, NDArray[Any]]) -> int:
    """Store arrays as the record of a block, atomically, and return its bytes; the same arrays give the same bytes.

    Args:
        directory: URL; a task takes the one that it was bound to.
        stage: name that tells these records from others below the directory.
        index: number of the block.
        arrays: of any shape and of a dtype that is no Python object.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted(arrays.items()):
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    kvstore.write_bytes(record_url(directory, stage, index), stream.getvalue())
    return stream.tell()


def read_record(directory: str, stage: str, index: int) -> Arrays | None:
    """Return the arrays that `write_record` stored, None when it was never called for the block.

    Raises:
        CorruptChunkError: the record is damaged.
    """
    url = record_url(directory, stage, index)
    data = kvstore.read_bytes(url)
    if data is None:
        return None
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptChunkError(f"the record {url} is damaged: {error}") from error


def record_url(directory: str, stage: str, index: int) -> str:
    """Return where the record of a block is kept, a few thousand to a folder."""
    folder, number = divmod(index, _PER_FOLDER)
    return kvstore.join(directory, "records", stage, str(folder), f"{number}.npz")


@dataclass(frozen=True)
class Reduce:
    r"""Stages that merge the records of another stage into one, 64 at a time, level by level.

        blocks  0 1 ... 63   64 ... 127   128 ...
                 \ | /          |           |
        level 1    0            1           2
                    \___________|__________/
        level 2                 0                  read_record(directory, name, 0)

    Attributes:
        name: of the last stage, and of the record that it leaves.
        source: stage name under which the records to be merged were written.
        count: how many blocks that stage has; those that left no record are passed over.
        combine: merges records. Must be associative, as it also gets what it returned; a module's function.
        parameters: JSON values that `combine` depends on, for the job's fingerprint.
        fan_in: how many records are merged at once.

    Raises:
        ParameterError: no blocks, or fewer than two records merged at once.
    """

    name: str
    source: str
    count: int
    combine: Combine
    parameters: Mapping[str, Any] = field(default_factory=dict)
    fan_in: int = 64

    def __post_init__(self) -> None:
        if self.count < 1 or self.fan_in < 2:
            raise ParameterError(f"cannot merge {self.count} records {self.fan_in} at a time")

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages, one per level."""
        names: list[str] = []
        left = self.count
        while not names or left > 1:
            left = -(-left // self.fan_in)
            names.append(self.name if left == 1 else f"{self.name}-{len(names) + 1}")
        stages = []
        source, count = self.source, self.count
        for name in names:
            grid = BlockGrid(BoundingBox((0, 0, 0), (count, 1, 1)), (self.fan_in, 1, 1))
            stages.append(
                Stage(name, grid, _Merge(source, name, self.fan_in, self.combine, dict(self.parameters)), numbered=True)
            )
            source, count = name, len(grid)
        return tuple(stages)

    def result(self, directory: str) -> Arrays:
        """Return the merged record, after the stages ran in a job bound to `directory`.

        Raises:
            ParameterError: they did not.
        """
        record = read_record(directory, self.name, 0)
        if record is None:
            raise ParameterError(f"stage {self.name} has left no record in {directory}; run the job first")
        return record


@dataclass(frozen=True)
class _Merge(Task):
    """Merges the records of one stage that a block of its numbers names, into one record of another stage."""

    source: str
    target: str
    fan_in: int
    combine: Combine
    parameters: dict[str, Any]
    directory: str = ""

    def read(self, box: BoundingBox) -> list[Arrays]:
        records = (read_record(self.directory, self.source, index) for index in range(box.start[0], box.stop[0]))
        return [record for record in records if record is not None]

    def compute(self, box: BoundingBox, inputs: list[Arrays]) -> Mapping[str, NDArray[Any]] | None:  # noqa: ARG002
        return self.combine(inputs) if inputs else None

    def write(self, box: BoundingBox, outputs: Mapping[str, NDArray[Any]] | None) -> BlockResult:
        if outputs is not None:
            write_record(self.directory, self.target, box.start[0] // self.fan_in, outputs)
        return BlockResult(empty=outputs is None)

    def describe(self) -> dict[str, Any]:
        name = f"{self.combine.__module__}.{self.combine.__qualname__}"
        return {"merge": self.source, "by": name, "parameters": self.parameters}
