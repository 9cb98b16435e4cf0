"""Contrast-limited adaptive histogram equalisation of sections."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.jobs.sinks import ScratchSink
from daskflow.operators.image.clahe.tiles import Tiles, equalize, equalizing_tables
from daskflow.operators.image.contrast.tables import CountHistograms, Histograms, grey_image, look_up, with_few_sections
from daskflow.scratch.records import Arrays
from daskflow.volume import BlockResult, Estimate, Stage, Task, Volume, in_order, operator
from daskflow.volume.stage import Scope

Array = npt.NDArray[Any]

_TABLE_BYTES = 2**26  # that a block may look up, each section in its own
_COUNTS = 2**22  # held at once while tables are made


@operator(takes="image")
def clahe(volume: Volume, *, clip_limit: float = 40.0, tile_grid: Sequence[int] = (8, 8)) -> Volume:
    """Equalise the contrast of every section locally (CLAHE), the same for any blocks.

    Every voxel is what OpenCV's ``createCLAHE`` makes of it on the whole section, which no worker has to hold. The
    result waits for two passes, which a job runs by itself: count the grey values of every tile, reading every block
    once, and make a table of each tile.

    Args:
        volume: a uint8 or uint16 image with one channel.
        clip_limit: how steep contrast may become: counts are cut off at so many times the mean count of a tile; 0 or
            less for no limit.
        tile_grid: tiles of a section along y and x.

    Returns:
        An image of the same dtype.

    Raises:
        ParameterError: a segmentation, another dtype, several channels, or not two numbers of at least one tile.
    """
    grey_image(volume, "clahe")
    if math.isnan(clip_limit):
        raise ParameterError("clip limit is nan; give a number")
    tiles = Tiles(volume.box, _grid(tile_grid))
    bins = int(np.iinfo(volume.dtype).max) + 1
    volume = with_few_sections(volume, tiles.near(volume.block) * bins * volume.dtype.itemsize, _TABLE_BYTES)
    expression, grid = volume.expression, volume.grid
    scope = Scope("tiles", (expression, grid, tiles))
    histograms = Histograms.named("tile-levels", len(grid), bins, grid.block[0] * tiles.near(grid.block), scope)
    blocks = _grid_of_tables(grid, tiles, bins)
    made = Scope("tables", (scope, float(clip_limit)))
    tables = ScratchSink("tile-tables", VolumeSpec(blocks.box, volume.dtype), blocks.block, made)
    counting = Stage("count-tiles", grid, EvaluateVolumes.into(expression, _CountTiles(histograms, grid, tiles)))
    making = Stage("make-tables", blocks, _MakeTables(histograms, tables, tiles, float(clip_limit)))
    before = expression.stages
    stages = (*before, *in_order((counting, *histograms.table.stages(), making), after=before))
    where = functools.partial(_tables_of, tiles=tiles, bins=bins)
    return look_up(volume, tables, stages, equalize, where=where, memory=_working, tiles=tiles)


def _grid(tile_grid: Sequence[int]) -> tuple[int, int]:
    numbers = np.asarray(tile_grid)
    if numbers.shape != (2,) or numbers.dtype.kind not in "iu" or numbers.min() < 1:
        raise ParameterError(f"tile grid {tile_grid} must be two numbers of tiles, along y and x, of at least 1")
    return int(numbers[0]), int(numbers[1])


def _tables_of(box: BoundingBox, tiles: Tiles, bins: int) -> BoundingBox:
    """Return the box of the tables that the voxels of a box are interpolated from."""
    (top, bottom), (left, right) = (
        axis.neighbours(*ends) for axis, ends in zip(tiles.axes, tiles.local(box), strict=True)
    )
    return BoundingBox((box.start[0], top, left * bins), (box.stop[0], bottom, right * bins))


def _working(box: BoundingBox) -> float:
    """Return the bytes for one section: indices of both tables, and two mixtures."""
    return 40.0 * box.shape[1] * box.shape[2]


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
class _CountTiles(CountHistograms):
    """Counts the grey values of the parts of tiles that lie in a block."""

    tiles: Tiles

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Arrays:
        return self.histograms.rows(*count_tiles(arrays[0].reshape(box.shape), box, self.tiles))

    def further(self, box: BoundingBox) -> Estimate:
        counts = math.prod(self.tiles.touched(box).shape) * self.histograms.bins
        return Estimate(memory=8 * counts + 8 * box.shape[1] * box.shape[2])

    def describe(self) -> dict[str, Any]:
        return {"tiles": self.tiles.describe()}


def count_tiles(array: Array, box: BoundingBox, tiles: Tiles) -> tuple[Array, Array]:
    """Return the numbers of the tiles that have voxels in a block (zyx), and how often each grey value is in them."""
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
