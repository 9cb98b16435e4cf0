"""Tables that stages leave in scratch data, and volumes that look voxels up in them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.errors import MissingChunkError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.scratch.records import read_record, write_record
from daskflow.stores.scratch import ScratchStore
from daskflow.volume import Stage, Volume
from daskflow.volume.description import describe, describe_function
from daskflow.volume.node import Array, Calling, Memory, Node, Step, Waiting, checked

_KEPT = 16


@dataclass(frozen=True)
class Tables:
    """An array kept as one record per block of a grid, in the scratch data of a job.

    Attributes:
        name: tells these records from others.
        grid: the blocks.
        dtype: of the array.
    """

    name: str
    grid: BlockGrid
    dtype: np.dtype[Any]

    def write(self, directory: str, box: BoundingBox, array: Array) -> None:
        """Store the part of the array in `box`, a block of the grid, below the URL `directory`."""
        (index,) = self.grid.touching(box)
        write_record(directory, self.name, index, {"table": array})

    def read(self, directory: str, index: int) -> Array:
        """Return the part that was stored for block `index`.

        Raises:
            MissingChunkError: none was.
        """
        record = read_record(directory, self.name, index)
        if record is None:
            raise MissingChunkError(f"scratch data in {directory} are gone; delete the job's directory, run it again")
        return record["table"]

    def waiting(self, stages: Sequence[Stage]) -> Waiting:
        """Return the node that answers for the array once `stages` have filled it."""
        spec = VolumeSpec(self.grid.box, self.dtype)
        return Waiting(spec, functools.partial(_TableStore, tables=self), tuple(stages))


class _TableStore(ScratchStore):
    """The array of some tables; it can only be read."""

    def __init__(self, directory: str, tables: Tables) -> None:
        super().__init__(directory, [VolumeSpec(tables.grid.box, tables.dtype)])
        self._tables = tables
        self._kept: dict[int, Array] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return (_TableStore, (self.url, self._tables))

    def _read(self, box: BoundingBox) -> Array:
        array = np.empty(box.shape, self.spec.dtype)
        for index in self._tables.grid.touching(box):
            inside = self._tables.grid[index]
            part = inside.clip(box)
            array[part.slices(box)] = self._block(index)[part.slices(inside)]
        return array

    def _block(self, index: int) -> Array:
        """Return a block, from memory if it is among the last ones; two threads at worst read it twice."""
        block = self._kept.get(index)
        if block is None:
            block = self._tables.read(self.url, index)
            if block.nbytes <= 2**20:
                while len(self._kept) >= _KEPT:
                    self._kept.pop(next(iter(self._kept)), None)
                self._kept[index] = block
        return block

    def fingerprint(self) -> dict[str, Any]:
        return {"tables": self._tables.name}


def look_up(
    volume: Volume,
    tables: Waiting,
    function: Callable[..., Array],
    *,
    where: Callable[[BoundingBox], BoundingBox],
    memory: Memory,
    **options: Any,
) -> Volume:
    """Return the volume whose blocks are ``function(block, table, box=, table_box=, **options)``.

    Args:
        volume: gives the blocks.
        tables: gives the tables.
        function: returns the block, of the shape and dtype it got.
        where: the box of the tables that is needed for a box of the volume.
        memory: bytes that the function takes, as for `Volume.map_overlap`.
        **options: handed to the function.
    """
    spec = volume.spec
    return Volume(_LookUp(spec, function, volume.node, tables, where, options, memory), block=volume.block)


@dataclass(frozen=True, eq=False)
class _LookUp(Step, Calling):
    function: Callable[..., Array]
    volume: Node
    tables: Node
    where: Callable[[BoundingBox], BoundingBox]
    options: dict[str, Any]
    memory: Memory

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.volume, self.tables)

    def with_inputs(self, inputs: tuple[Node, ...]) -> _LookUp:
        return dataclasses.replace(self, volume=inputs[0], tables=inputs[1])

    def needs(self, box: BoundingBox) -> tuple[BoundingBox, ...]:
        return (box, self.where(box))

    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:
        result = self.function(*arrays, box=box, table_box=self.where(box), **self.options)
        return checked(np.asarray(result), box, self.spec, self.function)

    def working(self, box: BoundingBox) -> float:
        if callable(self.memory):
            return self.memory(box)
        return (self.memory or 0) * box.size

    def describe(self) -> dict[str, Any]:
        return {"function": describe_function(self.function), "options": describe(self.options)}
