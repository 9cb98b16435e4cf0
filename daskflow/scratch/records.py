"""Small arrays per block, kept in a job's scratch data, and stages that merge them as a tree."""

from __future__ import annotations

import functools
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from daskflow.errors import CorruptChunkError, MissingChunkError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.stores import kvstore
from daskflow.volume.stage import BlockResult, Bound, Scope, Stage, Task

Arrays = dict[str, NDArray[Any]]
Combine = Callable[[list[Arrays]], Mapping[str, NDArray[Any]]]

T = TypeVar("T")
R = TypeVar("R")

_PER_FOLDER = 4096
_READERS = 16
_CHECK = struct.Struct("<8sI")  # and then bytes of the head (u8), the head (JSON), the arrays
_MAGIC = b"dflowrc1"


def write_record(directory: str, stage: str, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Store arrays as the record of a block, atomically; the same arrays give the same bytes.

    The directory is the URL of a scope, in which the name of a stage identifies its records.
    """
    kvstore.write_bytes(record_url(directory, stage, index), encode(arrays))


def read_record(directory: str, stage: str, index: int) -> Arrays | None:
    """Return the arrays that `write_record` stored, None when it was never called for the block."""
    url = record_url(directory, stage, index)
    data = kvstore.read_bytes(url)
    return None if data is None else decode(data, url)


def encode(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return arrays as bytes that `decode` takes; see `write_record`."""
    ordered = {name: np.asarray(array, order="C") for name, array in sorted(arrays.items())}
    if any(array.dtype.hasobject for array in ordered.values()):
        raise ValueError("records hold no Python objects, as these would have to be pickled")
    head = json.dumps([(name, array.dtype.str, array.shape) for name, array in ordered.items()]).encode()
    body: list[Any] = [len(head).to_bytes(8, "little"), head]
    body += [array.reshape(-1).view(np.uint8).data for array in ordered.values()]
    check = 0
    for part in body:
        check = zlib.crc32(part, check)
    return b"".join([_CHECK.pack(_MAGIC, check), *body])


def decode(data: bytes | memoryview, url: str) -> Arrays:
    """Return the arrays that `encode` got; `url` is for the message where they are damaged."""
    if len(data) < _CHECK.size or _CHECK.unpack_from(data) != (_MAGIC, zlib.crc32(memoryview(data)[_CHECK.size :])):
        raise CorruptChunkError(f"the record {url} is damaged; delete the job's directory and run it again")
    start = _CHECK.size + 8
    at = start + int.from_bytes(data[_CHECK.size : start], "little")
    arrays = {}
    for name, dtype, shape in json.loads(bytes(data[start:at])):
        count = math.prod(shape)
        arrays[name] = np.frombuffer(data, dtype, count, at).reshape(shape).copy()
        at += arrays[name].nbytes
    return arrays


def read_records(directory: str, stage: str, indexes: Iterable[int]) -> list[Arrays | None]:
    """Return what `read_record` does for each of some blocks, several being read at once."""
    return at_once(functools.partial(read_record, directory, stage), indexes)


def required_records(directory: str, stage: str, indexes: Iterable[int]) -> list[Arrays]:
    """Return what `write_record` stored for each of some blocks, and raise where it was never called for one."""
    wanted = list(indexes)
    found = read_records(directory, stage, wanted)
    for index, record in zip(wanted, found, strict=True):
        if record is None:
            url = record_url(directory, stage, index)
            raise MissingChunkError(f"scratch data {url} are gone; delete the job's directory and run it again")
    return [record for record in found if record is not None]


def at_once(read: Callable[[T], R], arguments: Iterable[T]) -> list[R]:
    """Return what is read for each argument; several by threads of this process that wait for storage."""
    wanted = list(arguments)
    return list((_pool().map if len(wanted) > 1 else map)(read, wanted))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_READERS, thread_name_prefix="scratch")


def record_url(directory: str, stage: str, index: int) -> str:
    """Return where the record of a block is kept."""
    return numbered(kvstore.join(directory, "records", stage), index)


def numbered(url: str, index: int) -> str:
    """Return where one of many objects below a URL is kept, a few thousand to a folder."""
    folder, number = divmod(index, _PER_FOLDER)
    return kvstore.join(url, str(folder), str(number))


@dataclass(frozen=True)
class Reduce(Bound):
    r"""Stages that merge the records of another stage into one, 64 at a time, level by level.

        blocks  0 1 ... 63   64 ... 127   128 ...
                 \ | /          |           |
        level 1    0            1           2
                    \___________|__________/
        level 2                 0                  read_record(directory, name, 0)

    Attributes:
        name: of the last stage, and of the record that it leaves.
        source: stage name under which the records to be merged were written.
        count: how many blocks that stage has, each of which must leave a record.
        combine: merges records. Must be associative, as it also gets what it returned; a module's function.
        scope: where all records lie.
        parameters: JSON values that `combine` depends on, for the job's fingerprint.
        fan_in: how many records are merged at once.
    """

    name: str
    source: str
    count: int
    combine: Combine
    scope: Scope
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
            merging = _Merge(source, name, self.fan_in, self.combine, dict(self.parameters), self.scope)
            stages.append(Stage(name, grid, merging, numbered=True))
            source, count = name, len(grid)
        return tuple(stages)

    def write(self, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store the record of a block, to be merged."""
        write_record(self.scope.url, self.source, index, arrays)

    def result(self) -> Arrays:
        """Return the merged record, after the stages ran."""
        record = read_record(self.scope.url, self.name, 0)
        if record is None:
            raise ParameterError(f"stage {self.name} has left no record in {self.scope.url}; run the job first")
        return record


@dataclass(frozen=True)
class _Merge(Task):
    """Merges the records of one stage that a block of its numbers names, into one record of another stage."""

    source: str
    target: str
    fan_in: int
    combine: Combine
    parameters: dict[str, Any]
    scope: Scope

    def read(self, box: BoundingBox) -> list[Arrays]:
        return required_records(self.scope.url, self.source, range(box.start[0], box.stop[0]))

    def compute(self, box: BoundingBox, inputs: list[Arrays]) -> Mapping[str, NDArray[Any]]:  # noqa: ARG002
        return self.combine(inputs)

    def write(self, box: BoundingBox, outputs: Mapping[str, NDArray[Any]]) -> BlockResult:
        write_record(self.scope.url, self.target, box.start[0] // self.fan_in, outputs)
        return BlockResult()

    def describe(self) -> dict[str, Any]:
        name = f"{self.combine.__module__}.{self.combine.__qualname__}"
        return {"merge": self.source, "by": name, "parameters": self.parameters}
