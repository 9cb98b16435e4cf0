"""Components of one block, which of those of two neighbours are one, and those of ever larger boxes of blocks.

Two voxels that touch lie in one block or in two whose grid positions differ by at most one on each axis. Every block
looks at the half of its 26 neighbours that come after it: over a face, an edge or a corner,

        ┌─────┬─────┐        face    axis z:      plane against plane, straight and (18, 26) slanting
        │  a  │  b  │        edge    axes z, y:   row against row
        ├─────┼─────┤        corner  axes z, y, x: voxel against voxel
        │  c  │  d  │
        └─────┴─────┘

so that no voxel is read or computed by more than one block.

A part of a component is named by its first voxel, the C-order index in the whole volume. A box of blocks hands on to
the larger one around it what may go on outside: its parts that reach a border and their voxels, and pairs of names that
are one, of which the second may lie outside. Whatever touches a box from outside names what it touches as the block
there does, so that these names are paired with those of the box's parts. A part that reaches no border of its box is a
component.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox, Zyx
from daskflow.scratch.records import Arrays

Array = npt.NDArray[Any]
Connectivity = Literal[6, 18, 26]
Side = tuple[int, int]
Pairs = npt.NDArray[np.uint32]
Names = npt.NDArray[np.int64]
Where = npt.NDArray[np.bool_]

_TURNS = {6: 1, 18: 2, 26: 3}


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
    """Which voxels are foreground, all alike; with no bound set, voxels of one value are. `above` is strict."""

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
    """Label the connected components of one block (zyx); voxels of different values never join, 0 is background.

    Voxels of `whole` are counted in C order; `sized` counts those of each component, too. Returned are the number of
    each voxel's component in the block, uint16 or uint32, and the components.
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
    return labels, Components(count, global_indices(local, box, whole), values, planes_of(labels, box, whole), sizes)


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


def planes_of(
    labels: Array, box: BoundingBox, whole: BoundingBox, goes_on: Sequence[Array] | None = None
) -> dict[Side, Array]:
    """Return the planes of `Components`; on low faces only where `goes_on` of the axis says so, if given."""
    planes: dict[Side, Array] = {}
    for axis in range(3):
        if box.start[axis] > whole.start[axis]:
            planes[axis, 0] = np.ascontiguousarray(labels.take(0, axis))
            if goes_on is not None:
                planes[axis, 0] *= goes_on[axis]
        if box.stop[axis] < whole.stop[axis]:
            planes[axis, 1] = np.ascontiguousarray(labels.take(-1, axis))
    return planes


def later_neighbours(connectivity: Connectivity) -> Iterator[Zyx]:
    """Yield the grid steps (zyx) to the neighbours that come after a block and that its voxels can touch."""
    for z, y, x in itertools.product((-1, 0, 1), repeat=3):
        step = (z, y, x)
        if step > (0, 0, 0) and np.count_nonzero(step) <= _TURNS[connectivity]:
            yield step


def touching_pairs(a: Components, b: Components, step: Zyx, connectivity: Connectivity) -> Pairs:
    """Return which components of block `a` and of its neighbour `b`, one grid `step` (zyx) away, are one.

    They are distinct pairs (number in `a`, number in `b`), shape (n, 2).
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


@dataclass(frozen=True)
class Joined:
    """The parts of a box, which come as their first voxels do.

    Attributes:
        parts: of the names that were joined, `part_of`, which part each belongs to; of the parts, `open`, whether it
            may go on outside, and `whole`, whether it is a component that is not dust.
        open: what is handed on: of the open parts `firsts`, their names, and `sizes`; and `pairs` of names.
        whole: the names of the whole ones.
    """

    parts: Arrays
    open: Arrays
    whole: Names


def join(names: Names, pairs: Names, sizes: Names, border: Where, leaving: tuple[Names, Names], dust: int) -> Joined:
    """Join the parts of the boxes within a box to parts of the box.

    Args:
        names: of the parts within.
        pairs: those that are one, shape (k, 2), indices into `names`.
        sizes: voxels of each, of interest where there is dust.
        border: which of them may be touched from outside.
        leaving: those that are one with something outside, indices into `names`; and the names of that.
        dust: components of fewer voxels are dust.
    """
    root = earliest(len(names), pairs)
    first, leads = names.copy(), root == np.arange(len(names))
    np.minimum.at(first, root[~leads], names[~leads])
    roots = np.flatnonzero(leads)
    roots = roots[np.argsort(first[roots])]
    firsts, place = first[roots], np.empty(len(names), np.uint32)
    place[roots] = np.arange(len(roots), dtype=np.uint32)
    part_of = place[root]
    del root, first, leads, roots, place
    voxels = np.zeros(len(firsts), np.int64)
    if dust:
        np.add.at(voxels, part_of, sizes)
    is_open = np.zeros(len(firsts), bool)
    is_open[part_of[border]] = True
    is_whole = ~is_open & (voxels >= dust)
    called, first = names[border], firsts[part_of[border]]
    renamed = np.stack((called, first), axis=1)[called != first]
    out, outside = leaving
    handed = np.concatenate((renamed, np.stack((firsts[part_of[out]], outside), axis=1)))
    return Joined(
        {"part_of": part_of, "open": is_open, "whole": is_whole},
        {"firsts": firsts[is_open], "sizes": voxels[is_open], "pairs": handed},
        firsts[is_whole],
    )


def join_boxes(inputs: list[Arrays], box: BoundingBox, whole: BoundingBox, block: Zyx, dust: int) -> Joined:
    """Join what the boxes within a box have handed on; `parts` also has the `names` that were joined, rising.

    The blocks of the box are whole, `block` voxels (zyx), but at the borders of the volume, `whole`.
    """
    firsts, sizes, pairs = (np.concatenate([one[name] for one in inputs]) for name in ("firsts", "sizes", "pairs"))
    inside = within(pairs[:, 1], box.start, box.stop, whole)
    (out, outside), inner = pairs[~inside].T, pairs[inside]
    names = np.unique(np.concatenate((firsts, inner.reshape(-1))))
    voxels = np.zeros(len(names), np.int64)
    voxels[np.searchsorted(names, firsts)] = sizes
    sides = list(zip(box.start, box.stop, whole.start, whole.stop, block, strict=True))
    start = [a + (a > low) * b for a, _, low, _, b in sides]
    stop = [o - (o < high) * b for _, o, _, high, b in sides]
    border = ~within(names, start, stop, whole)
    inner, out = np.searchsorted(names, inner), np.searchsorted(names, out)
    joined = join(names, inner, voxels, border, (out, outside), dust)
    return replace(joined, parts=joined.parts | {"names": names})


def within(names: Names, start: Sequence[int], stop: Sequence[int], whole: BoundingBox) -> Where:
    """Return which voxels, of C-order indices in `whole`, lie between two corners (zyx)."""
    inside: Where = np.ones(len(names), bool)
    for place, low, high, origin in zip(np.unravel_index(names, whole.shape), start, stop, whole.start, strict=True):
        inside &= (place >= low - origin) & (place < high - origin)
    return inside


def earliest(count: int, pairs: Names) -> Names:
    """Return the lowest of the numbers 0 to `count` - 1 that each is joined with, over any chain of `pairs`.

    Every round hangs roots on lower ones that they are joined with, and then everything on its root.
    """
    root = np.arange(count, dtype=np.int64)
    a, b = pairs.T
    while len(a):
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        apart = low != high
        a, b = a[apart], b[apart]
        np.minimum.at(root, high[apart], low[apart])
        root = ends_of(root)
    return root


def ends_of(following: Names) -> Names:
    """Return where each of some numbers leads in the end, given the one that follows each; an end follows itself."""
    while not np.array_equal(further := following[following], following):
        following = further
    return following
