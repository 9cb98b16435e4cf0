"""Grids of blocks, computed and never enumerated."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass

from daskflow.errors import GeometryError
from daskflow.geometry.box import BoundingBox, Zyx, as_zyx


@dataclass(frozen=True)
class BlockGrid:
    """The blocks of one size that tile a box; block *i* is arithmetic, x fastest.

        origin          box.start                       box.stop
          |---------|---:-----|---------|---------|-----:---|
                        | 0   |    1    |    2    |  3  |

    Blocks lie on multiples of `block` from `origin` and are cut to the box, so the first and last may be smaller.

    Attributes:
        box: the voxels that are tiled.
        block: voxels per block (zyx).
        origin: the corner from which blocks are counted; `box.start` unless given.

    Raises:
        GeometryError: a block size below 1.
    """

    box: BoundingBox
    block: Zyx
    origin: Zyx | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", as_zyx(self.block, name="block"))
        object.__setattr__(
            self, "origin", as_zyx(self.box.start if self.origin is None else self.origin, name="origin")
        )
        if min(self.block) < 1:
            raise GeometryError(f"block {self.block} zyx must be at least 1 on every axis")

    @functools.cached_property
    def _bounds(self) -> BoundingBox:
        """The grid positions that blocks take, counted from the origin."""
        assert self.origin is not None
        if self.box.empty:
            return BoundingBox((0, 0, 0), (0, 0, 0))
        return self.box.shift(tuple(-o for o in self.origin)).coarsen(self.block)

    @functools.cached_property
    def shape(self) -> Zyx:
        """Blocks per axis (zyx)."""
        return self._bounds.shape

    @property
    def count(self) -> int:
        """Number of blocks, which `len` cannot give beyond 2**63."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.count

    def position(self, index: int) -> Zyx:
        """Return where block `index` stands in the grid (zyx), (0, 0, 0) being the first.

        Raises:
            IndexError: there is no such block.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of a grid of {len(self)} blocks")
        rest, x = divmod(index, self.shape[2])
        z, y = divmod(rest, self.shape[1])
        return z, y, x

    def index(self, position: Zyx) -> int:
        """Return the number of the block at a grid position (zyx).

        Raises:
            IndexError: there is no such block.
        """
        if not all(0 <= p < n for p, n in zip(position, self.shape, strict=True)):
            raise IndexError(f"position {position} zyx of a grid of {self.shape} blocks")
        return (position[0] * self.shape[1] + position[1]) * self.shape[2] + position[2]

    def __getitem__(self, index: int) -> BoundingBox:
        first = self._bounds.start
        at = tuple(map(operator.add, self.position(index), first))
        assert self.origin is not None
        cell = BoundingBox.from_size(at, (1, 1, 1)).refine(self.block).shift(self.origin)
        return cell.clip(self.box)

    def __iter__(self) -> Iterator[BoundingBox]:
        return (self[index] for index in range(len(self)))

    def touching(self, box: BoundingBox) -> Iterator[int]:
        """Yield the numbers of the blocks that share a voxel with `box`, in order."""
        assert self.origin is not None
        inside = box.clip(self.box)
        if inside.empty:
            return
        first = self._bounds.start
        cells = inside.shift(tuple(-o for o in self.origin)).coarsen(self.block).shift(tuple(-f for f in first))
        for z in range(cells.start[0], cells.stop[0]):
            for y in range(cells.start[1], cells.stop[1]):
                for x in range(cells.start[2], cells.stop[2]):
                    yield self.index((z, y, x))

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Sizes of the blocks along each axis, as `dask.array` calls its chunks."""
        z, y, x = (self._sizes(axis) for axis in range(3))
        return z, y, x

    def _sizes(self, axis: int) -> tuple[int, ...]:
        assert self.origin is not None
        low, high, origin, block = self.box.start[axis], self.box.stop[axis], self.origin[axis], self.block[axis]
        if self.box.empty:
            return (high - low,)
        first, last = self._bounds.start[axis], self._bounds.stop[axis]
        edges = [min(max(origin + i * block, low), high) for i in range(first, last + 1)]
        return tuple(b - a for a, b in itertools.pairwise(edges)) or (0,)
