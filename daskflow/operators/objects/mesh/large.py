"""Labels whose pieces do not fit in memory, divided in space and put together again.

    levels of detail     0 1 2 3 4
    in parts             0 1 2           parts: cells of level 2, each made from the pieces that reach into it
    in cells of level 3        3         each made from the parts in it, eight at most
    in cells of level 4          4       each made from those of level 3, and so on, one cell after another

The borders of a cell stay as they are until it is joined with the next ones, so that they fit at every level. A level
of which a cell would not fit in memory is left out, and so are those after it: the last one may have many cells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from daskflow.geometry import Zyx
from daskflow.operators.objects.mesh.multires import Cells, Detail, Encoded, Position, cut, encode_level, z_curve
from daskflow.operators.objects.mesh.surface import Faces, Points, Surface, used
from daskflow.scratch.pieces import Fragment
from daskflow.scratch.records import Arrays

PACKED_BYTES = 18  # of a triangle in scratch data, with its share of the vertices
_WORKING_BYTES = 72  # held while a surface is joined, simplified, cut and sealed, for each packed byte
_FEWER = 2  # times as many triangles has a level than the one after it, at least
_DEEPEST = 14
_FINEST = 16  # voxels of a cell


@dataclass(frozen=True, eq=False)
class Division:
    """How a large label is divided.

    Attributes:
        detail: how levels are made.
        cells: of the finest level.
        levels: how many there are, unless they do not get smaller.
        inner: the coarsest level that parts are made to; a part is a cell of it.
        parts: the cells of that level which pieces reach into, in Z-curve order, with the pieces.
        most: triangles that are joined at once.
    """

    detail: Detail
    cells: Cells
    levels: int
    inner: int
    parts: list[tuple[Position, list[Fragment]]]
    most: int

    @property
    def part_cells(self) -> Cells:
        """The grid of parts."""
        return self.cells.coarser(self.inner)

    def inside(self, position: Position, lod: int) -> tuple[Position, Position]:
        """Return the first and the last cell of a level in the part at `position`."""
        x, y, z = position
        many = 2 ** (self.inner - lod)
        last = many - 1
        return (x * many, y * many, z * many), (x * many + last, y * many + last, z * many + last)


def most_bytes(memory: int) -> int:
    """Return how many packed bytes a label has at most that is not divided."""
    return max(1, memory // _WORKING_BYTES)


def divide(fragments: Sequence[Fragment], detail: Detail, memory: int, block: Zyx) -> Division | None:
    """Return how a label is divided so that no step takes more than about `memory` bytes; None if it fits as it is.

    Parts are not smaller than the blocks (zyx) that left its pieces: one is in memory anyway while it is cut.
    """
    whole = most_bytes(memory)
    total = sum(fragment.size for fragment in fragments)
    if total <= whole:
        return None
    size = np.array([*detail.voxel_size[::-1]] * 2)
    bounds = np.array([fragment.bounds for fragment in fragments]) / size
    low, high = bounds[:, :3].min(axis=0) - 0.01, bounds[:, 3:].max(axis=0) + 0.01
    inner = max(1, math.ceil(math.log(total / whole, _FEWER)))
    most = min(whole, PACKED_BYTES * detail.most_faces)
    for halvings in range(_DEEPEST):  # of the label's extent, which give parts
        shortest = float(((high - np.floor(low)) / 2**halvings / _FINEST).min())
        inner = min(inner, max(1, math.floor(math.log2(max(shortest, 1)))))  # small cells take more than they save
        levels = max(detail.levels(low, high), halvings + inner + 1)
        cells = detail.cells(low, high, levels)
        grid = cells.coarser(inner)
        parts = _parts(grid, fragments, bounds)
        small = (grid.size <= np.array(block[::-1])).all()
        if small or levels >= _DEEPEST or max(_load(members, place, grid, size) for place, members in parts) <= most:
            break
    return Division(detail, cells, levels, inner, parts, most // PACKED_BYTES)


def _load(members: Sequence[Fragment], position: Position, cells: Cells, size: npt.NDArray[np.float64]) -> float:
    """Return about how many bytes of some pieces are in a cell: each is taken to fill its bounds evenly."""
    low, high = np.split(np.array([fragment.bounds for fragment in members]) / size, 2, axis=1)
    corner = cells.origin + np.array(position) * cells.size
    inside = np.minimum(high, corner + cells.size) - np.maximum(low, corner)
    shares = (np.maximum(inside, 0) / np.maximum(high - low, 1e-9)).clip(0, 1).prod(axis=1)
    return float(shares @ np.array([fragment.size for fragment in members]))


def _parts(
    cells: Cells, fragments: Sequence[Fragment], bounds: npt.NDArray[np.float64]
) -> list[tuple[Position, list[Fragment]]]:
    margin = 0.01
    first = np.floor((bounds[:, :3] - margin - cells.origin) / cells.size).astype(np.int64).clip(0, cells.count - 1)
    last = np.floor((bounds[:, 3:] + margin - cells.origin) / cells.size).astype(np.int64).clip(0, cells.count - 1)
    found: dict[Position, list[Fragment]] = {}
    for fragment, low, high in zip(fragments, first.tolist(), last.tolist(), strict=True):
        x, y, z = (range(a, b + 1) for a, b in zip(low, high, strict=True))
        for position in itertools.product(x, y, z):
            found.setdefault(position, []).append(fragment)
    parts = list(found.items())
    return [parts[number] for number in np.argsort(z_curve(np.array(list(found), np.int64))).tolist()]


def clipped(vertices: Points, faces: Faces, position: Position, division: Division) -> tuple[Points, Faces]:
    """Return what of a surface is in the part at `position`, cut at its borders; vertices in voxels (xyz)."""
    cells = division.part_cells
    vertices, faces = cut(*_reaching(vertices, faces, position, cells), cells)
    return used(vertices, faces[(cells.of(vertices, faces) == np.array(position)).all(axis=1)])


def make_part(vertices: Points, faces: Faces, position: Position, division: Division) -> Arrays:
    """Return one part, as a record: its fragments of every level up to the inner one, and its surface at that level.

    Vertices, in voxels (xyz), and faces are what `clipped` returned of the pieces that reach into it, joined.
    """
    arrays: Arrays = {}
    for lod in range(division.inner + 1):
        if lod:
            vertices, faces = division.detail.coarser(vertices, faces, lod)
        arrays |= _encoded(vertices, faces, division.inside(position, lod), lod, division)
    return {**arrays, "vertices": vertices, "faces": faces}


def join_parts(records: Sequence[Arrays], position: Position, lod: int, division: Division) -> Arrays:
    """Return one cell of a level coarser than the inner one, as a record: its fragment, and its surface.

    They are made from the records of the cells of the level before that are in it, in Z-curve order.
    """
    surface = Surface.joined([Surface(record["vertices"], record["faces"]) for record in records])
    vertices, faces = division.detail.coarser(surface.vertices, surface.faces, lod)
    arrays = _encoded(vertices, faces, (position, position), lod, division)
    return {**arrays, "vertices": vertices, "faces": faces}


def parents(cells: Sequence[Position]) -> list[tuple[Position, list[int]]]:
    """Return the cells of the next level, in Z-curve order, and which of `cells`, in that order, are in each."""
    found: dict[Position, list[int]] = {}
    for number, (x, y, z) in enumerate(cells):
        found.setdefault((x // 2, y // 2, z // 2), []).append(number)
    return list(found.items())


def fragments_of(record: Arrays, lod: int) -> Encoded:
    """Return the fragments of a level in a record."""
    data, stops = record[f"data{lod}"], np.cumsum(record[f"sizes{lod}"], dtype=np.int64).tolist()
    starts = [0, *stops[:-1]]
    places = [(x, y, z) for x, y, z in record[f"positions{lod}"].tolist()]
    return [(place, data[a:b].tobytes()) for place, a, b in zip(places, starts, stops, strict=False)]


def _encoded(vertices: Points, faces: Faces, within: tuple[Position, Position], lod: int, division: Division) -> Arrays:
    encoded: Encoded = []
    if len(faces):  # simplified, they may reach a little beyond their cells
        detail = division.detail
        encoded = encode_level(vertices, faces, division.cells, lod, detail.bits, within, draco=detail.draco)
    return {
        f"positions{lod}": np.array([place for place, _ in encoded], np.uint32).reshape(-1, 3),
        f"sizes{lod}": np.array([len(data) for _, data in encoded], np.uint32),
        f"data{lod}": np.frombuffer(b"".join(data for _, data in encoded), np.uint8),
    }


def _reaching(vertices: Points, faces: Faces, position: Position, cells: Cells) -> tuple[Points, Faces]:
    """Return the triangles of which some may be in a cell."""
    corner = cells.origin + np.array(position) * cells.size
    first, last = np.array(position) == 0, np.array(position) == cells.count - 1
    low, high = np.where(first, -np.inf, corner), np.where(last, np.inf, corner + cells.size)
    below, above = (vertices < low)[faces].all(axis=1), (vertices > high)[faces].all(axis=1)
    return used(vertices, faces[~np.any(below | above, axis=1)])
