"""The stages of CLAHE: count the grey values of every tile block by block, then make the table of every tile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.jobs.sinks import ScratchSink
from daskflow.operators.image.clahe.equalize import equalizing_tables
from daskflow.operators.image.clahe.tiles import Tiles
from daskflow.operators.image.contrast.histograms import Histograms
from daskflow.operators.image.contrast.tables import waiting
from daskflow.scratch.records import Arrays
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Stage, Task, Volume, in_order
from daskflow.volume.node import Waiting
from daskflow.volume.stage import Scope

Array = npt.NDArray[Any]

_COUNTS = 2**22  # held at once while tables are made


def equalizing(volume: Volume, tiles: Tiles, clip_limit: float) -> Waiting:
    """Return the tables of a volume's tiles, once stages have made them.

    Args:
        volume: the voxels, uint8 or uint16, in the blocks in which they are counted.
        tiles: of every section.
        clip_limit: as OpenCV's.
    """
    grid, bins = volume.grid, int(np.iinfo(volume.dtype).max) + 1
    scope = Scope("tiles", (volume.expression, grid, tiles, clip_limit))
    histograms = Histograms.named("tile-levels", len(grid), bins, grid.block[0] * tiles.near(grid.block), scope)
    blocks = _grid_of_tables(grid, tiles, bins)
    tables = ScratchSink("tile-tables", VolumeSpec(blocks.box, volume.dtype), blocks.block, scope)
    counting = Stage("count-tiles", grid, EvaluateVolumes.into(volume.expression, _CountTiles(histograms, grid, tiles)))
    making = Stage("make-tables", blocks, _MakeTables(histograms, tables, tiles, clip_limit))
    before = volume.expression.stages
    return waiting(tables, (*before, *in_order((counting, *histograms.table.stages(), making), after=before)))


def _grid_of_tables(grid: BlockGrid, tiles: Tiles, bins: int) -> BlockGrid:
    """Return the blocks in which tables are made: shape (z, tiles along y, tiles along x times grey values)."""
    deep, *block = grid.block
    high, wide = (min(axis.count, max(1, size // axis.size)) for size, axis in zip(block, tiles.axes, strict=True))
    while deep * high * wide * bins > _COUNTS and deep * high * wide > 1:
        if deep > 1:
            deep = -(-deep // 2)
        else:
            high, wide = (-(-high // 2), wide) if high >= wide else (high, -(-wide // 2))
    rows, columns = tiles.count
    box = BoundingBox((grid.box.start[0], 0, 0), (grid.box.stop[0], rows, columns * bins))
    return BlockGrid(box, (deep, high, wide * bins))


@dataclass(frozen=True)
class _CountTiles(Consumer):
    """Counts the grey values of the parts of tiles that lie in a block."""

    histograms: Histograms
    blocks: BlockGrid
    tiles: Tiles

    @property
    def grid(self) -> BlockGrid:
        return self.blocks

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Arrays:
        return self.histograms.rows(*count_tiles(arrays[0].reshape(box.shape), box, self.tiles))

    def write(self, box: BoundingBox, outputs: Arrays) -> BlockResult:
        (index,) = self.blocks.touching(box)
        self.histograms.table.write(index, outputs)
        return BlockResult()

    def further(self, box: BoundingBox) -> Estimate:
        counts = math.prod(self.tiles.touched(box).shape) * self.histograms.bins
        return Estimate(memory=8 * counts + 8 * box.shape[1] * box.shape[2])

    def check(self) -> None:
        kvstore.check_writable(self.histograms.table.scope.url)

    def describe(self) -> dict[str, Any]:
        return {"tiles": self.tiles.describe()}


def count_tiles(array: Array, box: BoundingBox, tiles: Tiles) -> tuple[Array, Array]:
    """Return the numbers of the tiles that have voxels in a block, and how often each grey value occurs in them.

    Args:
        array: the block (zyx), unsigned integers.
        box: where it lies.
        tiles: of its sections.
    """
    touched, ends = tiles.touched(box), tiles.local(box)
    down, across = (
        [axis.members(tile, *ends[n]) for tile in range(touched.start[n + 1], touched.stop[n + 1])]
        for n, axis in enumerate(tiles.axes)
    )
    counts = np.zeros((*touched.shape, np.iinfo(array.dtype).max + 1), np.uint32)
    for section, of_section in zip(array, counts, strict=True):
        for ys, of_row in zip(down, of_section, strict=True):
            band = section[ys]
            for xs, of_tile in zip(across, of_row, strict=True):
                of_tile[:] = np.bincount(band[:, xs].ravel(), minlength=len(of_tile))
    return tiles.numbers(touched), counts


@dataclass(frozen=True)
class _MakeTables(Task):
    """Makes the tables of some neighbouring tiles of a slab of sections from what was counted in the blocks."""

    histograms: Histograms
    tables: ScratchSink
    tiles: Tiles
    clip_limit: float

    def read(self, box: BoundingBox) -> npt.NDArray[np.int64]:
        """Return the histograms of the tiles, shape (z, y, x, grey values)."""
        bins = self.histograms.bins
        (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
        tiles = BoundingBox((z0, y0, x0 // bins), (z1, y1, x1 // bins))
        return self.histograms.read(self.tiles.numbers(tiles)).reshape(*tiles.shape, bins)

    def compute(self, box: BoundingBox, inputs: npt.NDArray[np.int64]) -> Array:
        return equalizing_tables(inputs, self.clip_limit, self.tables.spec.dtype).reshape(box.shape)

    def write(self, box: BoundingBox, outputs: Array) -> BlockResult:
        return self.tables.write(box, outputs)

    def check(self) -> None:
        self.tables.check()

    def estimate(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=6 * 8 * box.size)

    def describe(self) -> dict[str, Any]:
        return {"tables": self.tables.url, "clip_limit": self.clip_limit}
