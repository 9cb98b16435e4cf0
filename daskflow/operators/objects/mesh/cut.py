"""Triangles cut along the planes of a grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.operators.objects.mesh.surface import Faces, Points, extent


@dataclass(frozen=True, eq=False)
class Cells:
    """A grid of boxes in space.

    Attributes:
        origin: its low corner (xyz).
        size: of a cell (xyz).
        count: cells per axis (xyz).
    """

    origin: npt.NDArray[np.float64]
    size: npt.NDArray[np.float64]
    count: npt.NDArray[np.int64]

    def halved(self) -> Cells:
        """Return the grid of cells half as long."""
        return Cells(self.origin, self.size / 2, self.count * 2)

    def doubled(self) -> Cells:
        """Return the grid of cells twice as long."""
        return Cells(self.origin, self.size * 2, -(-self.count // 2))

    def of(self, vertices: Points, faces: Faces) -> npt.NDArray[np.int64]:
        """Return the cell that each triangle is in, told by its middle, shape (m, 3) xyz."""
        middle = (vertices[faces[:, 0]] + vertices[faces[:, 1]] + vertices[faces[:, 2]]) / 3
        cells = np.floor((middle - self.origin) / self.size).astype(np.int64)
        return np.clip(cells, 0, self.count - 1)


def cut(vertices: Points, faces: Faces, cells: Cells) -> tuple[Points, Faces]:
    """Return the same surface, in which no triangle is in two cells.

    Each triangle is cut by itself, in the same way wherever and with whatever others it is cut, and two that share an
    edge get the same vertices on it: pieces that are cut apart still fit.

    Args:
        vertices: float64, shape (n, 3).
        faces: shape (m, 3).
        cells: the grid.
    """
    if not len(faces):
        return vertices, faces
    low, high = extent(vertices)
    first = np.floor((low - cells.origin) / cells.size).astype(np.int64)
    last = np.floor((high - cells.origin) / cells.size).astype(np.int64)
    for axis in range(3):
        for number in range(max(1, int(first[axis])), min(int(cells.count[axis]) - 1, int(last[axis])) + 1):
            plane = float(cells.origin[axis] + number * cells.size[axis])
            vertices, faces = _cut_at(vertices, faces, axis, plane)
    return vertices, faces


def _cut_at(vertices: Points, faces: Faces, axis: int, plane: float) -> tuple[Points, Faces]:
    side = np.sign(vertices[:, axis] - plane).astype(np.int8)
    sides = side[faces]
    crossing = (sides.min(axis=1) < 0) & (sides.max(axis=1) > 0)
    if not crossing.any():
        return vertices, faces
    crossed, sides = faces[crossing], sides[crossing]
    touching = (sides == 0).any(axis=1)
    # first the vertex on the plane, or else the one that is alone on its side
    alone = np.where(touching[:, None], sides == 0, sides == -np.sign(sides.sum(axis=1, dtype=np.int8))[:, None])
    turn = (alone.argmax(axis=1)[:, None] + np.arange(3)) % 3
    a, b, c = np.take_along_axis(crossed, turn, axis=1).T
    one, two = touching, ~touching
    edges = np.concatenate([np.stack([b[one], c[one]]), np.stack([a[two], b[two]]), np.stack([a[two], c[two]])], axis=1)
    points, places = _on_plane(vertices, edges, axis, plane)
    places = places + len(vertices)
    ones, twos = int(one.sum()), int(two.sum())
    m, p, q = places[:ones], places[ones : ones + twos], places[ones + twos :]
    pieces = [
        (a[one], b[one], m),
        (a[one], m, c[one]),
        (a[two], p, q),
        (p, b[two], c[two]),
        (p, c[two], q),
    ]
    parts = [np.stack(piece, axis=1).astype(np.uint32) for piece in pieces]
    return np.concatenate([vertices, points]), np.concatenate([faces[~crossing], *parts])


def _on_plane(
    vertices: Points, edges: npt.NDArray[Any], axis: int, plane: float
) -> tuple[Points, npt.NDArray[np.int64]]:
    """Return the points where edges (2, k) cross a plane, and which of them is on each edge."""
    keys = np.sort(edges, axis=0).astype(np.int64)
    unique, places = np.unique(keys[0] << 32 | keys[1], return_inverse=True)
    a, b = vertices[unique >> 32], vertices[unique & 0xFFFFFFFF]
    swapped = (a[:, axis] > b[:, axis])[:, None]  # the same end first, whatever their numbers are
    a, b = np.where(swapped, b, a), np.where(swapped, a, b)
    share = (plane - a[:, axis]) / (b[:, axis] - a[:, axis])
    points = a + (b - a) * share[:, None]
    points[:, axis] = plane
    return points, places


def by_cell(cells: npt.NDArray[np.int64], faces: Faces) -> Iterator[tuple[tuple[int, int, int], Faces]]:
    """Yield the cells that hold triangles, in Z-curve order, and the triangles of each.

    Args:
        cells: of each triangle, shape (m, 3) xyz, not negative.
        faces: shape (m, 3).
    """
    keys = z_curve(cells)
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
        x, y, z = cells[order[start]].tolist()
        yield (x, y, z), faces[order[start:stop]]


def z_curve(cells: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where cells (xyz) come on the Z-curve: their numbers with bits interleaved, x lowest."""
    result = np.zeros(len(cells), np.int64)
    for bit in range(int(cells.max(initial=0)).bit_length()):
        for axis in range(3):
            result |= (cells[:, axis] >> bit & 1) << (3 * bit + axis)
    return result
