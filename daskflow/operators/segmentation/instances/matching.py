"""Which labels that a function gave to the same voxels, seen with two blocks, are one instance.

block a │ block b            both see the voxels between the bars
┌───┼───┐
──a─┤ a │ a │                a and b are one if enough of what either has between the bars is of both
│ b │ b ├─b──
└───┼───┘
depth on each side of the face
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators.segmentation.connected_components.blocks import Pairs

Array = npt.NDArray[Any]

_NEAR = 0.1  # of the threshold, where a join is uncertain


def match(mine: Array, theirs: Array, face: int, threshold: float, of_smaller: bool) -> tuple[Pairs, dict[str, int]]:
    """Match the instances of two blocks that share a face.

    Args:
        mine: numbers that the first block gave to the voxels that both see, 0 for what it does not own; the axis
            across the face comes first.
        theirs: those that the second gave.
        face: how many planes of these belong to the first block.
        threshold: the overlap from which on two are one.
        of_smaller: common voxels are compared with those of the smaller one, not with those of either.

    Returns:
        Which are one: number in the first and in the second block, shape (n, 2). And how many those are; how many pairs
        are uncertain, joined or not: near the threshold, or joined where one has several; and how many instances are
        cut: their block sees them beyond the face, but they are joined with none.
    """
    import fastremap

    both = (mine.astype(np.uint64) << np.uint64(32)) | theirs
    packed, counts = fastremap.unique(both, return_counts=True)
    ends = np.stack((packed >> np.uint64(32), packed & np.uint64(0xFFFFFFFF)), axis=1).astype(np.int64)
    common = counts.astype(np.int64)
    one, other = (np.bincount(number, common)[number].astype(np.int64) for number in ends.T)
    overlap = common / (np.minimum(one, other) if of_smaller else one + other - common)
    named = (ends > 0).all(axis=1)
    joined = named & (overlap >= threshold)
    pairs = ends[joined].astype(np.uint32)
    uncertain = named & (np.abs(overlap - threshold) < _NEAR)
    for numbers in ends.T:
        uncertain |= joined & (np.bincount(numbers, joined)[numbers] > 1)
    beyond = mine[face:], theirs[:face]
    cut = sum(len(np.setdiff1d(part, np.append(known, 0))) for part, known in zip(beyond, pairs.T, strict=True))
    return pairs, {"joins": len(pairs), "uncertain_joins": int(uncertain.sum()), "instances_cut_at_faces": cut}


def owned(labels: Array, box: BoundingBox, around: BoundingBox) -> tuple[Array, int]:
    """Return labels of the voxels `around` a box, with those that occur in the box numbered 1 to n, and n.

    They are numbered as their first voxels in the box come in C order; others become 0.
    """
    import fastremap

    _, numbers = fastremap.renumber(np.ascontiguousarray(labels[box.slices(around)]), preserve_zero=True)
    numbers[0] = 0
    kept = fastremap.mask_except(np.ascontiguousarray(labels), list(numbers))
    dtype = np.uint16 if len(numbers) <= 2**16 else np.uint32
    return fastremap.remap(kept, numbers, in_place=True).astype(dtype), len(numbers) - 1


def checked_labels(labels: Any, box: BoundingBox, around: BoundingBox) -> Array:
    """Return what a function gave for a block, seen with the voxels around it, as labels, or raise."""
    array = np.asarray(labels)
    returned = (
        f"the function returned {array.dtype} of shape {array.shape} for the block {box}, seen with {around}"
        " (z0-z1_y0-y1_x0-x1)"
    )
    if array.shape != around.shape:
        raise ParameterError(f"{returned}; it must return labels of all that it sees, shape {around.shape}")
    if array.dtype.kind not in "iu":
        raise ParameterError(
            f"{returned}; labels are integers, 0 for background: cast them, e.g. with astype('uint32'), and label masks"
            " first, e.g. with scipy.ndimage.label"
        )
    if array.dtype.kind == "i" and array.min() < 0:
        raise ParameterError(f"{returned}, down to {array.min()}; labels are 0, for background, or more")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
