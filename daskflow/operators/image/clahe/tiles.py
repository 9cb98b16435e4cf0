"""The tiles of a section whose histograms CLAHE equalises, and how voxels lie between their centres.

Geometry as OpenCV has it: a section whose sizes the numbers of tiles do not both divide is padded at its high sides, by
mirroring without the edge voxel, up to the next multiple (and by a whole multiple on a side that was one).

      0                        n   n+pad
      |-----|-----|-----|-----|-:--|          e < n: the voxel itself;  e >= n: its mirror image, 2n - 2 - e
       tile 0   1     2     3      4
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox, Zyx
from daskflow.volume.description import Option

Indices = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]


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
        mirrored = self.length + np.flatnonzero(
            self._within(self._sources(self.length, self._padded_length), start, stop)
        )
        tiles = [start // self.size, (stop - 1) // self.size, *(mirrored // self.size).tolist()]
        return min(tiles), max(tiles) + 1

    @staticmethod
    def _within(places: Indices, start: int, stop: int) -> npt.NDArray[np.bool_]:
        return (start <= places) & (places < stop)

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
