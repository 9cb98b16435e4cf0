"""Meshes in files.

As precomputed layers hold them: legacy fragments with manifests, and multi-resolution Draco (neuroglancer's
``meshes.md``); and for other programs: PLY, OBJ and STL. Positions are xyz here, in nm, as in the files.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from daskflow.errors import CorruptChunkError, ParameterError, optional_module
from daskflow.stores.objects.picture import figure
from daskflow.stores.refusals import parse_object

Vertices = npt.NDArray[np.floating[Any]]
Faces = npt.NDArray[np.uint32]
Json = dict[str, Any]
V = TypeVar("V", bound=np.generic)

LEGACY = "neuroglancer_legacy_mesh"
MULTIRES = "neuroglancer_multilod_draco"
_FACE = np.dtype([("count", "u1"), ("vertices", "<i4", (3,))])
_TRIANGLE = np.dtype([("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])
DRACO_LEVEL = 7  # of 0 to 10
SURFACE_FILES = ("ply", "obj", "stl")
_IDENTITY = (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles.

    Attributes:
        vertices: positions, shape (n, 3): **xyz in nm**, as in files and mesh libraries; float32, or float64 where
            they are far from the origin.
        faces: three vertices of each triangle, counter-clockwise seen from outside, uint32, shape (m, 3).
    """

    vertices: Vertices
    faces: Faces

    def __repr__(self) -> str:
        return f"<Mesh {len(self.vertices):,} vertices, {len(self.faces):,} faces>"

    def _repr_html_(self) -> str:
        return figure(repr(self), self.vertices, self.faces, np.zeros((0, 2), np.uint32))

    @property
    def bounds(self) -> tuple[float, float, float, float, float, float]:
        """The least and the greatest x, y and z, in nm; zeros without vertices."""
        return bounds_of(self.vertices)

    @classmethod
    def joined(cls, meshes: Sequence[Mesh]) -> Mesh:
        """Return meshes as one, vertex after vertex; see `welded`."""
        nothing = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint32)
        return cls(*stacked([nothing, *((mesh.vertices, mesh.faces) for mesh in meshes)]))

    def welded(self) -> Mesh:
        """Return the mesh with vertices at the same position made one, and triangles that vanish by it dropped."""
        return Mesh(*weld(self.vertices, self.faces))


def stacked(parts: Sequence[tuple[npt.NDArray[V], Faces]]) -> tuple[npt.NDArray[V], Faces]:
    """Return vertices and faces of several surfaces as those of one, vertex after vertex."""
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    faces = [own + np.uint32(start) for (_, own), start in zip(parts, starts[:-1], strict=True)]
    return np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces)


def bounds_of(vertices: Vertices) -> tuple[float, float, float, float, float, float]:
    """Return the least and the greatest x, y and z of places, zeros without any."""
    if not len(vertices):
        return (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    low, high = vertices.min(axis=0).tolist(), vertices.max(axis=0).tolist()
    return (low[0], low[1], low[2], high[0], high[1], high[2])


def weld(vertices: npt.NDArray[Any], faces: Faces) -> tuple[npt.NDArray[Any], Faces]:
    """Return vertices, each position once and sorted, and the faces renumbered without those that have two alike."""
    rows = np.ascontiguousarray(vertices + 0)  # -0.0 becomes 0.0, so that equal numbers have equal bytes
    order = np.lexsort(rows.T[::-1])
    ranked = rows[order]
    first = np.ones(len(rows), bool)
    first[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    numbers = np.empty(len(rows), np.uint32)
    numbers[order] = np.cumsum(first) - 1
    faces = numbers[faces.reshape(-1)].reshape(-1, 3)
    a, b, c = faces.T
    return ranked[first], faces[(a != b) & (b != c) & (c != a)]


def encode_fragment(mesh: Mesh) -> bytes:
    """Return a mesh as the file of a legacy fragment: the number of vertices, vertices, faces."""
    count = struct.pack("<I", len(mesh.vertices))
    return count + mesh.vertices.astype("<f4").tobytes() + mesh.faces.astype("<u4").tobytes()


def decode_fragment(data: bytes) -> Mesh:
    """Return the mesh of a legacy fragment.

    Raises:
        CorruptChunkError: sizes do not fit.
    """
    count = struct.unpack_from("<I", data)[0] if len(data) >= 4 else -1
    end = 4 + 12 * count
    if count < 0 or end > len(data) or (len(data) - end) % 12:
        raise CorruptChunkError(f"{len(data)} bytes are not a mesh fragment of {count} vertices")
    vertices = np.frombuffer(data, "<f4", 3 * count, 4).reshape(-1, 3).astype(np.float32)
    faces = np.frombuffer(data, "<u4", offset=end).reshape(-1, 3).astype(np.uint32)
    if faces.size and int(faces.max()) >= count:
        raise CorruptChunkError(f"a face of a mesh fragment names vertex {faces.max()} of {count}")
    if not np.isfinite(vertices).all():
        raise CorruptChunkError(f"a mesh fragment of {count} vertices has some that are not finite numbers")
    return Mesh(vertices, faces)


def manifest_name(label: int) -> str:
    """Return the name of the file that lists a label's legacy fragments."""
    return f"{label}:0"


def encode_manifest(names: Sequence[str]) -> bytes:
    """Return the file that lists legacy fragments, sorted by name."""
    return json.dumps({"fragments": sorted(names)}).encode()


def decode_manifest(data: bytes) -> list[str]:
    """Return the names of legacy fragments, without ``.gz`` and ``.br``, which some writers put into manifests.

    Raises:
        CorruptChunkError: the file lists none.
    """
    names = parse_object(data, "a mesh manifest", CorruptChunkError).get("fragments")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CorruptChunkError(f"a mesh manifest is damaged: its fragments are {names!r}, not a list of names")
    return [name.removesuffix(".gz").removesuffix(".br") for name in names]


@dataclass(frozen=True, eq=False)
class Level:
    """One level of detail of a multi-resolution mesh, in cells of ``chunk_shape * 2**lod``.

    Attributes:
        positions: of the cells, counted from the origin, uint32, shape (n, 3) xyz, in Z-curve order.
        sizes: bytes of the Draco fragment of each cell, shape (n,); 0 where it is empty.
        scale: by which a viewer chooses levels.
        offset: added to the positions of vertices, shape (3,) xyz.
    """

    positions: npt.NDArray[np.uint32]
    sizes: npt.NDArray[np.uint32]
    scale: float = 1.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class MultiresManifest:
    """Where the fragments of a multi-resolution mesh are, in the units that the ``transform`` of the info takes to nm.

    A vertex q of a fragment, quantised, is ``origin + offset + chunk_shape * 2**lod * (position + q / (2**bits-1))``.

    Attributes:
        chunk_shape: cell of the finest level, xyz.
        origin: of the grid of cells, xyz.
        levels: finest first.
    """

    chunk_shape: tuple[float, float, float]
    origin: tuple[float, float, float]
    levels: tuple[Level, ...]

    @property
    def bytes_of_levels(self) -> list[int]:
        """The bytes of all fragments of each level, which lie level after level."""
        return [int(level.sizes.sum(dtype=np.int64)) for level in self.levels]

    def encode(self) -> bytes:
        """Return the file."""
        levels = self.levels
        head = struct.pack("<6fI", *self.chunk_shape, *self.origin, len(levels))
        parts = [
            np.array([level.scale for level in levels], "<f4").tobytes(),
            np.array([level.offset for level in levels], "<f4").tobytes(),
            np.array([len(level.sizes) for level in levels], "<u4").tobytes(),
        ]
        for level in levels:
            parts += [level.positions.T.astype("<u4").tobytes(), level.sizes.astype("<u4").tobytes()]
        return head + b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> MultiresManifest:
        """Return what a file says.

        Raises:
            CorruptChunkError: sizes do not fit.
        """
        try:
            numbers = struct.unpack_from("<6fI", data)
            count = numbers[6]
            scales = np.frombuffer(data, "<f4", count, 28)
            offsets = np.frombuffer(data, "<f4", 3 * count, 28 + 4 * count).reshape(-1, 3)
            cells = np.frombuffer(data, "<u4", count, 28 + 16 * count).tolist()
            levels, at = [], 28 + 20 * count
            for lod, n in enumerate(cells):
                positions = np.frombuffer(data, "<u4", 3 * n, at).reshape(3, n).T
                sizes = np.frombuffer(data, "<u4", n, at + 12 * n)
                x, y, z = offsets[lod].tolist()
                levels.append(Level(positions, sizes, float(scales[lod]), (x, y, z)))
                at += 16 * n
        except (struct.error, ValueError) as error:
            raise CorruptChunkError(f"{len(data)} bytes are not a multi-resolution mesh manifest: {error}") from error
        return cls(numbers[0:3], numbers[3:6], tuple(levels))


def encode_draco(positions: npt.NDArray[Any], faces: Faces, *, bits: int, level: int = DRACO_LEVEL) -> bytes:
    """Return a fragment of a multi-resolution mesh; b"" without faces.

    Positions are those of vertices within the cell, quantised: whole numbers 0 to 2**bits - 1, shape (n, 3) xyz.
    `level` is that of compression, 0 to 10.
    """
    if not len(faces):
        return b""
    return bytes(
        _draco().encode(
            np.asarray(positions, np.float32),
            np.asarray(faces, np.uint32),
            quantization_bits=bits,
            compression_level=level,
            quantization_range=2**bits - 1,
            quantization_origin=np.zeros(3, np.float32),
            create_metadata=False,
        )
    )


def decode_draco(data: bytes) -> tuple[npt.NDArray[np.int64], Faces]:
    """Return the quantised positions and the faces of a fragment; none for an empty one.

    Raises:
        CorruptChunkError: it is damaged.
    """
    if not data:
        return np.zeros((0, 3), np.int64), np.zeros((0, 3), np.uint32)
    draco = _draco()
    try:
        mesh = draco.decode(data)
    except (draco.FileTypeException, ValueError, TypeError, RuntimeError) as error:
        raise CorruptChunkError(f"{len(data)} bytes are not a Draco mesh: {error}") from error
    points = np.asarray(mesh.points, np.float64)
    if not (np.abs(points) < 2**32).all():
        raise CorruptChunkError(f"a Draco mesh of {len(data)} bytes has positions that are not quantised numbers")
    positions = np.rint(points).astype(np.int64).reshape(-1, 3)
    faces = np.asarray(mesh.faces, np.uint32).reshape(-1, 3)
    if faces.size and int(faces.max()) >= len(positions):
        raise CorruptChunkError(f"a face of a Draco mesh names vertex {faces.max()} of {len(positions)}")
    return positions, faces


def _draco() -> Any:
    return optional_module("DracoPy", package="DracoPy", extra="mesh")


def legacy_info(*, mip: int, spatial_index: Json | None = None, chunk_size: Sequence[int] | None = None) -> Json:
    """Return the ``info`` of a directory of legacy meshes, as igneous writes it; chunks are blocks of meshing, xyz."""
    extra = {"chunk_size": None if chunk_size is None else list(chunk_size), "spatial_index": spatial_index}
    return {"@type": LEGACY, "mip": mip} | {name: value for name, value in extra.items() if value is not None}


def multires_info(
    *,
    voxel_size: Sequence[float],
    translation: Sequence[float] = (0, 0, 0),
    bits: int,
    mip: int,
    sharding: Json | None = None,
    spatial_index: Json | None = None,
) -> Json:
    """Return the ``info`` of a directory of multi-resolution meshes.

    Args:
        voxel_size: nm, xyz, of a unit in which cells and vertices are counted: the voxels that were meshed.
        translation: nm, xyz, where voxel 0 begins.
        bits: of a quantised coordinate, 10 or 16.
        mip: level that was meshed.
        sharding: the JSON, when meshes are in shards.
        spatial_index: what `SpatialIndex.info` returns.

    Raises:
        ParameterError: other bits.
    """
    if bits not in (10, 16):
        raise ParameterError(f"{bits} bits of quantised vertices; Neuroglancer reads 10 or 16")
    x, y, z, tx, ty, tz = (int(v) if float(v).is_integer() else v for v in (*voxel_size, *translation))
    extra = {"sharding": sharding, "spatial_index": spatial_index}
    return {
        "@type": MULTIRES,
        "vertex_quantization_bits": bits,
        "transform": [x, 0, 0, tx, 0, y, 0, ty, 0, 0, z, tz],
        "lod_scale_multiplier": 1,
        "mip": mip,
        **{name: value for name, value in extra.items() if value is not None},
    }


def transformed(points: npt.NDArray[Any], transform: Sequence[float] | None) -> Vertices:
    """Return points (n, 3) through the 3x4 ``transform`` of an info, row by row; None leaves them as they are.

    They are float64 where the transform moves them too far away for float32.

    Raises:
        CorruptChunkError: they are not finite.
    """
    matrix = np.array(transform or _IDENTITY, np.float64).reshape(3, 4)
    with np.errstate(invalid="ignore", over="ignore"):
        places: npt.NDArray[np.float64] = np.asarray(points, np.float64) @ matrix[:, :3].T + matrix[:, 3]
    if not (np.abs(places) < np.finfo(np.float32).max).all():
        raise CorruptChunkError("positions of a mesh or skeleton are not finite numbers; its file is damaged")
    return places if matrix[:, 3].any() else places.astype(np.float32)


def encode_surface(mesh: Mesh, kind: str) -> bytes:
    """Return a mesh as a binary PLY, a text OBJ or a binary STL file.

    Raises:
        ParameterError: another format.
    """
    encoders = {"ply": _encode_ply, "obj": _encode_obj, "stl": _encode_stl}
    if kind not in encoders:
        raise ParameterError(f"unknown mesh format {kind!r}; known formats: {', '.join(encoders)}")
    return encoders[kind](mesh)


def _encode_ply(mesh: Mesh) -> bytes:
    """Return a mesh as a little-endian binary PLY file, with the numbers that its vertices have."""
    number = "float" if mesh.vertices.dtype == np.float32 else "double"
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment nm\n"
        f"element vertex {len(mesh.vertices)}\nproperty {number} x\nproperty {number} y\nproperty {number} z\n"
        f"element face {len(mesh.faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    faces = np.zeros(len(mesh.faces), _FACE)
    faces["count"], faces["vertices"] = 3, mesh.faces
    return header.encode() + mesh.vertices.astype(mesh.vertices.dtype.newbyteorder("<")).tobytes() + faces.tobytes()


def _encode_obj(mesh: Mesh) -> bytes:
    """Return a mesh as a text OBJ file, in which vertices are counted from 1."""
    text = io.StringIO()
    text.write("# nm\n")
    digits = 9 if mesh.vertices.dtype == np.float32 else 17
    np.savetxt(text, mesh.vertices, " ".join(["v", *[f"%.{digits}g"] * 3]))
    np.savetxt(text, mesh.faces.astype(np.int64) + 1, "f %d %d %d")
    return text.getvalue().encode()


def _encode_stl(mesh: Mesh) -> bytes:
    """Return a mesh as a binary STL file, in which each triangle has its normal and its own corners.

    Raises:
        ParameterError: it is too far from the origin for the float32 numbers of STL.
    """
    lengths = np.linalg.norm(np.diff(mesh.vertices[mesh.faces], axis=1), axis=2)
    if lengths.size and np.spacing(np.float32(np.abs(mesh.vertices).max())) > lengths.mean() / 8:
        raise ParameterError(f"STL holds float32, too coarse for a mesh at {mesh.bounds} nm xyz; use ply or obj")
    triangles = np.zeros(len(mesh.faces), _TRIANGLE)
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).astype(np.float64)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    triangles["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    triangles["corners"] = corners
    return b"nm".ljust(80) + len(triangles).to_bytes(4, "little") + triangles.tobytes()
