"""Labels whose pieces do not fit in memory, divided in space and put together again.

    levels of detail     0 1 2 3 4
    in parts             0 1 2           parts: cells of level 2, each made from the pieces that reach into it
    as a whole               2 3 4       what is left of all parts at level 2 is small enough

The borders of parts stay as they are until the parts are joined, so that they fit at every level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from daskflow.geometry import Zyx
from daskflow.jobs.fragments import Fragment
from daskflow.jobs.records import Arrays
from daskflow.operators.meshing.cutting import Cells, cut, z_curve
from daskflow.operators.meshing.multires import Detail, Encoded, Position, encode_level, manifest_of
from daskflow.operators.meshing.surface import Faces, Points, Surface

PACKED_BYTES = 18  # of a triangle in scratch data, with its share of the vertices
_WORKING_BYTES = 36  # held while a surface is joined, simplified and cut, for each packed byte
_FEWER = 2  # times as many triangles has a level than the one after it, at least
_DEEPEST = 14
_FINEST = 16  # voxels of a cell


@dataclass(frozen=True, eq=False)
class Division:
    """How a large label is divided.

    Attributes:
        cells: of the finest level.
        levels: how many there are.
        inner: the coarsest level that parts are made to; a part is a cell of it.
        parts: the cells of that level which pieces reach into, in Z-curve order, with the pieces.
    """

    cells: Cells
    levels: int
    inner: int
    parts: list[tuple[Position, list[Fragment]]]

    @property
    def part_cells(self) -> Cells:
        """The grid of parts."""
        cells = self.cells
        for _ in range(self.inner):
            cells = cells.doubled()
        return cells

    def inside(self, position: Position, lod: int) -> tuple[Position, Position]:
        """Return the first and the last cell of a level in the part at `position`."""
        x, y, z = position
        many = 2 ** (self.inner - lod)
        last = many - 1
        return (x * many, y * many, z * many), (x * many + last, y * many + last, z * many + last)


def divide(fragments: Sequence[Fragment], detail: Detail, memory: int, block: Zyx) -> Division | None:
    """Return how a label is divided so that no step takes more than about `memory` bytes; None if it fits as it is.

    A part smaller than a block would need the pieces of up to eight blocks still, so none is.

    Args:
        fragments: its pieces.
        detail: how its levels are made.
        memory: bytes.
        block: voxels (zyx) of the blocks that left the pieces.
    """
    whole = max(1, memory // _WORKING_BYTES)
    total = sum(fragment.size for fragment in fragments)
    if total <= whole:
        return None
    size = np.array([*detail.voxel_size[::-1]] * 2)
    bounds = np.array([fragment.bounds for fragment in fragments]) / size
    low, high = bounds[:, :3].min(axis=0) - 0.01, bounds[:, 3:].max(axis=0) + 0.01
    inner = max(1, math.ceil(math.log(total / whole, _FEWER)))
    levels = max(detail.levels(low, high), inner + 1)
    most = min(whole, PACKED_BYTES * detail.most_faces)
    while True:
        division = Division(detail.cells(low, high, levels), levels, inner, [])
        parts = _parts(division.part_cells, fragments, bounds)
        loads = [sum(fragment.size for fragment in members) for _, members in parts]
        small = (division.part_cells.size <= np.array(block[::-1])).all()
        if max(loads) <= most or small or levels >= _DEEPEST:
            while (
                inner > 1 and division.cells.size.min() < _FINEST
            ):  # as many small cells would take more than they save
                inner, levels = inner - 1, levels - 1
                division = Division(detail.cells(low, high, levels), levels, inner, [])
            return Division(division.cells, levels, inner, _parts(division.part_cells, fragments, bounds))
        levels += 1


def _parts(
    cells: Cells, fragments: Sequence[Fragment], bounds: npt.NDArray[np.float64]
) -> list[tuple[Position, list[Fragment]]]:
    margin = 0.01
    first = np.floor((bounds[:, :3] - margin - cells.origin) / cells.size).astype(np.int64).clip(0, cells.count - 1)
    last = np.floor((bounds[:, 3:] + margin - cells.origin) / cells.size).astype(np.int64).clip(0, cells.count - 1)
    found: dict[Position, list[Fragment]] = {}
    for fragment, low, high in zip(fragments, first.tolist(), last.tolist(), strict=True):
        for z in range(low[2], high[2] + 1):
            for y in range(low[1], high[1] + 1):
                for x in range(low[0], high[0] + 1):
                    found.setdefault((x, y, z), []).append(fragment)
    positions = np.array(list(found), np.int64)
    order = np.argsort(z_curve(positions)).tolist()
    keys = list(found)
    return [(keys[number], found[keys[number]]) for number in order]


def make_part(vertices: Points, faces: Faces, position: Position, division: Division, detail: Detail) -> Arrays:
    """Return one part, as a record: its fragments of every level up to the inner one, and its surface at that level.

    Args:
        vertices: of the pieces that reach into it, joined; voxels (xyz).
        faces: their triangles.
        position: of the part.
        division: of the label.
        detail: how levels are made.
    """
    cells = division.part_cells
    vertices, faces = cut(vertices, faces, cells)
    inside = (cells.of(vertices, faces) == np.array(position)).all(axis=1)
    vertices, faces = _used(vertices, faces[inside])
    arrays: Arrays = {}
    for lod in range(division.inner + 1):
        if lod and len(faces):
            vertices, faces = detail.coarser(vertices, faces, lod, origin=division.cells.origin)
        encoded: Encoded = []
        if len(faces):  # simplified, they may reach a little beyond the part
            within = division.inside(position, lod)
            encoded = encode_level(vertices, faces, division.cells, lod, detail.bits, within)
        arrays[f"positions{lod}"] = np.array([place for place, _ in encoded], np.uint32).reshape(-1, 3)
        arrays[f"sizes{lod}"] = np.array([len(data) for _, data in encoded], np.uint32)
        arrays[f"data{lod}"] = np.frombuffer(b"".join(data for _, data in encoded), np.uint8)
    return {**arrays, "vertices": vertices, "faces": faces}


def join_parts(records: Sequence[Arrays], division: Division, detail: Detail) -> tuple[bytes, bytes]:
    """Return the fragments and the manifest of a label from its parts, in their order."""
    levels: list[Encoded] = [
        [one for record in records for one in _fragments(record, lod)] for lod in range(division.inner + 1)
    ]
    surface = Surface.joined([Surface(record["vertices"], record["faces"]) for record in records])
    vertices, faces = surface.vertices, surface.faces
    for lod in range(division.inner + 1, division.levels):
        vertices, faces = detail.coarser(vertices, faces, lod)
        levels.append(encode_level(vertices, faces, division.cells, lod, detail.bits))
    fragments = b"".join(data for level in levels for _, data in level)
    return fragments, manifest_of(division.cells, levels).encode()


def _fragments(record: Arrays, lod: int) -> Encoded:
    data, stops = record[f"data{lod}"], np.cumsum(record[f"sizes{lod}"], dtype=np.int64).tolist()
    starts = [0, *stops[:-1]]
    places = [(x, y, z) for x, y, z in record[f"positions{lod}"].tolist()]
    return [(place, data[a:b].tobytes()) for place, a, b in zip(places, starts, stops, strict=False)]


def _used(vertices: Points, faces: Faces) -> tuple[Points, Faces]:
    used, inverse = np.unique(faces, return_inverse=True)
    return vertices[used], inverse.reshape(-1, 3).astype(np.uint32)
