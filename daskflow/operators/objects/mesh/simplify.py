"""Fewer triangles, within a distance: quadric edge collapse that leaves borders alone, and seals what it leaves."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import MissingDependencyError
from daskflow.operators.objects.mesh.surface import Faces, Points, extent, used
from daskflow.stores.objects.mesh_files import weld

Whole = npt.NDArray[np.int64]

# A collapse costs area times squared distance, summed over what was collapsed so far, and areas grow with distances;
# benchmarks/simplify.py measures how far surfaces move when collapses up to some cost are done.
_COST = 11.5
_GROWTH = 1.6
_FINEST = 0.68
_SNAP = 1e-3
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)  # any that spread numbers
_REACH = 3  # whole numbers from the place where a vertex would go


def simplify(
    vertices: Points, faces: Faces, max_error: float, voxel_size: tuple[float, float, float], *, unit: float = 1.0
) -> tuple[Points, Faces]:
    """Return a surface of fewer triangles that stays close to the one given.

    The border of an open surface stays, vertex for vertex, so that pieces of a surface that are simplified one by one
    still fit. No piece vanishes, and those of up to 32 triangles stay as they are.

    Args:
        vertices: in voxels, or parts of them (xyz), shape (n, 3).
        faces: shape (m, 3).
        max_error: nm that the surface may move; 99.9 % of it stays within.
        voxel_size: nm (zyx).
        unit: voxels that 1 stands for in `vertices`, e.g. 0.5.

    Raises:
        MissingDependencyError: numba is not installed.
    """
    if max_error <= 0 or not len(faces):
        return vertices, faces
    try:
        from daskflow.operators.objects.mesh.collapse import collapse
    except ImportError as error:
        raise MissingDependencyError.of(str(error.name), "mesh") from error

    size = unit * np.array(voxel_size[::-1])
    first = np.floor(np.mean(extent(vertices), axis=0))
    before = vertices - first
    points, corners = before.copy(), faces.astype(np.int32).reshape(-1)
    z, y, x = voxel_size
    area = (z * y + y * x + x * z) / 3
    collapse(points, corners, size, _COST * area * max_error**2 * (max_error / max(voxel_size)) ** _GROWTH)
    left = corners.reshape(-1, 3)
    whole = np.rint(points)
    places = np.where(np.abs(points - whole) < _SNAP, whole, points) + first
    places = np.where(points != before, places, vertices)
    return sealed(*used(places, left[left[:, 0] >= 0].view(np.uint32)))


def finest_error(max_error: float, voxel_size: tuple[float, float, float]) -> float:
    """Return how far, in nm, to go at the finest level, so that objects keep their volume: less than one may."""
    voxel = max(voxel_size)
    return float(_FINEST * min(max_error, voxel * (max_error / voxel) ** 0.2))


def without_coincident(faces: Faces) -> Faces:
    """Return triangles without pairs of which one is the back side of the other."""
    a, b, c = faces.T.astype(np.uint64)
    low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
    if not _repeats(low * _ODD[0] + (a + b + c) * _ODD[1] + high, 2):  # equal triangles have equal sums
        return faces
    corners = np.sort(faces, axis=1)
    order = np.lexsort(corners.T)
    first = np.ones(len(faces), bool)
    first[1:] = (corners[order][1:] != corners[order][:-1]).any(axis=1)
    starts = np.flatnonzero(first)
    group = np.cumsum(first) - 1
    a, b, c = faces[order].astype(np.int64).T
    turns = (np.sign(b - a) * np.sign(c - b) * np.sign(a - c)).astype(np.int64)
    total = np.add.reduceat(turns, starts)[group]
    like = turns == np.sign(total)
    earlier = np.cumsum(like) - like
    kept = like & (earlier - earlier[starts][group] < np.abs(total))
    left: Faces = faces[np.sort(order[kept])]
    return left


def _repeats(keys: npt.NDArray[Any], times: int) -> bool:
    """Return whether some number is there so many times."""
    keys = np.sort(keys)
    return bool((keys[times - 1 :] == keys[: len(keys) - times + 1]).any())


def sealed(vertices: npt.NDArray[Any], faces: Faces) -> tuple[npt.NDArray[Any], Faces]:
    """Return a surface of which no edge is of four triangles or more: such are divided, each pair elsewhere.

    Where sheets touch along an edge, two and two of its triangles get a vertex of their own on it, and nothing moves;
    where vertices are whole numbers (int64) it is the nearest place that no other vertex has in the boxes around both
    triangles, and the edge is left where there is none.
    """
    vertices, faces = weld(vertices, faces)
    faces = without_coincident(faces)
    starts = faces.astype(np.int64)
    ends = starts[:, [1, 2, 0]]
    keys = (np.minimum(starts, ends) << 32 | np.maximum(starts, ends)).reshape(-1)
    if not _repeats(keys, 3):
        return vertices, faces
    unique, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    crowded = (counts[inverse] > 2).reshape(-1, 3).any(axis=1)
    triangles = dict(enumerate(faces[crowded].tolist()))
    of_vertex: dict[int, set[int]] = defaultdict(set)
    for number, corners in triangles.items():
        for corner in corners:
            of_vertex[corner].add(number)
    added, names = _Added(vertices), itertools.count(len(triangles))
    for key in unique[counts > 2].tolist():
        u, v = key >> 32, key & 0xFFFFFFFF
        members = sorted(of_vertex[u] & of_vertex[v])
        there = [n for n in members if triangles[n][(triangles[n].index(u) + 1) % 3] == v]
        back = [n for n in members if n not in there]
        pairs = list(zip(there, back, strict=False))
        for turn, pair in enumerate(pairs, 1):
            middle = added.between(u, v, turn / (len(pairs) + 1), [triangles[number] for number in pair])
            if middle is None:
                continue
            for number in pair:
                corners = triangles.pop(number)
                for corner in corners:
                    of_vertex[corner].discard(number)
                for end in (u, v):
                    other = [middle if corner == end else corner for corner in corners]
                    name = next(names)
                    triangles[name] = other
                    for corner in other:
                        of_vertex[corner].add(name)
    divided = np.array(list(triangles.values()), np.uint32).reshape(-1, 3)
    return added.all(), np.concatenate([faces[~crowded], divided])


class _Added:
    """Vertices that are put on edges, behind those that are there, sorted."""

    def __init__(self, vertices: npt.NDArray[Any]) -> None:
        self._old = vertices
        self._new = list[npt.NDArray[Any]]()
        self._whole = vertices.dtype.kind == "i"

    def all(self) -> npt.NDArray[Any]:
        return np.concatenate([self._old, np.array(self._new, self._old.dtype).reshape(-1, 3)])

    def between(self, u: int, v: int, share: float, pair: list[list[int]]) -> int | None:
        """Return the number of a new vertex on an edge of two triangles, None where there is no place for one."""
        place = self._at(u) + (self._at(v) - self._at(u)) * share
        if self._whole:
            corners = np.array([[self._at(corner) for corner in triangle] for triangle in pair])
            free = self._free(place, corners.min(axis=1).max(axis=0), corners.max(axis=1).min(axis=0))
            if free is None:
                return None
            place = free
        self._new.append(place)
        return len(self._old) + len(self._new) - 1

    def _at(self, number: int) -> npt.NDArray[Any]:
        return self._old[number] if number < len(self._old) else self._new[number - len(self._old)]

    def _free(self, place: Points, low: Whole, high: Whole) -> Whole | None:
        """Return the whole numbers nearest to a place that no vertex has, within a box."""
        ranges = [
            np.arange(max(a, at - _REACH), min(b, at + _REACH) + 1)
            for a, b, at in zip(low.tolist(), high.tolist(), np.rint(place).astype(np.int64).tolist(), strict=True)
        ]
        near = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
        for one in near[np.argsort(((near - place) ** 2).sum(axis=1), kind="stable")]:
            if not self._taken(one):
                return np.asarray(one, np.int64)
        return None

    def _taken(self, place: Whole) -> bool:
        rows = self._old
        for axis in range(3):
            start, stop = np.searchsorted(rows[:, axis], [place[axis], place[axis] + 1])
            rows = rows[start:stop]
        return len(rows) > 0 or any((place == one).all() for one in self._new)
