"""Components of one block, and what its neighbours and the numbering must know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox

Array = npt.NDArray[Any]
Connectivity = Literal[6, 18, 26]
Side = tuple[int, int]


@dataclass(frozen=True)
class Components:
    """The components of one block, numbered 1 to `count` as their first voxels come in C order (zyx).

    Attributes:
        count: how many.
        firsts: where each begins: the C-order index of its first voxel in the whole volume.
        values: the voxel value that each is made of; None for a mask, where all are alike.
        planes: the numbers on the block's faces that have a neighbour, 2D in C order, by (axis, 0 low or 1 high).
        sizes: how many voxels each has; None where nobody asks.
    """

    count: int
    firsts: npt.NDArray[np.int64]
    values: Array | None
    planes: dict[Side, Array]
    sizes: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Foreground:
    """Which voxels are foreground, all alike; with no bound set, voxels of one value are.

    Attributes:
        above: those strictly above it.
        at_least: those that are at least so.
        at_most: those that are at most so.
    """

    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def mask(self, array: Array) -> Array:
        """Return where an array is foreground, or the array itself if there is no bound."""
        found = None
        for kept in (
            None if self.above is None else array > self.above,
            None if self.at_least is None else array >= self.at_least,
            None if self.at_most is None else array <= self.at_most,
        ):
            found = kept if found is None else found if kept is None else np.logical_and(found, kept, out=found)
        return array if found is None else found


NOTHING = Components(0, np.empty(0, np.int64), None, {})


def label_block(
    array: Array, box: BoundingBox, whole: BoundingBox, connectivity: Connectivity, *, sized: bool = False
) -> tuple[Array, Components]:
    """Label the connected components of one block; voxels of different values never join, 0 is background.

    Args:
        array: voxels of the block, zyx, bool or integers.
        box: where they lie.
        whole: the volume, whose voxels are counted in C order.
        connectivity: 6 (faces), 18 (and edges) or 26 (and corners).
        sized: count their voxels, too.

    Returns:
        The number of each voxel's component in the block, zyx, uint16 or uint32; and the components.
    """
    import cc3d

    if not array.any():
        return np.zeros(array.shape, np.uint16), NOTHING
    # on one-voxel-thin arrays cc3d (4.1.1) raises for masks and for values from 2^63, but not for these views
    view = {np.dtype(bool): np.uint8, np.dtype(np.uint64): np.int64}.get(array.dtype, array.dtype)
    voxels = np.ascontiguousarray(array.view(view))
    labels, count = cc3d.connected_components(_writeable(voxels), connectivity=connectivity, return_N=True)
    labels = labels.astype(np.uint16 if count < 2**16 else np.uint32, copy=False)
    local = first_indices(labels, count)
    values = None if array.dtype == bool else array.ravel()[local]
    sizes = _sizes(labels, count) if sized else None
    return labels, Components(count, global_indices(local, box, whole), values, _planes(labels, box, whole), sizes)


def _sizes(labels: Array, count: int) -> npt.NDArray[np.int64]:
    """Return the voxels of each label 1 to `count`, all of which occur."""
    import fastremap

    _, counts = fastremap.unique(labels, return_counts=True)
    sizes: npt.NDArray[np.int64] = counts[-count:].astype(np.int64)
    return sizes


def first_indices(labels: Array, count: int) -> npt.NDArray[np.int64]:
    """Return the C-order index of the first voxel of each label 1 to `count`, which must be numbered in that order.

    The running maximum of such labels rises by one at each first voxel. Whole rows are looked at first, so that only
    those where it rises are searched voxel by voxel.
    """
    rows = labels.reshape(-1, labels.shape[-1])
    reached = np.maximum.accumulate(rows.max(axis=1))
    before = np.concatenate((np.zeros(1, labels.dtype), reached[:-1]))
    rising = np.flatnonzero(reached > before)
    running = np.maximum(np.maximum.accumulate(rows[rising], axis=1), before[rising, None])
    rises = np.empty(running.shape, bool)
    rises[:, 0] = running[:, 0] > before[rising]
    np.greater(running[:, 1:], running[:, :-1], out=rises[:, 1:])
    row, column = np.nonzero(rises)
    found: npt.NDArray[np.int64] = rising[row] * rows.shape[1] + column
    assert len(found) == count, f"{len(found)} of {count} labels begin in C order"
    return found


def global_indices(local: npt.NDArray[np.int64], box: BoundingBox, whole: BoundingBox) -> npt.NDArray[np.int64]:
    """Return C-order indices in `whole` of the voxels that have the C-order indices `local` in `box`."""
    position = np.unravel_index(local, box.shape)
    z, y, x = (p + (a - o) for p, a, o in zip(position, box.start, whole.start, strict=True))
    result: npt.NDArray[np.int64] = (z * whole.shape[1] + y) * whole.shape[2] + x
    return result


def _writeable(array: Array) -> Array:
    """Return the array as cc3d takes it, which changes nothing but refuses what it may not change."""
    view = array.view()
    try:
        view.flags.writeable = True
    except ValueError:
        return array.copy()
    return view


def _planes(labels: Array, box: BoundingBox, whole: BoundingBox) -> dict[Side, Array]:
    planes: dict[Side, Array] = {}
    for axis in range(3):
        if box.start[axis] > whole.start[axis]:
            planes[axis, 0] = np.ascontiguousarray(labels.take(0, axis))
        if box.stop[axis] < whole.stop[axis]:
            planes[axis, 1] = np.ascontiguousarray(labels.take(-1, axis))
    return planes
