"""Levels of detail: each twice as coarse as the one before, cut into cells twice as long, quantised and encoded."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import Zyx
from daskflow.operators.objects.mesh.simplify import sealed, simplify
from daskflow.operators.objects.mesh.surface import Faces, Points, extent, used
from daskflow.stores.objects.mesh_files import DRACO_LEVEL, Level, MultiresManifest, encode_draco

Position = tuple[int, int, int]
Encoded = list[tuple[Position, bytes]]

_MOST_FACES = 2_000_000  # of one cell; Neuroglancer's decoder fails on more
_DEEPEST = 12
_SMALL = 128  # triangles of surfaces of which many are alike
_CACHED = 4096
_TIES = 1e-5  # of a whole number, more than what numbers in the middle between two are off


@dataclass(frozen=True)
class Detail:
    """How levels of detail are made.

    Attributes:
        lods: levels beside the finest, at most.
        min_chunk: voxels of the smallest cell of the finest level (zyx).
        bits: to which positions in a cell are quantised, 10 or 16.
        max_error: nm that the finest level may differ by; each further one differs by twice as much.
        voxel_size: nm (zyx).
        draco: level of compression, 0 to 10.
        most_faces: of one cell; more levels are made where there would be more.
    """

    lods: int
    min_chunk: Zyx
    bits: int
    max_error: float
    voxel_size: tuple[float, float, float]
    draco: int = DRACO_LEVEL
    most_faces: int = _MOST_FACES

    def levels(self, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> int:
        """Return how many levels a surface between two corners (xyz voxels) has, before its triangles are counted."""
        ratio = float(((high - np.floor(low)) / np.array(self.min_chunk[::-1])).min())
        return 1 + max(0, min(self.lods, int(np.floor(np.log2(max(ratio, 1))))))

    def cells(self, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], levels: int) -> Cells:
        """Return the finest cells of a surface between two corners (xyz voxels)."""
        origin = _float32_below(np.floor(low))
        size = np.maximum(np.ceil((high - origin) / 2 ** (levels - 1)), 1)
        return Cells(origin, size, np.full(3, 2 ** (levels - 1), np.int64))

    def coarser(self, vertices: Points, faces: Faces, lod: int) -> tuple[Points, Faces]:
        """Return level `lod` made from the one before; vertices in voxels (xyz)."""
        error = (self.max_error or math.prod(self.voxel_size) ** (1 / 3)) * 2**lod
        return simplify(vertices, faces, error, self.voxel_size)


def _float32_below(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the nearest numbers that are not above and that float32, in which manifests are, has."""
    near = values.astype(np.float32)
    near = np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)
    result: npt.NDArray[np.float64] = near.astype(np.float64)
    return result


def fitting_cells(vertices: Points, faces: Faces, detail: Detail) -> tuple[int, Cells]:
    """Return the number of levels of a surface (voxels, xyz), and the finest cells, none with too many triangles."""
    low, high = extent(vertices)
    levels = detail.levels(low, high)
    cells = detail.cells(low, high, levels)
    while len(faces) > detail.most_faces and levels < _DEEPEST:
        counts = np.unique(cells.of(vertices, faces), axis=0, return_counts=True)[1]
        if counts.max() <= detail.most_faces:
            break
        levels += 1
        cells = detail.cells(low, high, levels)
    return levels, cells


def encode_level(
    vertices: Points,
    faces: Faces,
    cells: Cells,
    lod: int,
    bits: int,
    within: tuple[Position, Position] | None = None,
    *,
    draco: int = DRACO_LEVEL,
) -> Encoded:
    """Return the Draco fragments of a level by cell, in Z-curve order, those without triangles left out.

    No triangle of a coarser level is in two cells of the level before. No two have the same corners, and no edge is of
    four triangles, once they are rounded. Vertices are in voxels (xyz), and `cells` those of the finest level; what
    lies beyond the first and the last cell of the level in `within` is put into these.
    """
    vertices, faces = cut(vertices, faces, cells.coarser(max(lod - 1, 0)))
    cells = cells.coarser(lod)
    low, high = within or ((0, 0, 0), cells.count - 1)
    points, faces = sealed(quantised(vertices, cells, bits, np.array(low), np.array(high)), faces)
    steps = 2**bits - 1
    places = np.clip(points[faces].sum(axis=1) // (3 * steps), low, high)
    encoded = []
    for position, inside in by_cell(places, faces):
        own, triangles = used(points, inside)
        encoded.append((position, encode_draco(own - np.array(position) * steps, triangles, bits=bits, level=draco)))
    return encoded


def quantised(
    vertices: Points, cells: Cells, bits: int, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return vertices as whole numbers, of which each of the cells `first` to `last` has 2**bits - 1 per axis.

    Those in the middle of a cell, where coarser levels are cut, are all rounded up.
    """
    steps = 2**bits - 1
    places = np.floor((vertices - cells.origin) / cells.size * steps + (0.5 + _TIES)).astype(np.int64)
    whole: npt.NDArray[np.int64] = np.clip(places, first * steps, (last + 1) * steps)
    return whole


def manifest_of(cells: Cells, encoded: Sequence[Encoded]) -> MultiresManifest:
    """Return the manifest of levels, finest first, each encoded on its cells."""
    levels = tuple(
        Level(
            np.array([position for position, _ in level], np.uint32).reshape(-1, 3),
            np.array([len(data) for _, data in level], np.uint32),
            scale=float(2**lod),
        )
        for lod, level in enumerate(encoded)
    )
    return MultiresManifest(_triple(cells.size), _triple(cells.origin), levels)


def multires(vertices: Points, faces: Faces, detail: Detail) -> tuple[bytes, bytes]:
    """Return the fragments and the manifest of a surface in all its levels of detail; vertices in voxels (xyz).

    Small surfaces of one shape, wherever they are, are encoded once.
    """
    origin = _float32_below(np.floor(extent(vertices)[0]))
    near = vertices - origin
    if len(faces) <= _SMALL:
        fragments, manifest = _small(near.tobytes(), faces.tobytes(), detail)
    else:
        fragments, manifest = _encoded(near, faces, detail)
    return fragments, dataclasses.replace(manifest, origin=_triple(origin)).encode()


@functools.lru_cache(_CACHED)
def _small(vertices: bytes, faces: bytes, detail: Detail) -> tuple[bytes, MultiresManifest]:
    triangles = np.frombuffer(faces, np.uint32).reshape(-1, 3)
    return _encoded(np.frombuffer(vertices, np.float64).reshape(-1, 3), triangles, detail)


def _encoded(vertices: Points, faces: Faces, detail: Detail) -> tuple[bytes, MultiresManifest]:
    levels, cells = fitting_cells(vertices, faces, detail)
    encoded = []
    for lod in range(levels):
        if lod:
            vertices, faces = detail.coarser(vertices, faces, lod)
        encoded.append(encode_level(vertices, faces, cells, lod, detail.bits, draco=detail.draco))
    return b"".join(data for level in encoded for _, data in level), manifest_of(cells, encoded)


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


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

    def coarser(self, lod: int) -> Cells:
        """Return the grid of cells twice as long, as many times."""
        return Cells(self.origin, self.size * 2**lod, -(-self.count // 2**lod))

    def of(self, vertices: Points, faces: Faces) -> npt.NDArray[np.int64]:
        """Return the cell that each triangle's middle is in, shape (m, 3) xyz."""
        middle = (vertices[faces[:, 0]] + vertices[faces[:, 1]] + vertices[faces[:, 2]]) / 3
        cells = np.floor((middle - self.origin) / self.size).astype(np.int64)
        return np.clip(cells, 0, self.count - 1)


def cut(vertices: Points, faces: Faces, cells: Cells) -> tuple[Points, Faces]:
    """Return the same surface, in which no triangle is in two cells.

    Each triangle is cut by itself, in the same way wherever and with whatever others it is cut, and two that share an
    edge get the same vertices on it: pieces that are cut apart still fit.
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
    pieces = [(a[one], b[one], m), (a[one], m, c[one]), (a[two], p, q), (p, b[two], c[two]), (p, c[two], q)]
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

    There is a cell for each triangle, shape (m, 3) xyz, not negative.
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
