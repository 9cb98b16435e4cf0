"""Stages that count the grey levels of every section: each block is read once, and a table adds the counts up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.operators.image.contrast.histograms import Histograms
from daskflow.operators.image.contrast.levels import (
    BINS,
    Counts,
    SectionLevels,
    levels_url,
    read_section,
    write_levels,
)
from daskflow.operators.image.contrast.patches import Sampling
from daskflow.operators.image.contrast.place import with_few_sections
from daskflow.scratch.records import Arrays
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Stage, Task, Volume, in_order
from daskflow.volume.node import Array
from daskflow.volume.stage import Bound, Scope

_LEVEL_BYTES = 2**25  # of the levels of a block


@dataclass(frozen=True)
class StoredLevels(Bound):
    """The levels of all sections, in files.

    Attributes:
        source: URL of their directory.
        grid: one block per slab of sections; of its boxes only z counts.
        bins: grey values that the dtype has.
    """

    source: str
    grid: BlockGrid
    bins: int

    def read(self, box: BoundingBox) -> Counts:
        """Return the counts of the sections of a box, shape (sections, bins)."""
        sections = range(box.start[0], box.stop[0])
        return np.array([read_section(self.source, z, self.bins).counts for z in sections])

    def check(self) -> None:
        """Raise unless the first and the last section have levels."""
        for z in {self.grid.box.start[0], self.grid.box.stop[0] - 1}:
            read_section(self.source, z, self.bins)

    def describe(self) -> dict[str, Any]:
        """Return where they are."""
        return {"levels": kvstore.redact(self.source)}


@dataclass(frozen=True)
class CountedLevels(Bound):
    """The levels of all sections, which stages count.

    Attributes:
        histograms: of the sections, numbered from the first one.
        grid: as in `StoredLevels`.
    """

    histograms: Histograms
    grid: BlockGrid

    @property
    def bins(self) -> int:
        """Grey values that the dtype has."""
        return self.histograms.bins

    def numbers(self, box: BoundingBox) -> range:
        """Return the numbers of the sections of a box."""
        return range(box.start[0] - self.grid.box.start[0], box.stop[0] - self.grid.box.start[0])

    def read(self, box: BoundingBox) -> Counts:
        """Return the counts of the sections of a box after the stages ran, shape (sections, bins)."""
        return self.histograms.read(self.numbers(box))

    def check(self) -> None:
        """Nothing can be known to fail."""

    def describe(self) -> dict[str, Any]:
        """Return which count it is."""
        return {"levels": self.histograms.table.name}


def stored_levels(volume: Volume, source: str) -> StoredLevels:
    """Return the levels of the sections of a volume that the files in a directory hold."""
    return StoredLevels(source, _slabs_of(_in_blocks(volume).grid), BINS[volume.dtype.name])


def counted_levels(volume: Volume, sampling: Sampling) -> tuple[CountedLevels, tuple[Stage, ...]]:
    """Return the levels of a volume and the stages that count them: the same for all that need the same levels."""
    grid, expression, bins = _in_blocks(volume).grid, volume.expression, BINS[volume.dtype.name]
    histograms = Histograms.named(
        "levels", len(grid), bins, grid.block[0], Scope("levels", (expression, repr(sampling), grid))
    )
    levels = CountedLevels(histograms, _slabs_of(grid))
    counting = Stage("count-levels", grid, EvaluateVolumes.into(expression, CountLevels(levels, grid, sampling)))
    return levels, in_order((counting, *histograms.table.stages()), after=expression.stages)


def _in_blocks(volume: Volume) -> Volume:
    """Return the volume in the blocks whose levels are counted."""
    return with_few_sections(volume, 8 * BINS[volume.dtype.name], _LEVEL_BYTES)


def _slabs_of(grid: BlockGrid) -> BlockGrid:
    """Return a grid whose blocks are the slabs of sections of another grid's, one voxel wide."""
    assert grid.origin is not None
    box = BoundingBox((grid.box.start[0], 0, 0), (grid.box.stop[0], 1, 1))
    return BlockGrid(box, (grid.block[0], 1, 1), (grid.origin[0], 0, 0))


@dataclass(frozen=True)
class CountLevels(Consumer):
    """Count the grey values of the sampled voxels of each section of a block.

    Attributes:
        levels: what they are part of.
        blocks: in which they are counted.
        sampling: which voxels count.
    """

    levels: CountedLevels
    blocks: BlockGrid
    sampling: Sampling

    @property
    def grid(self) -> BlockGrid:
        return self.blocks

    def needs(self, box: BoundingBox) -> BoundingBox | None:
        return self.sampling.hull(box)

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Arrays:
        counts = np.zeros((box.shape[0], self.levels.bins), np.int64)
        hull = self.needs(box)
        if hull is not None:
            array = arrays[0].reshape(hull.shape)
            for z, parts in self.sampling.within(box).items():
                for part in parts:
                    values = array[part.slices(hull)].ravel()
                    counts[z - box.start[0]] += np.bincount(values, minlength=self.levels.bins)
        return self.levels.histograms.rows(self.levels.numbers(box), counts)

    def write(self, box: BoundingBox, outputs: Arrays) -> BlockResult:
        (index,) = self.grid.touching(box)
        histograms = self.levels.histograms
        histograms.table.write(index, outputs)
        return BlockResult()

    def further(self, box: BoundingBox) -> Estimate:
        hull = self.needs(box)
        if hull is None:
            return Estimate()
        section = hull.shape[1] * hull.shape[2] * 8  # numpy counts int64
        return Estimate(memory=section + 2 * 8 * self.levels.bins * box.shape[0])

    def check(self) -> None:
        kvstore.check_writable(self.levels.histograms.table.scope.url)

    def describe(self) -> dict[str, Any]:
        sampling = self.sampling
        return {
            "sampling": [str(sampling.box), sampling.coverage, sampling.seed, list(sampling.patch)],
        }


@dataclass(frozen=True)
class StoreLevels(Task):
    """Write the levels of every section to a file of its own.

    Attributes:
        levels: what is written.
        sampling: what they were counted in.
        target: URL of the directory of the files.
    """

    levels: CountedLevels
    sampling: Sampling
    target: str

    def read(self, box: BoundingBox) -> Counts:
        return self.levels.read(box)

    def write(self, box: BoundingBox, outputs: Counts) -> BlockResult:
        sampling = self.sampling
        _, y, x = sampling.box.shape
        for z, counts in zip(range(box.start[0], box.stop[0]), outputs, strict=True):
            share = sampling.voxels(z) / (y * x)
            write_levels(self.target, z, SectionLevels(counts, sampling.patch_shape[1:], sampling.count, share))
        return BlockResult(counts={"sections": box.shape[0]})

    def estimate(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=4 * 8 * self.levels.bins * box.shape[0])

    def check(self) -> None:
        kvstore.check_writable(self.target)

    def intact(self) -> bool:
        """Return whether what earlier runs wrote is still there, told from the first file and the last."""
        sections = (self.sampling.box.start[0], self.sampling.box.stop[0] - 1)
        return all(kvstore.exists(levels_url(self.target, z)) for z in sections)

    def describe(self) -> dict[str, Any]:
        return {"store": self.levels.histograms.table.name, "in": kvstore.redact(self.target)}
