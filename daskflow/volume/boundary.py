"""Halos: how deep they are, and what stands in them beyond the edge of a volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry import BoundingBox, Zyx, as_zyx

Edge = Literal["none", "reflect", "nearest", "periodic"] | float
Boundaries = tuple[Edge, Edge, Edge]
DepthLike = int | Sequence[int | tuple[int, int]] | Mapping[int, int | tuple[int, int]]
BoundaryLike = str | float | None | Sequence[str | float | None] | Mapping[int, str | float | None]

_NAMES = ("none", *get_args(get_args(Edge)[0])[1:])


@dataclass(frozen=True)
class Depths:
    """Voxels of context before and after a block (zyx)."""

    before: Zyx
    after: Zyx


def as_depths(depth: DepthLike) -> Depths:
    """Return the depth per axis and side from dask's ways of saying it: see `Volume.map_overlap`."""
    if isinstance(depth, Mapping):
        _check_axes(depth, "depth")
        depth = [depth.get(axis, 0) for axis in range(3)]
    entries = [depth] * 3 if isinstance(depth, int | np.integer) else list(depth)
    if len(entries) != 3:
        raise GeometryError(f"depth {depth!r} has {len(entries)} entries; give one number, or one per axis (zyx)")
    pairs = [(e, e) if isinstance(e, int | np.integer) else tuple(e) for e in entries]
    before, after = as_zyx([p[0] for p in pairs], name="depth"), as_zyx([p[1] for p in pairs], name="depth")
    if min(*before, *after) < 0:
        raise GeometryError(f"depth {depth!r} must not be negative")
    return Depths(before, after)


def as_boundaries(boundary: BoundaryLike) -> Boundaries:
    """Return what stands beyond the edge of each axis from dask's ways of saying it."""
    if isinstance(boundary, Mapping):
        _check_axes(boundary, "boundary")
        entries = [boundary.get(axis) for axis in range(3)]
    elif isinstance(boundary, Sequence) and not isinstance(boundary, str):
        entries = list(boundary)
    else:
        entries = [boundary] * 3
    edges = ["none" if entry is None else entry for entry in entries]
    for edge in edges:
        if isinstance(edge, str) and edge not in _NAMES:
            raise ParameterError(f"boundary {edge!r} is none of {', '.join(_NAMES)} or a number")
    if len(edges) != 3:
        raise ParameterError(f"boundary {boundary!r} has {len(edges)} entries; give one, or one per axis (zyx)")
    return cast(Boundaries, tuple(edges))


def _check_axes(mapping: Mapping[int, Any], name: str) -> None:
    unknown = [axis for axis in mapping if axis not in (0, 1, 2)]
    if unknown:
        raise ParameterError(
            f"{name} {dict(mapping)!r} has axes {', '.join(map(repr, unknown))}; the axes are z 0, y 1 and x 2,"
            " also where there are channels"
        )


def check_depths(depth: Depths, boundary: Boundaries, shape: Zyx) -> None:
    """Refuse a halo that mirrors or wraps more voxels than the volume has."""
    for axis, name in enumerate("zyx"):
        deepest = max(depth.before[axis], depth.after[axis])
        if boundary[axis] in ("reflect", "periodic") and deepest > shape[axis]:
            raise GeometryError(
                f"depth {deepest} along {name} is larger than the volume's {shape[axis]} voxels; "
                f"use boundary 'nearest', a number or 'none'"
            )


def extend(
    array: np.ndarray[Any, Any], have: BoundingBox, want: BoundingBox, whole: BoundingBox, boundary: Boundaries
) -> np.ndarray[Any, Any]:
    """Return the voxels of `want` from an array (zyx or czyx) that holds `have`, inside the box of the `whole` volume.

    Those beyond the volume follow from the boundary, axis after axis: reflect repeats the edge voxel (numpy's
    "symmetric"), nearest, periodic, or a constant.
    """
    for axis in range(3):
        low, high = want.start[axis], want.stop[axis]
        first, last = whole.start[axis], whole.stop[axis]
        at = np.arange(low, high)
        edge = boundary[axis]
        dim = array.ndim - 3 + axis
        if low >= first and high <= last:
            if (low, high) != (have.start[axis], have.stop[axis]):
                array = np.take(array, at - have.start[axis], axis=dim)
        elif isinstance(edge, str):
            array = np.take(array, _inside(at, first, last, edge) - have.start[axis], axis=dim)
        else:
            width = [(0, 0)] * array.ndim
            width[dim] = (max(first - low, 0), max(high - last, 0))
            kept = np.arange(max(low, first), min(high, last)) - have.start[axis]
            array = np.pad(np.take(array, kept, axis=dim), width, constant_values=edge)
    return array


def _inside(at: np.ndarray[Any, Any], first: int, last: int, edge: str) -> np.ndarray[Any, Any]:
    if edge == "periodic":
        return np.asarray(first + (at - first) % (last - first))
    if edge == "nearest":
        return np.asarray(np.clip(at, first, last - 1))
    mirrored = np.where(at < first, 2 * first - 1 - at, at)
    return np.asarray(np.where(at >= last, 2 * last - 1 - at, mirrored))
