"""Stages that count the grey levels of every section: each block is read once, and the counts are merged per section.

blocks   z0 [ ][ ] ... [ ]      16 x 16 neighbours in y and x      z0 [ ]
         z1 [ ][ ] ... [ ]     ──────────────────────────────►     z1 [ ]      again, until one is left per z
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.errors import MissingChunkError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import Evaluate
from daskflow.operators.image.contrast.levels import Counts, SectionLevels, levels_url, read_section, write_levels
from daskflow.operators.image.contrast.patches import Sampling
from daskflow.scratch.records import Arrays, read_record, write_record
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage, Task, in_order
from daskflow.volume.node import Array

_FAN_IN = 16


@dataclass(frozen=True)
class Slabs:
    """The levels of all sections, as records of slabs of sections, and the stages that make them.

    Attributes:
        name: of the records.
        grid: one block per slab; of its boxes only z counts.
        bins: grey values that the dtype has.
        stages: in order.
    """

    name: str
    grid: BlockGrid
    bins: int
    stages: tuple[Stage, ...]

    def read(self, directory: str, slab: int) -> Counts:
        """Return the counts of a slab after the stages ran, shape (sections, bins).

        Raises:
            MissingChunkError: they are gone.
        """
        return read_counts(directory, self.name, slab, self.bins)


def count_levels(expression: Expression, grid: BlockGrid, sampling: Sampling, bins: int, key: str) -> Slabs:
    """Return the stages that count sampled voxels block by block and merge what they find.

    Args:
        expression: gives the voxels; one output, unsigned integers.
        grid: the blocks.
        sampling: which voxels count.
        bins: grey values that the dtype has.
        key: tells these records from those of another count in the same job.
    """
    name = f"levels-{key}"
    stages = [Stage("count-levels", grid, Evaluate.into(expression, CountLevels(grid, sampling, bins, name)))]
    nz, ny, nx = grid.shape
    level = 0
    while ny * nx > 1:
        level += 1
        merged = f"levels-{key}-{level}"
        places = BlockGrid(BoundingBox((0, 0, 0), (nz, ny, nx)), (1, _FAN_IN, _FAN_IN))
        stages.append(
            Stage(
                f"merge-levels-{level}", places, _MergeLevels(name, merged, places, bins, grid.block[0]), numbered=True
            )
        )
        name, (nz, ny, nx) = merged, places.shape
    return Slabs(name, slabs_of(grid), bins, in_order(stages, after=expression.stages))


def read_levels(directory: str, grid: BlockGrid, bins: int, key: str) -> Slabs:
    """Return the stage that takes levels from the files in a directory; other arguments as for `count_levels`."""
    name, slabs = f"levels-{key}", slabs_of(grid)
    return Slabs(name, slabs, bins, (Stage("read-levels", slabs, _ReadLevels(directory, slabs, bins, name)),))


def slabs_of(grid: BlockGrid) -> BlockGrid:
    """Return a grid whose blocks are the slabs of sections of another grid's, one voxel wide."""
    assert grid.origin is not None
    box = BoundingBox((grid.box.start[0], 0, 0), (grid.box.stop[0], 1, 1))
    return BlockGrid(box, (grid.block[0], 1, 1), (grid.origin[0], 0, 0))


@dataclass(frozen=True)
class CountLevels(Consumer):
    """Count the grey values of the sampled voxels of each section of a block.

    Attributes:
        blocks: in which they are counted.
        sampling: which voxels count.
        bins: grey values there are.
        name: of the records.
        directory: URL of the scratch directory, once bound.
    """

    blocks: BlockGrid
    sampling: Sampling
    bins: int
    name: str
    directory: str = ""

    @property
    def grid(self) -> BlockGrid:
        return self.blocks

    def needs(self, box: BoundingBox) -> BoundingBox | None:
        parts = [part for section in self.sampling.within(box).values() for part in section]
        hull = parts[0] if parts else None
        for part in parts[1:]:
            hull = part if hull is None else hull.union(part)
        return hull

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Counts:
        levels = np.zeros((box.shape[0], self.bins), np.int64)
        hull = self.needs(box)
        if hull is None:
            return levels
        array = arrays[0].reshape(hull.shape)
        for z, parts in self.sampling.within(box).items():
            for part in parts:
                levels[z - box.start[0]] += np.bincount(array[part.slices(hull)].ravel(), minlength=self.bins)
        return levels

    def write(self, box: BoundingBox, outputs: Counts) -> BlockResult:
        (index,) = self.grid.touching(box)
        write_record(self.directory, self.name, index, _narrowed(outputs))
        return BlockResult()

    def further(self, box: BoundingBox) -> Estimate:
        hull = self.needs(box)
        if hull is None:
            return Estimate()
        section = hull.shape[1] * hull.shape[2] * 8  # numpy counts int64
        return Estimate(memory=section + 2 * 8 * self.bins * box.shape[0])

    def check(self) -> None:
        kvstore.check_writable(self.directory)

    def describe(self) -> dict[str, Any]:
        sampling = self.sampling
        return {
            "sampling": [str(sampling.box), sampling.coverage, sampling.seed, list(sampling.patch)],
        }


@dataclass(frozen=True)
class _MergeLevels(Task):
    """Adds up the counts of neighbouring blocks of one slab.

    Attributes:
        source: name of the records that are read, by the C-order index of a block's place.
        target: name of those that are written.
        places: groups of places.
        bins: grey values there are.
        sections: of a slab, at most.
        directory: URL of the scratch directory, once bound.
    """

    source: str
    target: str
    places: BlockGrid
    bins: int
    sections: int
    directory: str = ""

    def read(self, box: BoundingBox) -> Counts:
        """Return the counts of the blocks, added up record after record."""
        total: Counts | None = None
        for index in BlockGrid(self.places.box, (1, 1, 1)).touching(box):
            counts = read_counts(self.directory, self.source, index, self.bins)
            total = counts if total is None else np.add(total, counts, out=total)
        assert total is not None
        return total

    def write(self, box: BoundingBox, outputs: Counts) -> BlockResult:
        (index,) = self.places.touching(box)
        write_record(self.directory, self.target, index, _narrowed(outputs))
        return BlockResult()

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        return Estimate(memory=3 * 8 * self.bins * self.sections)

    def describe(self) -> dict[str, Any]:
        return {"merge": self.source}


@dataclass(frozen=True)
class _ReadLevels(Task):
    """Takes the levels of the sections of a slab from files."""

    source: str
    grid: BlockGrid
    bins: int
    name: str
    directory: str = ""

    def read(self, box: BoundingBox) -> Counts:
        sections = range(box.start[0], box.stop[0])
        return np.array([read_section(self.source, z, self.bins).counts for z in sections])

    def write(self, box: BoundingBox, outputs: Counts) -> BlockResult:
        (index,) = self.grid.touching(box)
        write_record(self.directory, self.name, index, _narrowed(outputs))
        return BlockResult()

    def estimate(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=2 * 8 * self.bins * box.shape[0])

    def check(self) -> None:
        for z in {self.grid.box.start[0], self.grid.box.stop[0] - 1}:
            read_section(self.source, z, self.bins)
        kvstore.check_writable(self.directory)

    def describe(self) -> dict[str, Any]:
        return {"levels": kvstore.redact(self.source)}


@dataclass(frozen=True)
class StoreLevels(Task):
    """Write the levels of every section to a file of its own.

    Attributes:
        slabs: has them.
        sampling: what they were counted in.
        target: URL of the directory of the files.
        directory: URL of the scratch directory, once bound.
    """

    slabs: Slabs
    sampling: Sampling
    target: str
    directory: str = ""

    def read(self, box: BoundingBox) -> Counts:
        (slab,) = self.slabs.grid.touching(box)
        return self.slabs.read(self.directory, slab)

    def compute(self, box: BoundingBox, inputs: Counts) -> dict[int, SectionLevels]:
        sampling = self.sampling
        _, y, x = sampling.box.shape
        return {
            z: SectionLevels(counts, sampling.patch_shape[1:], sampling.count, sampling.voxels(z) / (y * x))
            for z, counts in zip(range(box.start[0], box.stop[0]), inputs, strict=True)
        }

    def write(self, box: BoundingBox, outputs: dict[int, SectionLevels]) -> BlockResult:  # noqa: ARG002
        for z, levels in outputs.items():
            write_levels(self.target, z, levels)
        return BlockResult(counts={"sections": len(outputs)})

    def estimate(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=4 * 8 * self.slabs.bins * box.shape[0])

    def check(self) -> None:
        kvstore.check_writable(self.target)

    def intact(self) -> bool:
        """Return whether what earlier runs wrote is still there, told from the first file and the last."""
        sections = (self.sampling.box.start[0], self.sampling.box.stop[0] - 1)
        return all(kvstore.exists(levels_url(self.target, z)) for z in sections)

    def describe(self) -> dict[str, Any]:
        return {"store": self.slabs.name, "in": kvstore.redact(self.target)}


def _narrowed(levels: Counts) -> Arrays:
    """Return counts as a record: those of the values between the lowest and the highest that occur."""
    present = np.flatnonzero(levels.any(axis=0))
    low, high = (int(present[0]), int(present[-1]) + 1) if present.size else (0, 0)
    return {"counts": np.ascontiguousarray(levels[:, low:high]), "low": np.array([low])}


def read_counts(directory: str, name: str, index: int, bins: int) -> Counts:
    """Return the counts in a record, shape (sections, bins).

    Raises:
        MissingChunkError: there is no such record.
    """
    record = read_record(directory, name, index)
    if record is None:
        raise MissingChunkError(f"levels in {directory} are gone; delete the job's directory and run it again")
    counts, low = record["counts"], int(record["low"][0])
    levels = np.zeros((len(counts), bins), np.int64)
    levels[:, low : low + counts.shape[1]] = counts
    return levels
