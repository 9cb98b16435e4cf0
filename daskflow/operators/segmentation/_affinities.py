"""Affinities between neighbouring voxels, as the operators on them take them: 16 bits, to the voxel before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, Zyx
from daskflow.volume import Volume
from daskflow.volume.kinds import check_same_box, inside

Array = npt.NDArray[Any]
Edges = npt.NDArray[np.uint16]

ONE = 65535  # an affinity of 1
Order = Annotated[
    Literal["xyz", "zyx"],
    "axes of the channels, each the affinity of a voxel to the one before it; nets of chunkflow answer xyz.",
]
Offsets = Annotated[
    Sequence[int],
    "instead of an order, the neighbour of each channel, z y x after z y x: e.g. -1 0 0 0 -1 0 0 0 -1 is zyx, and 1 0 0"
    " means that a channel lies at the voxel before the edge.",
]
Low = Annotated[float, "affinities up to it join nothing: a voxel with no other is background."]
High = Annotated[float, "affinities from it on always join; above 1, none does."]
_AXES: dict[str, Zyx] = {"xyz": (2, 1, 0), "zyx": (0, 1, 2)}


def edges(affinities: Volume, *, order: str = "xyz", offsets: Sequence[int] | None = None) -> Volume:
    """Return affinities as uint16, 65535 being 1, channel 0, 1, 2 that of a voxel to the one before in z, y, x.

    Args:
        affinities: czyx, three channels; floats from 0 to 1, or uint8 or uint16, of which the greatest is 1.
        order: axes of the channels.
        offsets: instead, neighbours of one voxel, z y x each.

    Raises:
        ParameterError: another number of channels, a dtype without a known scale, or other offsets. While voxels are
            read: a value outside 0 to 1.
    """
    if affinities.channels != 3:
        raise ParameterError(
            f"affinities have three channels, one for each axis, not {affinities.channels or 1}; pick them first"
            " (pick-channels)"
        )
    if affinities.dtype.kind != "f" and affinities.dtype not in (np.uint8, np.uint16):
        raise ParameterError(
            f"affinities of {affinities.dtype} have no known scale; make them floats from 0 to 1, uint8 or uint16"
        )
    axes, shifted = (_AXES[order], (False,) * 3) if offsets is None else _axes(offsets)
    return affinities.map_overlap(
        as_edges,
        depth={axis: (int(shift), 0) for axis, shift in zip(axes, shifted, strict=True)},
        trim=False,
        dtype=np.uint16,
        layer_type="affinity_map",
        channel=tuple(axes.index(axis) for axis in range(3)),
        shifted=tuple(shifted[axes.index(axis)] for axis in range(3)),
        corner=affinities.box.start,
    )


def within(edges: Volume, mask: Volume) -> Volume:
    """Return edges, as `edges` has them, 0 where either of the two voxels lies where a mask is 0.

    Raises:
        GeometryError: the mask covers another box.
        ParameterError: the mask has several channels. While voxels are read: it is nan somewhere.
    """
    check_same_box(mask=mask, affinities=edges)
    if mask.channels not in (None, 1):
        raise ParameterError(f"a mask has one channel, this one has {mask.channels}; pick one (pick-channels)")
    return edges.map_overlap(masked, mask, depth=dict.fromkeys(range(3), (1, 0)), trim=False, dtype=np.uint16)


def masked(edges: Edges, mask: Array, *, box: BoundingBox, read_box: BoundingBox) -> Edges:
    """Return the edges of a box, 0 but where a mask has both voxels; what is given has a voxel more before the box."""
    kept = inside(mask, read_box)
    found = np.where(kept[box.slices(read_box)], edges[(slice(None), *box.slices(read_box))], np.uint16(0))
    for axis in range(3):
        back = box.shift(tuple(-int(one == axis) for one in range(3))).clip(read_box)
        there = back.shift(tuple(int(one == axis) for one in range(3)))
        found[(axis, *there.slices(box))] *= kept[back.slices(read_box)]
    return found


def _axes(offsets: Sequence[int]) -> tuple[Zyx, tuple[bool, ...]]:
    """Return the axis of each channel, and whether the edge is stored at the voxel before."""
    steps = np.asarray(offsets).reshape(-1, 3) if len(offsets) == 9 else np.zeros((0, 3), int)
    moved = np.abs(steps)
    if len(steps) != 3 or (moved.sum(axis=0) != 1).any() or (moved.sum(axis=1) != 1).any():
        raise ParameterError(
            f"offsets {' '.join(map(str, offsets))} are not three neighbours, z y x each, one voxel away on one axis"
            " each; pick these channels first (pick-channels)"
        )
    z, y, x = moved.argmax(axis=1).tolist()
    return (z, y, x), tuple((steps.sum(axis=1) > 0).tolist())


def as_edges(
    array: Array,
    *,
    box: BoundingBox,
    read_box: BoundingBox,
    channel: Zyx,
    shifted: tuple[bool, bool, bool],
    corner: Zyx,
) -> Edges:
    """Return the edges of a box, (3, z, y, x), as `edges` describes them; 0 where the voxel before is outside.

    Args:
        array: the affinities of `read_box`.
        box: of the result.
        read_box: the same, with a voxel before it on axes where edges are shifted.
        channel: that of each axis, zyx.
        shifted: of each axis, whether the edge is stored at the voxel before.
        corner: of the volume.
    """
    found = np.zeros((3, *box.shape), np.uint16)
    for axis in range(3):
        step = [int(shifted[axis] and one == axis) for one in range(3)]
        target = read_box.shift(step).clip(box)
        source = target.shift([-one for one in step])
        found[(axis, *target.slices(box))] = _bits(array[(channel[axis], *source.slices(read_box))], read_box)
        if box.start[axis] == corner[axis]:
            np.moveaxis(found[axis], axis, 0)[:1] = 0
    return found


def _bits(values: Array, box: BoundingBox) -> Edges:
    if values.dtype == np.uint16:
        return values
    if values.dtype == np.uint8:
        return values.astype(np.uint16) * np.uint16(257)
    low, high = values.min(initial=0), values.max(initial=0)
    if not (low >= 0 and high <= 1):
        wrong = values[~((values >= 0) & (values <= 1))][0]
        raise ParameterError(
            f"an affinity in {box} (z0-z1_y0-y1_x0-x1) is {wrong:g}, which is not from 0 to 1; scale them first,"
            " e.g. divide by the greatest"
        )
    scale = np.float64(ONE) if values.dtype == np.float64 else np.float32(ONE)  # which float16 does not hold
    rounded: Edges = np.rint(values * scale).astype(np.uint16)
    return rounded
