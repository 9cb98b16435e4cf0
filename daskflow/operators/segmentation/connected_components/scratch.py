r"""Where the stages of one labelling leave what the next ones read, and the labelled volume that is read from it.

The components that many boxes have get one numbering, 1 to n as their first voxels come in the whole volume.

    boxes    first voxels │         ▲ numbers of what it has
    merge-1               │         │ tell-0
    merge-2               ▼         │ tell-1
    ranges   how many ─► offsets ─► numbers

The first voxels of all boxes are merged as a table, and each task of the table has one on the way back, which looks up
what was put where: so none holds more than the components of a few boxes.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.operators.segmentation.connected_components.blocks import Components, Connectivity
from daskflow.scratch import Reduce, Table
from daskflow.scratch.records import Arrays, required_records, write_record
from daskflow.scratch.tables import Merge
from daskflow.stores.memory import ScratchStore
from daskflow.volume import BlockResult, Stage, Task
from daskflow.volume.stage import Bound, Scope

Numbers = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

_FAN_IN = 16  # a box being a group of 64 blocks
_PIECE = 2**24  # bytes, as one buffer of the codec has at most 2^31
_SIZE = slice(12, 16)  # where a buffer has its own size, little-endian
_ALONG = 4  # boxes along each axis that are joined at once
_KEPT = 8  # groups whose numbers one store holds


@dataclass(frozen=True)
class Numbering(Bound):
    """The numbers of the components of some boxes, of which one alone needs no stage."""

    boxes: int
    scope: Scope

    @functools.cached_property
    def table(self) -> Table:
        """The first voxels of all components."""
        return Table("components", self.boxes, {"firsts": "key"}, self.scope, fan_in=_FAN_IN)

    @property
    def counts(self) -> Reduce:
        """How many components each range of the table has."""
        return Reduce("count-components", "counts", self.table.ranges, one_after_the_other, self.scope)

    def told(self, level: int) -> str:
        """Return the name of the pass, and of the records, that tell a level of the table its numbers; 0 the boxes."""
        return f"tell-{self.table.name}-{level}"

    def stages(self) -> tuple[Stage, ...]:
        """Return the passes between `write` and `numbers`, in order."""
        if self.boxes == 1:
            return ()
        grids = [BlockGrid(BoundingBox((0, 0, 0), (*tasks, 1)), (1, 1, 1)) for tasks in self.table.levels]
        telling = [
            Stage(self.told(level - 1), grid, TellNumbers(self, level), numbered=True)
            for level, grid in enumerate(grids)
            if level
        ]
        return (*self.table.into(counted, self.counts).stages(), *reversed(telling))

    def write(self, box: int, firsts: Numbers) -> None:
        """Store the first voxels of the components of a box, rising."""
        if self.boxes > 1:
            self.table.write(box, {"firsts": firsts.astype(np.uint64)})

    def numbers(self, box: int, count: int) -> Numbers:
        """Return the numbers of the components of a box, which has `count`, as they were written."""
        if self.boxes == 1:
            return np.arange(1, count + 1)
        (record,) = required_records(self.scope.url, self.told(0), [box])
        return record["numbers"]

    def total(self, count: int) -> int:
        """Return how many components all boxes have, of which the last has `count`."""
        return count if self.boxes == 1 else int(self.counts.result()["counts"].sum())


@dataclass(frozen=True)
class TellNumbers(Task):
    """Tell what a task of a level of the table has merged its numbers."""

    numbering: Numbering
    level: int

    def read(self, box: BoundingBox) -> tuple[list[Arrays], Numbers]:
        known, (group, bucket, _) = self.numbering, box.start
        levels = known.table.levels
        taken = Merge(known.table, self.level).read(box)
        if self.level + 1 < len(levels):
            finer = levels[self.level + 1][1]
            cuts = finer // levels[self.level][1]
            first = group * finer + bucket * cuts
            above = required_records(known.scope.url, known.told(self.level), range(first, first + cuts))
            return taken, np.concatenate([record["numbers"] for record in above])
        before = known.counts.result()["counts"][:bucket].sum()
        return taken, before + np.arange(1, sum(len(rows["firsts"]) for rows in taken) + 1)

    def compute(self, box: BoundingBox, inputs: tuple[list[Arrays], Numbers]) -> list[Numbers]:  # noqa: ARG002
        taken, numbers = inputs
        found = np.empty_like(numbers)
        found[np.argsort(np.concatenate([rows["firsts"] for rows in taken]), kind="stable")] = numbers
        return np.split(found, np.cumsum([len(rows["firsts"]) for rows in taken])[:-1])

    def write(self, box: BoundingBox, outputs: list[Numbers]) -> BlockResult:
        known, (group, bucket, _) = self.numbering, box.start
        for member, numbers in enumerate(outputs, group * known.table.fan_in):
            index = member * known.table.levels[self.level][1] + bucket
            write_record(known.scope.url, known.told(self.level - 1), index, {"numbers": numbers})
        return BlockResult()

    def describe(self) -> dict[str, Any]:
        return {"tell": self.numbering.told(self.level - 1)}


def counted(rows: Arrays) -> Arrays:
    """Return how many rows a range has."""
    return {"counts": np.array([len(rows["firsts"])])}


def one_after_the_other(records: list[Arrays]) -> Arrays:
    """Return the counts of some records."""
    return {"counts": np.concatenate([record["counts"] for record in records])}


def pack(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return the bytes that `unpack` makes the array of: LZ4 on shuffled bits, at several GB/s."""
    from numcodecs import Blosc

    codec, step = Blosc("lz4", 1, Blosc.BITSHUFFLE), max(1, _PIECE // array.dtype.itemsize)
    flat = np.ascontiguousarray(array).reshape(-1)
    return np.frombuffer(b"".join(codec.encode(flat[at : at + step]) for at in range(0, flat.size, step)), np.uint8)


def unpack(packed: npt.NDArray[np.uint8], shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the array of a shape and type that `pack` was given."""
    from numcodecs import Blosc

    codec, array = Blosc("lz4", 1, Blosc.BITSHUFFLE), np.empty(shape, dtype)
    flat, step = array.reshape(-1), max(1, _PIECE // array.dtype.itemsize)
    for at in range(0, flat.size, step):
        size = int.from_bytes(packed[_SIZE].tobytes(), "little")
        codec.decode(packed[:size], out=flat[at : at + step])
        packed = packed[size:]
    return array


@dataclass(frozen=True)
class Labelling(Bound):
    """One labelling of one volume: its blocks, and where its scratch data lie.

    Attributes:
        grid: the blocks that are labelled.
        connectivity: 6, 18 or 26.
        scope: where its scratch data lie.
        dust: components of fewer voxels become background.
    """

    grid: BlockGrid
    connectivity: Connectivity
    scope: Scope
    dust: int = 0

    @functools.cached_property
    def levels(self) -> tuple[BlockGrid, ...]:
        """Groups of 4 x 4 x 4 neighbouring blocks, boxes of as many groups, and so on to one box."""
        levels = [self.grid.coarser(_ALONG)]
        while len(levels[-1]) > 1:
            levels.append(levels[-1].coarser(_ALONG))
        return tuple(levels)

    @functools.cached_property
    def numbering(self) -> Numbering:
        """The numbers of the components of all boxes."""
        return Numbering(sum(map(len, self.levels)), self.scope)

    def box_number(self, level: int, index: int) -> int:
        """Return the number of a box of a level among those of all levels."""
        return sum(map(len, self.levels[:level])) + index

    def group_of(self, block: int) -> tuple[int, int]:
        """Return the group of a block, and the block's place among its members."""
        (group,) = self.levels[0].touching(self.grid[block])
        return group, list(self.grid.touching(self.levels[0][group])).index(block)

    def write_labels(self, block: int, labels: Array) -> None:
        """Store the numbers that a block's voxels have within it."""
        self.write("labels", block, {labels.dtype.name: pack(labels)})

    def read_labels(self, block: int) -> Array:
        """Return what `write_labels` stored."""
        (record,) = self.read("labels", [block])
        ((dtype, packed),) = record.items()
        return unpack(packed, self.grid[block].shape, dtype)

    def write_components(self, block: int, components: Components) -> None:
        """Store what others must know of a block."""
        arrays = {name: getattr(components, name) for name in ("firsts", "values", "sizes")}
        planes = {f"{axis}{side}-{plane.dtype}": pack(plane) for (axis, side), plane in components.planes.items()}
        self.write("components", block, {name: one for name, one in arrays.items() if one is not None} | planes)

    def read_components(self, blocks: Iterable[int]) -> dict[int, Components]:
        """Return what `write_components` stored of some blocks, by block."""
        wanted = list(blocks)
        records = zip(wanted, self.read("components", wanted), strict=True)
        return {block: _components(record, self.grid[block].shape) for block, record in records}

    def read_numbers(self, group: int) -> tuple[Array, Array]:
        """Return the volume-wide numbers of the components of a group's blocks.

        They are where the numbers of each block begin, and the last ones end; and the numbers, block after block.
        """
        (record,) = self.read("numbers-0", [group])
        return record["starts"], record["numbers"]

    def write(self, kind: str, index: int, arrays: Mapping[str, Array]) -> None:
        """Store the record of a kind that a block or box has."""
        write_record(self.scope.url, f"components/{kind}", index, arrays)

    def read(self, kind: str, indexes: Iterable[int]) -> list[Arrays]:
        """Return the records of a kind that some blocks or boxes have."""
        return required_records(self.scope.url, f"components/{kind}", indexes)


def _components(record: Arrays, shape: tuple[int, ...]) -> Components:
    firsts, values, sizes = record.pop("firsts"), record.pop("values", None), record.pop("sizes", None)
    planes = {}
    for name, packed in record.items():
        axis, side = int(name[0]), int(name[1])
        planes[axis, side] = unpack(packed, shape[:axis] + shape[axis + 1 :], name[3:])
    return Components(len(firsts), firsts, values, planes, sizes)


class LabelledStore(ScratchStore):
    """What the stages of a labelling left in scratch; it can only be read."""

    def __init__(self, labelling: Labelling, spec: VolumeSpec) -> None:
        super().__init__(labelling.scope.url, [spec])
        self._labelling = labelling
        self._numbers: dict[int, tuple[Array, Array]] = {}
        self._reading = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (LabelledStore, (self._labelling, self.spec))

    def _read(self, box: BoundingBox) -> Array:
        grid = self._labelling.grid
        blocks = list(grid.touching(box))
        if len(blocks) == 1 and grid[blocks[0]] == box:
            return self._block(blocks[0])
        array = np.zeros(box.shape, self.spec.dtype)
        for block in blocks:
            inside = grid[block]
            part = inside.clip(box)
            array[part.slices(box)] = self._block(block, part)
        return array

    def _block(self, block: int, part: BoundingBox | None = None) -> Array:
        inside = self._labelling.grid[block]
        part = inside if part is None else part
        group, place = self._labelling.group_of(block)
        starts, numbers = self._numbers_of(group)
        if starts[place] == starts[place + 1]:
            return np.zeros(part.shape, self.spec.dtype)
        table = np.concatenate((np.zeros(1, self.spec.dtype), numbers[starts[place] : starts[place + 1]]))
        return table.take(self._labelling.read_labels(block)[part.slices(inside)])

    def _numbers_of(self, group: int) -> tuple[Array, Array]:
        """Return the numbers of a group, kept for the blocks that follow; each run binds a store of its own."""
        with self._reading:
            found = self._numbers.pop(group, None) or self._labelling.read_numbers(group)
            while len(self._numbers) >= _KEPT:
                del self._numbers[next(iter(self._numbers))]
            self._numbers[group] = found
            return found

    def fingerprint(self) -> dict[str, Any]:
        return {"components": self._labelling.scope.name}
