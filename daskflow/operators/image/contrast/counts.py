"""The grey levels of every section: which patches they are counted in, and the stages that count them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.geometry import BlockGrid, BoundingBox, Zyx
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.operators.geometry._padding import without_padding
from daskflow.operators.image.contrast.levels import BINS, Counts, read_section
from daskflow.operators.image.contrast.tables import CountHistograms, Histograms, with_few_sections
from daskflow.scratch.records import Arrays
from daskflow.stores import kvstore
from daskflow.volume import Estimate, Stage, Volume, in_order
from daskflow.volume.node import Array
from daskflow.volume.stage import Bound, Scope

PATCH = (2048, 2048)
_LEVEL_BYTES = 2**25  # of the levels of a block


@dataclass(frozen=True)
class Sampling:
    """Some of the patches that tile each section, drawn by seed and z.

    Attributes:
        box: the volume, from whose corner patches are counted.
        coverage: share of the patches of a section that is drawn, rounded up to whole patches.
        seed: another one draws other patches.
        patch: voxels of a patch (yx).

    Raises:
        ParameterError: a coverage that is not above 0 and at most 1.
    """

    box: BoundingBox
    coverage: float
    seed: int
    patch: tuple[int, int] = PATCH

    def __post_init__(self) -> None:
        if not 0 < self.coverage <= 1:
            raise ParameterError(f"coverage {self.coverage} must be above 0 and at most 1, the share that is sampled")

    @functools.cached_property
    def _patches(self) -> BlockGrid:
        (_, *start), (_, *stop) = self.box.start, self.box.stop
        flat = BoundingBox((0, start[0], start[1]), (1, stop[0], stop[1]))
        return BlockGrid(flat, (1, *self.patch))

    @property
    def _whole(self) -> bool:
        return self.count >= len(self._patches)

    @property
    def count(self) -> int:
        """Patches drawn in each section."""
        return math.ceil(len(self._patches) * self.coverage - 1e-9)

    @property
    def patch_shape(self) -> Zyx:
        """Voxels of a patch that lies wholly in the section (zyx)."""
        _, y, x = self._patches[0].shape
        return 1, y, x

    def patches(self, z: int) -> list[int]:
        """Return the numbers of the patches drawn in the section at z, ascending."""
        total, count = len(self._patches), self.count
        if count >= total:
            return list(range(total))
        ranks = _mixed(np.arange(total, dtype=np.uint64), self.seed, z)
        return sorted(np.argsort(ranks, kind="stable")[:count].tolist())

    def voxels(self, z: int) -> int:
        """Return how many voxels of the section at z are sampled."""
        return sum(self._patches[patch].size for patch in self.patches(z))

    def hull(self, box: BoundingBox) -> BoundingBox | None:
        """Return the box around what is sampled of another; None when nothing is."""
        if self._whole:
            return box
        parts = [part for section in self.within(box).values() for part in section]
        return functools.reduce(BoundingBox.union, parts) if parts else None

    def within(self, box: BoundingBox) -> dict[int, list[BoundingBox]]:
        """Return the parts of `box` that are sampled, by section."""
        if self._whole:
            return {z: [_section(box, z)] for z in range(box.start[0], box.stop[0])}
        (_, y0, x0), (_, y1, x1) = box.start, box.stop
        near = set(self._patches.touching(BoundingBox((0, y0, x0), (1, y1, x1))))
        found: dict[int, list[BoundingBox]] = {}
        for z in range(box.start[0], box.stop[0]):
            drawn = near.intersection(self.patches(z))
            parts = [self._patches[patch].shift((z, 0, 0)).clip(box) for patch in sorted(drawn)]
            if parts:
                found[z] = parts
        return found


def _section(box: BoundingBox, z: int) -> BoundingBox:
    (_, y0, x0), (_, y1, x1) = box.start, box.stop
    return BoundingBox((z, y0, x0), (z + 1, y1, x1))


def _mixed(
    numbers: np.ndarray[tuple[int], np.dtype[np.uint64]], seed: int, z: int
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return pseudo-random numbers that follow from some numbers, a seed and z: rounds of splitmix64."""
    mask = (1 << 64) - 1
    mixed = numbers
    for salt in (seed, z, 0x9E3779B97F4A7C15):
        mixed = mixed + np.uint64((salt * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & mask)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed


@dataclass(frozen=True)
class StoredLevels:
    """The levels of all sections, in files.

    Attributes:
        source: URL of their directory.
        first: the first section that must have levels.
        last: the last section that must have levels.
        bins: grey values that the dtype has.
    """

    source: str
    first: int
    last: int
    bins: int

    def of(self, z: int, *, black: bool) -> Counts:
        """Return the counts of a section; one that is all `black`, beyond the data, needs none."""
        try:
            return read_section(self.source, z, self.bins).counts
        except StoreNotFoundError:
            if not black:
                raise
        return np.zeros(self.bins, np.int64)

    def check(self) -> None:
        """Raise unless the first and the last section have levels."""
        for z in {self.first, self.last}:
            read_section(self.source, z, self.bins)

    def describe(self) -> dict[str, Any]:
        """Return where they are."""
        return {"levels": kvstore.redact(self.source)}


@dataclass(frozen=True)
class CountedLevels(Bound):
    """The levels of all sections, which stages count.

    Attributes:
        histograms: of the sections, numbered from the first one.
        grid: one block per slab of sections; of its boxes only z counts.
        together: all sections have the levels of the whole volume.
    """

    histograms: Histograms
    grid: BlockGrid
    together: bool = False

    @property
    def bins(self) -> int:
        """Grey values that the dtype has."""
        return self.histograms.bins

    def read(self, box: BoundingBox) -> Counts:
        """Return the counts of the sections of a box after the stages ran, shape (sections, bins)."""
        return self.histograms.read(_numbers(box, self.grid.box, together=self.together))

    def describe(self) -> dict[str, Any]:
        """Return which count it is."""
        return {"levels": self.histograms.table.name}


def stored_levels(volume: Volume, source: str) -> StoredLevels:
    """Return the levels of the sections of a volume that the files in a directory hold."""
    data = without_padding(volume)
    return StoredLevels(source, data.start[0], data.stop[0] - 1, BINS[volume.dtype.name])


def counted_levels(
    volume: Volume, sampling: Sampling, *, together: bool = False
) -> tuple[CountedLevels, tuple[Stage, ...]]:
    """Return the levels of a volume and the stages that count them: the same for all that need the same levels.

    If `together`, those of all sections are added up.
    """
    expression, bins = volume.expression, BINS[volume.dtype.name]
    grid = with_few_sections(volume, 8 * bins, _LEVEL_BYTES).grid
    name = "volume-levels" if together else "levels"
    scope = Scope(name, (expression, repr(sampling), grid))
    histograms = Histograms.named(name, len(grid), bins, grid.block[0], scope)
    levels = CountedLevels(histograms, _slabs_of(grid), together)
    count = CountLevels(histograms, grid, sampling, together)
    counting = Stage(f"count-{name}", grid, EvaluateVolumes.into(expression, count))
    return levels, in_order((counting, *histograms.table.stages()), after=expression.stages)


def _numbers(box: BoundingBox, whole: BoundingBox, *, together: bool = False) -> Sequence[int]:
    """Return the numbers of the histograms of the sections of a box, from the first section of the whole."""
    return [0] * box.shape[0] if together else range(box.start[0] - whole.start[0], box.stop[0] - whole.start[0])


def _slabs_of(grid: BlockGrid) -> BlockGrid:
    """Return a grid whose blocks are the slabs of sections of another grid's, one voxel wide."""
    assert grid.origin is not None
    box = BoundingBox((grid.box.start[0], 0, 0), (grid.box.stop[0], 1, 1))
    return BlockGrid(box, (grid.block[0], 1, 1), (grid.origin[0], 0, 0))


@dataclass(frozen=True)
class CountLevels(CountHistograms):
    """Count the grey values of the sampled voxels of each section of a block, or of all `together`."""

    sampling: Sampling
    together: bool = False

    def needs(self, box: BoundingBox) -> BoundingBox | None:
        return self.sampling.hull(box)

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Arrays:
        bins = self.histograms.bins
        counts = np.zeros((box.shape[0], bins), np.int64)
        hull = self.needs(box)
        if hull is not None:
            array = arrays[0].reshape(hull.shape)
            for z, parts in self.sampling.within(box).items():
                for part in parts:
                    values = array[part.slices(hull)].ravel()
                    counts[z - box.start[0]] += np.bincount(values, minlength=bins)
        if self.together:
            return self.histograms.rows([0], counts.sum(axis=0, keepdims=True))
        return self.histograms.rows(_numbers(box, self.sampling.box), counts)

    def further(self, box: BoundingBox) -> Estimate:
        hull = self.needs(box)
        if hull is None:
            return Estimate()
        section = hull.shape[1] * hull.shape[2] * 8  # numpy counts int64
        return Estimate(memory=section + 2 * 8 * self.histograms.bins * box.shape[0])

    def describe(self) -> dict[str, Any]:
        sampling = self.sampling
        drawn = [str(sampling.box), sampling.coverage, sampling.seed, list(sampling.patch)]
        return {"sampling": drawn, **({"together": True} if self.together else {})}
