"""The stages of CLAHE: count the grey values of every tile block by block, then make the table of every tile."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import MissingChunkError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import Evaluate
from daskflow.operators.image.clahe.equalize import equalizing_tables
from daskflow.operators.image.clahe.tiles import Tiles
from daskflow.operators.image.contrast.tables import Tables
from daskflow.scratch.records import Arrays, read_record, write_record
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage, Task, in_order

Array = npt.NDArray[Any]

_COUNTS = 2**22  # held at once while tables are made


@dataclass(frozen=True)
class Equalizing:
    """The tables of one volume's tiles.

    Attributes:
        grid: the blocks.
        dtype: of the voxels, uint8 or uint16.
        tiles: of every section.
        clip_limit: as OpenCV's.
        key: tells its records from those of others in the same job.
    """

    grid: BlockGrid
    dtype: np.dtype[Any]
    tiles: Tiles
    clip_limit: float
    key: str

    @property
    def counts(self) -> str:
        """The name of the records of counts."""
        return f"tile-levels-{self.key}"

    @property
    def bins(self) -> int:
        """Grey values there are."""
        return int(np.iinfo(self.dtype).max) + 1

    @functools.cached_property
    def tables(self) -> Tables:
        """The tables: shape (z, tiles along y, tiles along x times grey values), some tiles of some sections a record.

        Their sections are those of a block, or an even part of them.
        """
        (first, _, _), (last, _, _) = self.grid.box.start, self.grid.box.stop
        rows, columns = self.tiles.count
        deep, *block = self.grid.block
        high, wide = (
            min(count, max(1, size // axis.size))
            for count, size, axis in zip((rows, columns), block, self.tiles.axes, strict=True)
        )
        while deep % 2 == 0 and deep * high * wide * self.bins > _COUNTS:
            deep //= 2
        while high * wide > 1 and deep * high * wide * self.bins > _COUNTS:
            high, wide = (-(-high // 2), wide) if high >= wide else (high, -(-wide // 2))
        assert self.grid.origin is not None
        box = BoundingBox((first, 0, 0), (last, rows, columns * self.bins))
        grid = BlockGrid(box, (deep, high, wide * self.bins), (self.grid.origin[0], 0, 0))
        return Tables(f"tile-tables-{self.key}", grid, self.dtype)

    def record(self, block: int, z: int) -> int:
        """Return the number of the record of counts of a block's sections around z, as many as those of a table."""
        assert self.grid.origin is not None
        deep = self.tables.grid.block[0]
        parts = self.grid.block[0] // deep
        return block * parts + (z - self.grid.origin[0]) // deep % parts

    def parts(self, box: BoundingBox) -> Iterator[BoundingBox]:
        """Yield the parts of a block whose counts are records of their own."""
        assert self.grid.origin is not None
        yield from BlockGrid(box, (self.tables.grid.block[0], *self.grid.block[1:]), self.grid.origin)

    def stages(self, expression: Expression) -> tuple[Stage, ...]:
        """Return both passes.

        Args:
            expression: gives the voxels; one output.
        """
        counting = Stage("count-tiles", self.grid, Evaluate.into(expression, _CountTiles(self)))
        return in_order((counting, Stage("make-tables", self.tables.grid, _MakeTables(self))), after=expression.stages)


@dataclass(frozen=True)
class _CountTiles(Consumer):
    """Counts the grey values of the parts of tiles that lie in a block."""

    equalizing: Equalizing
    directory: str = ""

    @property
    def grid(self) -> BlockGrid:
        return self.equalizing.grid

    def compute(self, box: BoundingBox, arrays: list[Array]) -> list[Arrays]:
        array, tiles = arrays[0].reshape(box.shape), self.equalizing.tiles
        return [count_tiles(array[part.slices(box)], part, tiles) for part in self.equalizing.parts(box)]

    def write(self, box: BoundingBox, outputs: list[Arrays]) -> BlockResult:
        (block,) = self.equalizing.grid.touching(box)
        for part, record in zip(self.equalizing.parts(box), outputs, strict=True):
            index = self.equalizing.record(block, part.start[0])
            write_record(self.directory, self.equalizing.counts, index, record)
        return BlockResult()

    def further(self, box: BoundingBox) -> Estimate:
        tiles = self.equalizing.tiles
        touched = [axis.touched(*ends) for axis, ends in zip(tiles.axes, tiles.local(box), strict=True)]
        tables = box.shape[0] * math.prod(last - first for first, last in touched)
        found = min(box.size, tables * self.equalizing.bins)
        return Estimate(memory=24 * found + 8 * box.shape[1] * box.shape[2])

    def check(self) -> None:
        kvstore.check_writable(self.directory)

    def describe(self) -> dict[str, Any]:
        return {"tiles": self.equalizing.tiles.describe()}


def count_tiles(array: Array, box: BoundingBox, tiles: Tiles) -> Arrays:
    """Return how often each grey value occurs in the part of each tile that lies in a block.

    Args:
        array: the block (zyx), unsigned integers.
        box: where it lies.
        tiles: of its sections.

    Returns:
        `place`: first tile along y and x; `ends`, shape (z, tiles along y, tiles along x): where the entries of each
        tile end; `values` and `counts`: the entries.
    """
    (rows, columns), bins = tiles.local(box), np.iinfo(array.dtype).max + 1
    (top, bottom), (left, right) = (a.touched(*ends) for a, ends in zip(tiles.axes, (rows, columns), strict=True))
    down = [tiles.axes[0].members(tile, *rows) for tile in range(top, bottom)]
    across = [tiles.axes[1].members(tile, *columns) for tile in range(left, right)]
    values, counts = [np.empty(0, array.dtype)], [np.empty(0, np.int64)]
    sizes = np.zeros((box.shape[0], bottom - top, right - left), np.int64)
    for z, section in enumerate(array):
        for i, ys in enumerate(down):
            band = section[ys]
            for j, xs in enumerate(across):
                found, often = _histogram(band[:, xs], bins)
                values.append(found.astype(array.dtype))
                counts.append(often)
                sizes[z, i, j] = len(found)
    ends = np.cumsum(sizes).reshape(sizes.shape)
    return {
        "place": np.array([top, left]),
        "ends": ends,
        "values": np.concatenate(values),
        "counts": np.concatenate(counts).astype(np.uint32),
    }


def _histogram(part: Array, bins: int) -> tuple[Array, Array]:
    """Return the values that occur, ascending, and how often."""
    if part.size * 8 < bins:
        found, often = np.unique(part, return_counts=True)
        return found, often
    every = np.bincount(part.ravel(), minlength=bins)
    (found,) = every.nonzero()
    return found, every[found]


@dataclass(frozen=True)
class _MakeTables(Task):
    """Makes the tables of some neighbouring tiles of a slab of sections from what was counted in the blocks."""

    equalizing: Equalizing
    directory: str = ""

    def _tiles(self, box: BoundingBox) -> BoundingBox:
        bins = self.equalizing.bins
        (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
        return BoundingBox((z0, y0, x0 // bins), (z1, y1, x1 // bins))

    def _blocks(self, box: BoundingBox) -> Iterator[int]:
        """Yield the blocks that hold voxels of the tiles."""
        tiles, whole = self._tiles(box), self.equalizing.grid.box
        axes = self.equalizing.tiles.axes
        (z0, *first), (z1, *last) = tiles.start, tiles.stop
        (y0, y1), (x0, x1) = (axis.voxels_of(a, b) for axis, a, b in zip(axes, first, last, strict=True))
        _, y, x = whole.start
        yield from self.equalizing.grid.touching(BoundingBox((z0, y + y0, x + x0), (z1, y + y1, x + x1)))

    def read(self, box: BoundingBox) -> npt.NDArray[np.int64]:
        """Return the histograms of the tiles, added up record after record; shape (z, y, x, grey values)."""
        tiles = self._tiles(box)
        histograms = np.zeros((*tiles.shape, self.equalizing.bins), np.int64)
        for block in self._blocks(box):
            index = self.equalizing.record(block, box.start[0])
            record = read_record(self.directory, self.equalizing.counts, index)
            if record is None:
                raise MissingChunkError(
                    f"levels in {self.directory} are gone; delete the job's directory and run it again"
                )
            _add(histograms, tiles, record)
        return histograms

    def compute(self, box: BoundingBox, inputs: npt.NDArray[np.int64]) -> Array:
        tables = equalizing_tables(inputs, self.equalizing.clip_limit, self.equalizing.dtype)
        return tables.reshape(box.shape)

    def write(self, box: BoundingBox, outputs: Array) -> BlockResult:
        self.equalizing.tables.write(self.directory, box, outputs)
        return BlockResult()

    def estimate(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=6 * 8 * box.size)

    def describe(self) -> dict[str, Any]:
        return {"tables": self.equalizing.key, "clip_limit": self.equalizing.clip_limit}


def _add(histograms: npt.NDArray[np.int64], tiles: BoundingBox, record: Arrays) -> None:
    """Add what was counted in one block to the histograms of some tiles."""
    (top, left), ends = record["place"].tolist(), record["ends"]
    starts = np.concatenate(([0], ends.ravel()[:-1])).reshape(ends.shape)
    (_, y0, x0), (_, y1, x1) = tiles.start, tiles.stop
    for i in range(max(top, y0), min(top + ends.shape[1], y1)):
        for j in range(max(left, x0), min(left + ends.shape[2], x1)):
            for z in range(len(ends)):
                entries = slice(starts[z, i - top, j - left], ends[z, i - top, j - left])
                histograms[z, i - y0, j - x0, record["values"][entries]] += record["counts"][entries]
