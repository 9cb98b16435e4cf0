"""Surfaces of the labels in one block, whose vertices lie on a lattice, so that neighbours agree on their seams."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from daskflow.errors import MissingDependencyError
from daskflow.geometry import BoundingBox, Zyx
from daskflow.operators.objects._holes import without_holes
from daskflow.operators.objects._label_objects import pack_arrays, unpack_arrays
from daskflow.stores.objects.mesh_files import stacked, weld

Array = npt.NDArray[Any]
Faces = npt.NDArray[np.uint32]
Points = npt.NDArray[np.float64]
V = TypeVar("V", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles whose vertices are exact where blocks meet.

    Attributes:
        vertices: **xyz in half voxels**, counted from the low corner of the volume's first voxel, float64, shape
            (n, 3): whole numbers as marching cubes gives them, and at seams in any case.
        faces: three vertices of each triangle, counter-clockwise seen from outside, uint32, shape (m, 3).
    """

    vertices: Points
    faces: Faces

    @classmethod
    def joined(cls, surfaces: Sequence[Surface]) -> Surface:
        """Return surfaces as one, in which what lies at the same place is one vertex."""
        if len(surfaces) == 1:
            return surfaces[0]
        return cls(*weld(*stacked([(surface.vertices, surface.faces) for surface in surfaces])))


def extent(vertices: npt.NDArray[V]) -> tuple[npt.NDArray[V], npt.NDArray[V]]:
    """Return the lowest and the highest coordinates of vertices."""
    columns = [vertices[:, axis] for axis in range(vertices.shape[1])]  # numpy is slow along the first axis
    return np.array([column.min() for column in columns]), np.array([column.max() for column in columns])


def used(vertices: npt.NDArray[V], faces: Faces) -> tuple[npt.NDArray[V], Faces]:
    """Return the vertices that some triangles have, in their order, and the triangles renumbered."""
    if 4 * len(faces) < len(vertices):
        kept, inverse = np.unique(faces, return_inverse=True)
        return vertices[kept], inverse.reshape(-1, 3).astype(np.uint32)
    there = np.zeros(len(vertices), bool)
    there[faces] = True
    numbers = np.cumsum(there, dtype=np.uint32) - np.uint32(1)
    return vertices[there], numbers[faces]


@dataclass(frozen=True)
class Seen:
    """The voxels that the surfaces of one block are made from.

        block         |---------------|
        voxels        |---------------|-|      one more on the high side, which the next block has, too
        at the edge  0|---------------|0       closed: background beyond the volume

    Attributes:
        read: what is read (zyx).
        around: how many voxels of background are put before and behind it, by axis (zyx).
    """

    read: BoundingBox
    around: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, block: BoundingBox, volume: BoundingBox, *, closed: bool) -> Seen:
        """Return what a block of a volume is made from; not `closed` leaves surfaces open where the volume ends."""
        ends = zip(block.start, volume.start, block.stop, volume.stop, strict=True)
        around = tuple((int(closed and a == first), int(closed and b == last)) for a, first, b, last in ends)
        return cls(block.grow(0, 1).clip(volume), around)

    def corner(self, origin: Zyx) -> Zyx:
        """Return where the array with the background around it begins, counted from a volume's first voxel (zyx)."""
        z, y, x = (a - before - o for a, (before, _), o in zip(self.read.start, self.around, origin, strict=True))
        return z, y, x


def select(labels: Array, keep: Collection[int] | None, drop: Collection[int]) -> Array:
    """Return labels (zyx) with background in place of all but `keep`, and of `drop`."""
    import fastremap

    if keep is not None:
        labels = fastremap.mask_except(labels, _within(keep, labels.dtype), in_place=False)
    if drop:
        labels = fastremap.mask(labels, _within(drop, labels.dtype), in_place=False)
    return labels


def _within(labels: Collection[int], dtype: np.dtype[Any]) -> list[int]:
    bounds = np.iinfo(dtype)
    return sorted({label for label in labels if bounds.min <= label <= bounds.max})


def filled_labels(labels: Array, level: int) -> Iterator[Array]:
    """Yield labels (zyx) whose holes are filled, in as many arrays as it takes for none to cover another."""
    import fastremap

    numbers, names = fastremap.renumber(labels, preserve_zero=True, in_place=False)
    table = np.zeros(len(names) + 1, labels.dtype)
    for name, number in names.items():
        table[int(number)] = name
    for one in without_holes(numbers, level):
        yield table[one]


def surfaces(
    labels: Array, corner: Zyx, around: Sequence[tuple[int, int]] = ((0, 0),) * 3
) -> Iterator[tuple[int, Surface]]:
    """Yield the surface of each label but 0, by marching cubes between the centres of voxels, labels ascending.

    A surface is open where it leaves the array. Two arrays that share a plane of voxels give the same vertices and
    edges in that plane. Labels are unsigned (zyx); for `corner` and `around` see `Seen`.
    """
    import fastremap

    try:
        import zmesh
    except ImportError as error:
        raise MissingDependencyError.of("zmesh", "mesh") from error

    numbers, names = fastremap.renumber(np.ascontiguousarray(labels), preserve_zero=True, in_place=False)
    mesher = zmesh.Mesher((2.0, 2.0, 2.0))
    mesher.mesh((np.pad(numbers, around) if any(map(any, around)) else numbers).T)
    first = 2 * np.array(corner[::-1], np.float64) + 1
    by_name = {number: name for name, number in names.items()}
    for name, number in sorted((int(by_name[number]), int(number)) for number in mesher.ids()):
        mesh = mesher.get(number, normals=False, reduction_factor=0, max_error=0, voxel_centered=False)
        mesher.erase(number)
        yield name, Surface(mesh.vertices + first, mesh.faces.astype(np.uint32, copy=False))


def pack_surface(surface: Surface) -> bytes:
    """Return a surface as bytes; vertices are float32 from its lowest corner, where whole numbers stay exact.

    They are not compressed: so their size says, before they are read, how much memory a surface will take.
    """
    corner = np.floor(extent(surface.vertices)[0]) if len(surface.vertices) else np.zeros(3)
    return pack_arrays([corner[None], (surface.vertices - corner).astype(np.float32), surface.faces])


def unpack_surface(data: bytes, where: str) -> Surface:
    """Return what `pack_surface` was given; `where` its bytes come from is for the message."""
    corner, near, faces = unpack_arrays(data, [("f8", 3), ("f4", 3), ("u4", 3)], where)
    return Surface(near.astype(np.float64) + corner, faces)
