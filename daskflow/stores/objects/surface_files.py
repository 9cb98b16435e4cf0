"""Meshes in the files that other programs read: PLY, OBJ and STL, in nm."""

from __future__ import annotations

import io
from typing import Literal, get_args

import numpy as np

from daskflow.errors import ParameterError
from daskflow.stores.objects.mesh_files import Mesh

SurfaceFormat = Literal["ply", "obj", "stl"]

_FACE = np.dtype([("count", "u1"), ("vertices", "<i4", (3,))])
_TRIANGLE = np.dtype([("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])


def encode_surface(mesh: Mesh, kind: SurfaceFormat) -> bytes:
    """Return a mesh as a binary PLY, a text OBJ or a binary STL file.

    Raises:
        ParameterError: another format.
    """
    if kind not in get_args(SurfaceFormat):
        raise ParameterError(f"no mesh format {kind!r}; known are {', '.join(get_args(SurfaceFormat))}")
    return {"ply": encode_ply, "obj": encode_obj, "stl": encode_stl}[kind](mesh)


def encode_ply(mesh: Mesh) -> bytes:
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


def encode_obj(mesh: Mesh) -> bytes:
    """Return a mesh as a text OBJ file, in which vertices are counted from 1."""
    text = io.StringIO()
    text.write("# nm\n")
    digits = 9 if mesh.vertices.dtype == np.float32 else 17
    np.savetxt(text, mesh.vertices, " ".join(["v", *[f"%.{digits}g"] * 3]))
    np.savetxt(text, mesh.faces.astype(np.int64) + 1, "f %d %d %d")
    return text.getvalue().encode()


def encode_stl(mesh: Mesh) -> bytes:
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
