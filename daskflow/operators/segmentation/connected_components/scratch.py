"""Where the stages of one labelling leave what the next ones read."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import MissingChunkError
from daskflow.geometry import BlockGrid
from daskflow.operators.segmentation.connected_components.blocks import NOTHING, Components, Connectivity
from daskflow.operators.segmentation.connected_components.packed import pack, unpack
from daskflow.scratch.records import at_once, numbered
from daskflow.stores import kvstore
from daskflow.volume.stage import Bound

Array = npt.NDArray[Any]

_GROUP = 4


@dataclass(frozen=True)
class Labelling(Bound):
    """One labelling of one volume: its blocks, and where its scratch data lie.

    Attributes:
        grid: the blocks that are labelled.
        connectivity: 6, 18 or 26.
        key: tells its scratch data from those of another labelling in the same job.
        url: of its scratch data, once bound.
        dust: components of fewer voxels become background.
    """

    grid: BlockGrid
    connectivity: Connectivity
    key: str
    url: str | None = None
    dust: int = 0

    def bind(self, directory: str) -> Labelling:
        """Return the labelling with its scratch data below the URL `directory`."""
        url = kvstore.join(directory, f"components-{self.key}")
        return dataclasses.replace(self, url=url)

    @functools.cached_property
    def groups(self) -> BlockGrid:
        """Groups of 4 x 4 x 4 neighbouring blocks, whose seams are matched together and whose numbers lie together."""
        z, y, x = (b * _GROUP for b in self.grid.block)
        return BlockGrid(self.grid.box, (z, y, x), self.grid.origin)

    def members(self, group: int) -> list[int]:
        """Return the blocks of a group, in order."""
        return list(self.grid.touching(self.groups[group]))

    def write_labels(self, block: int, labels: Array) -> None:
        """Store the numbers that a block's voxels have within it."""
        self._write("labels", block, {"labels": labels})

    def read_labels(self, block: int) -> Array:
        """Return what `write_labels` stored."""
        return self._read("labels", block)["labels"]

    def write_components(self, block: int, components: Components) -> None:
        """Store what others must know of a block."""
        arrays: dict[str, Array] = {"firsts": components.firsts}
        if components.values is not None:
            arrays["values"] = components.values
        if components.sizes is not None:
            arrays["sizes"] = components.sizes
        arrays |= {f"{axis}{side}": plane for (axis, side), plane in components.planes.items()}
        self._write("components", block, arrays)

    def read_components(self, blocks: Iterable[int]) -> dict[int, Components]:
        """Return what `write_components` stored of some blocks, by block."""
        return {block: _components(record) for block, record in self._records("components", blocks)}

    def write_seams(self, group: int, seams: Seams) -> None:
        """Store which components of a group's blocks are one, and which touch those of other groups."""
        self._write("seams", group, vars(seams))

    def read_seams(self, groups: Iterable[int]) -> dict[int, Seams]:
        """Return what `write_seams` stored of some groups, by group."""
        return {group: Seams(**record) for group, record in self._records("seams", groups)}

    def write_parts(self, group: int, parts: Parts) -> None:
        """Store what the numbering must know of a group's components."""
        self._write("parts", group, vars(parts))

    def read_parts(self) -> list[Parts]:
        """Return what `write_parts` stored, of all groups in order."""
        return [Parts(**record) for _, record in self._records("parts", range(len(self.groups)))]

    def write_joins(self, group: int, joins: Joins) -> None:
        """Store which components of a group are one with those of other groups."""
        self._write("joins", group, vars(joins))

    def read_joins(self) -> list[Joins]:
        """Return what `write_joins` stored, of all groups in order."""
        return [Joins(**record) for _, record in self._records("joins", range(len(self.groups)))]

    def write_numbers(self, group: int, numbers: Array) -> None:
        """Store the volume-wide numbers of a group's components."""
        self._write("numbers", group, {"numbers": numbers})

    def read_numbers(self, group: int) -> tuple[Array, Array]:
        """Return the volume-wide numbers of the components of a group's blocks.

        Returns:
            Where the numbers of each block begin, and where the last ones end; and the numbers, block after block.
        """
        seams = self.read_seams([group])[group]
        return seams.starts, self._read("numbers", group)["numbers"][seams.part_of]

    def group_of(self, block: int) -> tuple[int, int]:
        """Return the group of a block, and the block's place among its members."""
        (group,) = self.groups.touching(self.grid[block])
        return group, self.members(group).index(block)

    def _place(self, kind: str, index: int) -> str:
        assert self.url is not None, "a labelling without scratch"
        return numbered(kvstore.join(self.url, kind), index)

    def _records(self, kind: str, indices: Iterable[int]) -> list[tuple[int, dict[str, Array]]]:
        wanted = list(indices)
        return list(zip(wanted, at_once(functools.partial(self._read, kind), wanted), strict=True))

    def _write(self, kind: str, index: int, arrays: dict[str, Array]) -> None:
        kvstore.write_bytes(self._place(kind, index), pack(arrays))

    def _read(self, kind: str, index: int) -> dict[str, Array]:
        url = self._place(kind, index)
        data = kvstore.read_bytes(url)
        if data is None:
            raise MissingChunkError(f"scratch data at {url} are gone; delete the job's directory and run it again")
        return unpack(data, url, most=self._most(kind))

    def _most(self, kind: str) -> int:
        """Return how many numbers one array of a record has at most, whatever the voxels are."""
        z, y, x = self.grid.block
        if kind in ("labels", "components"):
            return z * y * x
        # each voxel of three faces, edges and corners included, may touch two times nine others across a seam
        seams = 2 * 2 * 9 * (z * y + z * x + y * x)
        return _GROUP**3 * max(z * y * x, seams)


@dataclass(frozen=True)
class Seams:
    """Which components of a group's blocks are one, and which of them touch components of other groups.

    Attributes:
        starts: where the components of each member block begin among those of all members, and where the last ones end.
        part_of: which of the group's components each of them is part of, from 0, block after block.
        links: pairs of blocks, the first in the group and the second in another one, that have something in common,
            and how many pairs of components: rows (a, b, n).
        pairs: numbers, within their blocks, of components that are one: rows (in a, in b), link after link.
    """

    starts: npt.NDArray[np.int64]
    part_of: npt.NDArray[np.uint32]
    links: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Parts:
    """The components of a group of blocks, each of which may be a part of one that reaches into other groups.

    Attributes:
        firsts: where each begins: C-order index in the whole volume.
        sizes: how many voxels each has; empty where nobody asks.
    """

    firsts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Joins:
    """Which components of a group are one with those of other groups.

    Attributes:
        links: the other groups, and how many pairs of components: rows (group, n).
        pairs: components that are one, from 0: rows (in this group, in the other), link after link.
    """

    links: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.uint32]


def _components(record: dict[str, Array]) -> Components:
    firsts = record.pop("firsts")
    if not firsts.size:
        return NOTHING
    values, sizes = record.pop("values", None), record.pop("sizes", None)
    planes = {(int(name[0]), int(name[1])): plane for name, plane in record.items()}
    return Components(len(firsts), firsts, values, planes, sizes)
