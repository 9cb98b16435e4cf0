"""Which parts of components are one: of the blocks of a group, then of ever larger boxes of groups.

A part is named by its first voxel, the C-order index in the whole volume. A box hands on to the larger one around it
what may go on outside: its parts that reach a border and their voxels, and pairs of names that are one, of which the
second may lie outside. Whatever touches a box from outside names what it touches as the block there does, so that these
names are paired with those of the box's parts. A part that reaches no border of its box is a component.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox, Zyx
from daskflow.scratch.records import Arrays

Names = npt.NDArray[np.int64]
Where = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Joined:
    """The parts of a box, which come as their first voxels do.

    Attributes:
        parts: of the names that were joined, `part_of`, which part each belongs to; of the parts, `open`, whether it
            may go on outside, and `whole`, whether it is a component that is no dust.
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

    Args:
        inputs: what each has handed on.
        box: whose blocks are whole but at the borders of the volume.
        whole: the volume.
        block: voxels per block (zyx).
        dust: components of fewer voxels are dust.
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
        while True:
            above = root[root]
            if np.array_equal(above, root):
                break
            root = above
    return root
