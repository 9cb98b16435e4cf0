"""The tiles of a section whose histograms CLAHE equalises, and how voxels are interpolated between their tables.

Geometry as OpenCV has it: a section whose sizes the numbers of tiles do not both divide is padded at its high sides, by
mirroring without the edge voxel, up to the next multiple (and by a whole multiple on a side that was one).

      0                        n   n+pad
      |-----|-----|-----|-----|-:--|          e < n: the voxel itself;  e >= n: its mirror image, 2n - 2 - e
       tile 0   1     2     3      4

Clipping, tables and interpolation are those of Zuiderveld (1994, Graphics Gems IV, VIII.5), as OpenCV has them.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox, Zyx
from daskflow.volume.description import Option

Indices = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tiles(Option):
    """The tiles of every section of a volume.

    Attributes:
        box: the volume.
        count: tiles along y and x.
    """

    box: BoundingBox
    count: tuple[int, int]

    @functools.cached_property
    def axes(self) -> tuple[TileAxis, TileAxis]:
        """The tiles along y and along x."""
        (_, height, width), (rows, columns) = self.box.shape, self.count
        padded = height % rows != 0 or width % columns != 0
        return TileAxis(height, rows, padded), TileAxis(width, columns, padded)

    @property
    def voxels(self) -> int:
        """Voxels of a tile."""
        return self.axes[0].size * self.axes[1].size

    def local(self, box: BoundingBox) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return where a box begins and ends along y and along x, counted from the section's corner."""
        (_, y0, x0), (_, y1, x1), (_, y, x) = box.start, box.stop, self.box.start
        return (y0 - y, y1 - y), (x0 - x, x1 - x)

    def touched(self, box: BoundingBox) -> BoundingBox:
        """Return the sections of a box and the tiles that have voxels in it (z, tiles along y, tiles along x)."""
        (top, bottom), (left, right) = (
            axis.touched(*ends) for axis, ends in zip(self.axes, self.local(box), strict=True)
        )
        return BoundingBox((box.start[0], top, left), (box.stop[0], bottom, right))

    def numbers(self, tiles: BoundingBox) -> Indices:
        """Return the numbers of some tiles of some sections, in their order."""
        (z0, y0, x0), (z1, y1, x1) = tiles.start, tiles.stop
        z, y, x = np.ogrid[z0 - self.box.start[0] : z1 - self.box.start[0], y0:y1, x0:x1]
        return ((z * self.count[0] + y) * self.count[1] + x).ravel()

    def near(self, block: Zyx) -> int:
        """Return how many tiles of a section the voxels of a block may be interpolated from, at most."""
        sides = zip(self.axes, block[1:], strict=True)
        return math.prod(min(axis.count, size // axis.size + 2) for axis, size in sides)

    def describe(self) -> Any:
        """Return what the tiles are, as JSON."""
        return [str(self.box), list(self.count)]


@dataclass(frozen=True)
class TileAxis:
    """The tiles along one axis.

    Attributes:
        length: voxels of the section.
        count: tiles.
        padded: whether the section is padded.
    """

    length: int
    count: int
    padded: bool

    @property
    def _padded_length(self) -> int:
        return self.length + (self.count - self.length % self.count if self.padded else 0)

    @property
    def size(self) -> int:
        """Voxels of a tile."""
        return self._padded_length // self.count

    def _sources(self, start: int, stop: int) -> Indices:
        """Return the voxels that stand at some places of the padded section."""
        if self.length == 1:
            return np.zeros(stop - start, np.int64)
        period = 2 * self.length - 2
        places = np.arange(start, stop) % period
        return np.where(places < self.length, places, period - places)

    def members(self, tile: int, start: int, stop: int) -> Indices | slice:
        """Return the voxels of a tile between `start` and `stop`, from `start` on, as often as the tile has them."""
        low, high = tile * self.size, (tile + 1) * self.size
        if high <= self.length:
            return slice(min(max(low - start, 0), stop - start), max(min(high, stop) - start, 0))
        sources = self._sources(low, high)
        return sources[(start <= sources) & (sources < stop)] - start

    def touched(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first tile with a voxel between `start` and `stop`, and one past the last."""
        sources = self._sources(self.length, self._padded_length)
        mirrored = self.length + np.flatnonzero((start <= sources) & (sources < stop))
        tiles = [start // self.size, (stop - 1) // self.size, *(mirrored // self.size).tolist()]
        return min(tiles), max(tiles) + 1

    def between(self, start: int, stop: int) -> tuple[Indices, Indices, Weights, Weights]:
        """Return, for the voxels from `start` to `stop`, the tiles whose centres they lie between, and their weights.

        Single precision throughout, in OpenCV's order.
        """
        one = np.float32(1)
        places = np.arange(start, stop, dtype=np.float32) * (one / np.float32(self.size)) - np.float32(0.5)
        first = np.floor(places).astype(np.int64)
        after = places - first.astype(np.float32)
        return np.maximum(first, 0), np.minimum(first + 1, self.count - 1), one - after, after

    def neighbours(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first tile that voxels from `start` to `stop` are interpolated from, and one past the last."""
        first, second, _, _ = self.between(start, stop)
        return int(first[0]), int(second[-1]) + 1


def equalizing_tables(histograms: Counts, clip_limit: float, dtype: np.dtype[Any]) -> Array:
    """Return, for every tile, the table of what its grey values become.

    Counts above the limit are cut off and given back evenly to all values, the rest to every n-th one; the table is the
    cumulative count, scaled to the dtype's range in single precision. The last axis of the histograms is of grey
    values, and all tiles have as many voxels. There is no limit at 0 or below.
    """
    bins = histograms.shape[-1]
    voxels = int(histograms[(0,) * (histograms.ndim - 1)].sum())
    if clip_limit > 0:
        limit = max(int(clip_limit * voxels / bins), 1)
        cut = np.maximum(histograms - limit, 0).sum(axis=-1, keepdims=True)
        share, rest = np.divmod(cut, bins)
        step = np.maximum(bins // np.maximum(rest, 1), 1)
        values = np.arange(bins)
        extra = (values % step == 0) & (values // step < rest)
        histograms = np.minimum(histograms, limit) + share + extra
    scale = np.float32(bins - 1) / np.float32(voxels)
    tables = np.cumsum(histograms, axis=-1).astype(np.float32) * scale
    rounded: Array = np.clip(np.rint(tables), 0, bins - 1).astype(dtype)
    return rounded


def equalize(array: Array, table: Array, *, box: BoundingBox, read_box: BoundingBox, tiles: Tiles) -> Array:
    """Return an array in which every voxel is interpolated between what the tables of the four nearest tiles say.

    The array is zyx, or czyx with one channel; `table` has the tables of the tiles in `read_box`, shape (z, tiles along
    y, tiles along x times grey values).
    """
    bins = np.iinfo(array.dtype).max + 1
    rows, columns = tiles.local(box)
    top, bottom, above, below = tiles.axes[0].between(*rows)
    left, right, before, after = tiles.axes[1].between(*columns)
    offset = read_box.start[2] // bins
    to_left, to_right = (left - offset) * bins, (right - offset) * bins
    bands = _bands(top + bottom)
    sections, result = array.reshape(box.shape), np.empty(box.shape, array.dtype)
    for section, tables, out in zip(sections, table, result, strict=True):
        values = tables.astype(np.float32)
        for start, stop in bands:
            grey = section[start:stop].astype(np.intp)
            first, second = grey + to_left, grey + to_right
            high = _mixed(values[top[start] - read_box.start[1]], first, second, before, after)
            low = _mixed(values[bottom[start] - read_box.start[1]], first, second, before, after)
            high *= above[start:stop, None]
            low *= below[start:stop, None]
            high += low
            out[start:stop] = np.rint(high, out=high)
    return result.reshape(array.shape)


def _mixed(values: Array, first: Array, second: Array, before: Array, after: Array) -> Array:
    """Return the mean of what two tables say, weighted by where the voxels of a row lie between their tiles."""
    mixed = values.take(first)
    mixed *= before
    other = values.take(second)
    other *= after
    mixed += other
    return mixed


def _bands(tiles: Array) -> list[tuple[int, int]]:
    """Return the runs of rows between the same tiles, whose numbers, added up, never descend."""
    cuts = [0, *(np.flatnonzero(np.diff(tiles)) + 1).tolist(), len(tiles)]
    return list(itertools.pairwise(cuts))
