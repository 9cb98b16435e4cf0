"""Watershed of affinities: basins, the fragments that agglomeration merges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError, optional_module
from daskflow.geometry import BlockGrid, BoundingBox, as_zyx
from daskflow.operators import options
from daskflow.operators.segmentation import _affinities as affinity
from daskflow.operators.segmentation.connected_components.blocks import Components, global_indices, planes_of
from daskflow.operators.segmentation.connected_components.scratch import Labelling
from daskflow.operators.segmentation.connected_components.stages import LabelBlocks, labelled
from daskflow.operators.segmentation.watershed.small import MOST_VOXELS, small_joined
from daskflow.volume import Estimate, Flag, Volume, operator
from daskflow.volume.stage import Scope

Array = npt.NDArray[Any]

_VOXEL_BYTES = 12  # parents, labels, best edges, and sizes where there is dust


@operator()
def watershed(
    affinities: Annotated[Volume, Flag("-i")],
    mask: Volume | None = None,
    *,
    low: affinity.Low = 0.001,
    high: affinity.High = 0.9999,
    min_size: Annotated[int, "basins of fewer voxels join the one that they touch best."] = 0,
    rounds: Annotated[int, "how many times small basins join, all at once each time."] = 3,
    dust: options.Dust = 0,
    order: affinity.Order = "xyz",
    offsets: affinity.Offsets | None = None,
) -> Volume:
    """Cut a volume into basins of its affinities, the same for any blocks.

    Voxels are joined over each voxel's best edge, and over all edges of at least `high`: the basins of steepest ascent
    of Zlateski & Seung (2015, arXiv 1505.00249), as one round of Boruvka. Affinities are rounded to 16 bits, and of
    equal ones the first in the volume is best, so that basins do not depend on blocks; take `high` at or below the
    level at which a net saturates, as this joins plateaus. Basins are numbered 1 to n in the order of their first
    voxels, by the passes of `connected_components`.

    With `min_size` small basins join others: of its contacts above `low` each picks that of the greatest affinity, of
    equal ones that with the larger number, and all picks are joined at once. Those that are still too small after the
    rounds, or touch nothing, stay. Sizes are those in the whole volume.

    Args:
        affinities: three channels, czyx: floats from 0 to 1, or uint8 or uint16, of which the greatest is 1.
        mask: a volume over the same box; where it is 0 there is background, and no edge.
        dust: basins of fewer voxels in the whole volume, after the rounds, become background.

    Returns:
        A segmentation, zyx: uint32, or uint64 from 2^32 voxels on.

    Raises:
        GeometryError: the mask covers another box.
        ParameterError: not three channels, or thresholds that are not 0 <= low < high, low below 1. While voxels
            are read: a mask that is nan somewhere.
        MissingDependencyError: numba is not installed.
    """
    optional_module("numba", package="numba", extra="agglomeration")
    if not 0 <= low < min(high, 1):
        raise ParameterError(
            f"low {low:g} and high {high:g} are not 0 <= low < high, low below 1, the greatest affinity"
        )
    if dust < 0:
        raise ParameterError(f"dust {dust} must be at least 0 voxels")
    if min_size < 0 or rounds < 1:
        raise ParameterError(f"min_size {min_size} must be at least 0 voxels, and rounds {rounds} at least 1")
    if min_size > 0 and affinities.box.size >= MOST_VOXELS:
        raise ParameterError(f"min_size takes volumes below 2^48 voxels, and {affinities.box} has more; leave it out")
    edges = affinity.edges(affinities, order=order, offsets=offsets)
    if mask is not None:
        edges = affinity.within(edges, mask)
    grid = BlockGrid(edges.box, edges.block, edges.spec.chunk_origin)
    if math.prod(grid.block) >= 2**31:
        raise ParameterError(f"blocks of {grid.block} voxels (zyx) are 2^31 voxels or more; choose smaller ones")
    numbers = np.dtype(np.uint32 if edges.box.size < 2**32 else np.uint64)
    expression = edges.expression
    bounds = math.floor(low * affinity.ONE), math.ceil(min(high, 2) * affinity.ONE)
    first_dust = 0 if min_size > 0 else dust
    labelling = Labelling(grid, 6, Scope("watershed", (expression, bounds, first_dust, grid)), first_dust)
    found = labelled(LabelBasins(labelling, *bounds), expression, edges.spec.of_labels(numbers))
    for left in reversed(range(rounds if min_size > 0 else 0)):
        found = small_joined(found, edges, min_size, bounds[0], 0 if left else dust)
    return found


@dataclass(frozen=True)
class LabelBasins(LabelBlocks):
    """Label the basins of every block, with the voxels around it; bounds as integers, edges above `low` counting."""

    low: int
    high: int

    def needs(self, box: BoundingBox) -> BoundingBox:
        return box.grow(1).clip(self.grid.box)

    def compute(self, box: BoundingBox, arrays: list[Array]) -> tuple[Array, Components]:
        return label_basins(arrays[0], box, self.grid.box, self.low, self.high, sized=self.labelling.dust > 0)

    def further(self, box: BoundingBox) -> Estimate:
        known = super().further(box)
        return Estimate(bytes_written=known.bytes_written, memory=box.size * _VOXEL_BYTES)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"basins": [self.low, self.high]}


def label_basins(
    edges: Array, box: BoundingBox, whole: BoundingBox, low: int, high: int, *, sized: bool
) -> tuple[Array, Components]:
    """Label the basins of a block.

    Args:
        edges: as `affinities.edges` has them, uint16, (3, z, y, x), of the block and the voxels around it.
        box: of the block.
        whole: of the volume.
        low: only edges above it count.
        high: those of at least this count always.
        sized: whether voxels are counted.

    Returns:
        The number of each voxel's basin, 0 being none, and the basins: on low faces these planes have those alone that
        go on over them, so that two basins on either side of a face are one where both planes have a number.
    """
    from daskflow.operators.segmentation.watershed.kernels import basins

    before = as_zyx([inside.start for inside in box.slices(box.grow(1).clip(whole))])
    labels, firsts, *faces = basins(np.ascontiguousarray(edges), before, box.shape, low, high)
    sizes = np.bincount(labels.reshape(-1), minlength=len(firsts) + 1)[1:] if sized else None
    planes = planes_of(labels, box, whole, faces)
    return labels, Components(len(firsts), global_indices(firsts, box, whole), None, planes, sizes)
