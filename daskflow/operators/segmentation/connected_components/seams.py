"""Which components of two neighbouring blocks are one.

Two voxels that touch lie in one block or in two whose grid positions differ by at most one on each axis. Every block
looks at the half of its 26 neighbours that come after it: over a face, an edge or a corner,

        ┌─────┬─────┐        face    axis z:      plane against plane, straight and (18, 26) slanting
        │  a  │  b  │        edge    axes z, y:   row against row
        ├─────┼─────┤        corner  axes z, y, x: voxel against voxel
        │  c  │  d  │
        └─────┴─────┘

so that no voxel is read or computed by more than one block.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import Zyx
from daskflow.operators.segmentation.connected_components.blocks import Components, Connectivity

Array = npt.NDArray[Any]
Pairs = npt.NDArray[np.uint32]

_TURNS = {6: 1, 18: 2, 26: 3}


def later_neighbours(connectivity: Connectivity) -> Iterator[Zyx]:
    """Yield the grid steps (zyx) to the neighbours that come after a block and that its voxels can touch."""
    for z, y, x in itertools.product((-1, 0, 1), repeat=3):
        step = (z, y, x)
        if step > (0, 0, 0) and np.count_nonzero(step) <= _TURNS[connectivity]:
            yield step


def touching_pairs(a: Components, b: Components, step: Zyx, connectivity: Connectivity) -> Pairs:
    """Return which components of block `a` and of its neighbour `b`, one grid `step` (zyx) away, are one.

    Returns:
        Distinct pairs (number in `a`, number in `b`), shape (n, 2).
    """
    if not a.count or not b.count:
        return np.empty((0, 2), np.uint32)
    mine, theirs = _border(a, step), _border(b, (-step[0], -step[1], -step[2]))
    straight = _alike(mine, theirs, a, b)
    found = [_packed(mine[straight], theirs[straight])]
    slack = _TURNS[connectivity] - int(np.count_nonzero(step))
    # where the voxel straight across is the same component, those beside it hang on that one
    open_at = np.nonzero((mine != 0) & ~straight)
    rest, padded = mine[open_at], np.pad(theirs, 1)
    for shift in itertools.product((-1, 0, 1), repeat=mine.ndim):
        if 0 < np.count_nonzero(shift) <= slack:
            beside = padded[tuple(at + (1 + s) for at, s in zip(open_at, shift, strict=True))]
            joined = _alike(rest, beside, a, b)
            found.append(_packed(rest[joined], beside[joined]))
    packed = np.unique(np.concatenate(found))
    return np.stack((packed >> np.uint64(32), packed & np.uint64(0xFFFFFFFF)), axis=1).astype(np.uint32)


def _border(components: Components, step: Zyx) -> Array:
    """Return the numbers on the side that `step` points to: a plane, a row or a single voxel, by the axes left."""
    turned = [axis for axis in range(3) if step[axis]]
    plane = components.planes[turned[0], int(step[turned[0]] > 0)]
    index: list[Any] = [slice(None)] * 3
    for axis in turned[1:]:
        index[axis] = -1 if step[axis] > 0 else 0
    del index[turned[0]]
    return np.atleast_1d(plane[tuple(index)])


def _alike(mine: Array, theirs: Array, a: Components, b: Components) -> npt.NDArray[np.bool_]:
    """Return where both are foreground and, unless in a mask, of one value."""
    if a.values is None or b.values is None:
        return np.asarray((mine != 0) & (theirs != 0))
    here, there = _with_background(a.values).take(mine), _with_background(b.values).take(theirs)
    return np.asarray((here == there) & (here != 0))


def _with_background(values: Array) -> Array:
    return np.concatenate((np.zeros(1, values.dtype), values))


def _packed(mine: Array, theirs: Array) -> npt.NDArray[np.uint64]:
    """Return each pair as one number, without the repeats of neighbouring voxels."""
    packed = (mine.astype(np.uint64) << np.uint64(32)) | theirs
    return packed[np.concatenate((np.ones(1, bool), packed[1:] != packed[:-1]))] if packed.size else packed
