r"""Small basins joined to the basin that each touches best, in rounds that do not depend on blocks.

blocks   sizes, and the best contact of each basin ─► a table of all
blocks   label what is joined, then the passes of a labelling
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.operators.geometry.declare import as_it_is
from daskflow.operators.segmentation._contacts import crossings_of, numbered
from daskflow.operators.segmentation.connected_components.blocks import (
    NOTHING,
    Components,
    earliest,
    first_indices,
    global_indices,
    planes_of,
)
from daskflow.operators.segmentation.connected_components.scratch import Labelling
from daskflow.operators.segmentation.connected_components.stages import LabelBlocks, labelled
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import Table, found_in
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage, Volume, in_order
from daskflow.volume.stage import Bound, Scope

Array = npt.NDArray[Any]

MOST_VOXELS = 2**48  # so that labels leave 16 bits for an affinity
_LABEL = np.uint64(MOST_VOXELS - 1)
_BITS = np.uint64(48)
_VOXEL_BYTES = 40  # of labels three times over, as they are numbered, and of the contacts


@dataclass(frozen=True)
class Small(Bound):
    """One round: basins of fewer than `size` voxels join the one they touch best, over affinities above `low`."""

    grid: BlockGrid
    size: int
    low: int
    scope: Scope

    @property
    def basins(self) -> Table:
        """Of each basin its voxels, and the best affinity to another (16 bits) with the larger label of such (48)."""
        return Table("basins", len(self.grid), {"regions": "key", "sizes": "sum", "best": "max"}, self.scope)

    def around(self, box: BoundingBox) -> BoundingBox:
        """Return a box with the voxels before it."""
        return box.grow(1, 0).clip(self.grid.box)


def small_joined(basins: Volume, edges: Volume, size: int, low: int, dust: int) -> Volume:
    """Return basins of a volume (zyx) after a round, numbered 1 to n in the order of their first voxels.

    Every basin of fewer than `size` voxels picks, of the contacts with others above `low`, that of the greatest
    affinity, of equal ones that with the larger label; then all picks are joined at once. `edges` are as
    `_affinities.edges` has them, of the same box; basins must be connected (6). Those of fewer than `dust` voxels after
    the round become background.
    """
    expression = Expression([edges.node, basins.node])
    grid = BlockGrid(edges.box, edges.block, edges.spec.chunk_origin)
    one = Small(grid, size, low, Scope("small-basins", (expression, size, low, grid)))
    touch = Stage("find-small", grid, EvaluateVolumes.into(expression, FindSmall(one)))
    stages = in_order((touch, *one.basins.stages()), after=expression.stages)
    known = basins.map_after(as_it_is, left=one, stages=(*expression.stages, *stages), spec=basins.spec).expression
    labelling = Labelling(grid, 6, Scope("grown-basins", (known, size, low, dust, grid)), dust)
    return labelled(LabelGrown(labelling, one), known, basins.spec)


@dataclass(frozen=True)
class FindSmall(Consumer):
    """Count the voxels of the basins of every block, and find the best contact of each."""

    small: Small

    @property
    def grid(self) -> BlockGrid:
        return self.small.grid

    def needs(self, box: BoundingBox) -> BoundingBox:
        return self.small.around(box)

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Arrays:
        around = self.needs(box)
        inside = box.slices(around)
        found = crossings_of(arrays[0][(slice(None), *inside)], arrays[1].reshape(around.shape))
        contacts = found.totals("max")
        best = np.zeros(len(found.regions), np.uint64)
        for mine, other in ((0, 1), (1, 0)):
            ends = contacts["ends"]
            values = contacts["sums"].astype(np.uint64) << _BITS | found.regions[ends[:, other]]
            np.maximum.at(best, ends[:, mine], values)
        sizes = np.bincount(found.numbers[inside].reshape(-1), minlength=len(found.regions) + 1)[1:]
        return {"regions": found.regions, "sizes": sizes, "best": best}

    def write(self, box: BoundingBox, outputs: Arrays) -> BlockResult:
        (block,) = self.grid.touching(box)
        self.small.basins.write(block, outputs)
        return BlockResult(empty=not len(outputs["regions"]))

    def further(self, box: BoundingBox) -> Estimate:
        return Estimate(bytes_written=box.size, memory=box.size * _VOXEL_BYTES)

    def check(self) -> None:
        kvstore.check_writable(self.small.scope.url)

    def describe(self) -> dict[str, Any]:
        return {"small": self.small.size, "low": self.small.low}


@dataclass(frozen=True)
class LabelGrown(LabelBlocks):
    """Label the basins of every block with those that they are joined to."""

    small: Small

    def needs(self, box: BoundingBox) -> BoundingBox:
        return self.small.around(box)

    def compute(self, box: BoundingBox, arrays: list[Array]) -> tuple[Array, Components]:
        import fastremap

        around, whole = self.needs(box), self.labelling.grid.box
        regions, numbers = numbered(arrays[0].reshape(around.shape))
        joined = np.concatenate((np.zeros(1, np.int64), 1 + self._joined(regions)))[numbers]
        inside = box.slices(around)
        own = np.ascontiguousarray(joined[inside])
        if not own.any():
            return np.zeros(box.shape, np.uint32), NOTHING
        labels = fastremap.renumber(own, preserve_zero=True)[0].astype(np.uint32, copy=False)
        count = int(labels.max())
        faces = [self._goes_on(joined, inside, axis) for axis in range(3)]
        firsts = global_indices(first_indices(labels, count), box, whole)
        sizes = np.bincount(labels.reshape(-1), minlength=count + 1)[1:] if self.labelling.dust else None
        return labels, Components(count, firsts, None, planes_of(labels, box, whole, faces), sizes)

    def _goes_on(self, joined: Array, inside: tuple[slice, slice, slice], axis: int) -> Array:
        """Return where the first layer of a block, given with what is before it, is joined to the one before."""
        first, before = list(inside), list(inside)
        first[axis], before[axis] = (slice(start, start + 1) for start in (inside[axis].start, 0))
        found: Array = (joined[tuple(first)] == joined[tuple(before)]).take(0, axis)
        return found

    def _joined(self, regions: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return of each of some basins (rising) which of them it is joined to, all that are alike."""
        known = self.small.basins.of(regions)
        picks = (known["sizes"] < self.small.size) & (known["best"] >> _BITS > self.small.low)
        at, there = found_in(regions, known["best"][picks] & _LABEL)
        return earliest(len(regions), np.stack((np.flatnonzero(picks)[there], at[there]), axis=1))

    def further(self, box: BoundingBox) -> Estimate:
        known = super().further(box)
        return Estimate(bytes_written=known.bytes_written, memory=box.size * _VOXEL_BYTES)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"small": self.small.size, "low": self.small.low}
