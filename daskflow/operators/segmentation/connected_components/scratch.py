"""Where the stages of one labelling leave what the next ones read."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from daskflow.geometry import BlockGrid
from daskflow.operators.segmentation.connected_components.blocks import Components, Connectivity
from daskflow.operators.segmentation.connected_components.numbering import Numbering
from daskflow.operators.segmentation.connected_components.packed import pack, unpack
from daskflow.scratch.records import Arrays, required_records, write_record
from daskflow.volume.stage import Bound, Scope

Array = npt.NDArray[Any]

_ALONG = 4  # boxes along each axis that are joined at once


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
        box, block, levels = self.grid.box, self.grid.block, list[BlockGrid]()
        assert self.grid.origin is not None
        sides = zip(box.start, self.grid.origin, block, strict=True)
        z, y, x = (start - (start - origin) % step for start, origin, step in sides)
        while not levels or len(levels[-1]) > 1:
            block = (block[0] * _ALONG, block[1] * _ALONG, block[2] * _ALONG)
            levels.append(BlockGrid(box, block, (z, y, x)))
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

        Returns:
            Where the numbers of each block begin, and where the last ones end; and the numbers, block after block.
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
