"""Surfaces as bytes in a job's scratch data."""

from __future__ import annotations

import struct

import numpy as np
from isal import isal_zlib

from daskflow.errors import CorruptChunkError
from daskflow.operators.meshing.surface import Surface

_HEAD = struct.Struct("<IIII3d")  # checksum of the rest, vertices, faces, bytes of a packed vertex number, corner


def pack_surface(surface: Surface) -> bytes:
    """Return a surface as bytes; vertices are float32 from its lowest corner, where whole numbers stay exact."""
    from numcodecs import Blosc

    corner = np.floor(surface.vertices.min(axis=0)) if len(surface.vertices) else np.zeros(3)
    near = (surface.vertices - corner).astype("<f4")
    body = near.tobytes() + surface.faces.astype("<u4").tobytes()
    packed = bytes(Blosc("lz4", 1, Blosc.SHUFFLE).encode(np.frombuffer(body, "<u4"))) if body else b""
    rest = _HEAD.pack(0, len(near), len(surface.faces), len(packed), *corner.tolist())[4:] + packed
    return struct.pack("<I", isal_zlib.crc32(rest)) + rest


def unpack_surface(data: bytes, where: str) -> Surface:
    """Return what `pack_surface` was given.

    Args:
        data: what it returned.
        where: they come from, for the message.

    Raises:
        CorruptChunkError: the bytes are not as they were written.
    """
    from numcodecs import Blosc

    try:
        checksum, vertices, faces, size, *corner = _HEAD.unpack_from(data)
        packed = data[_HEAD.size :]
        if checksum != isal_zlib.crc32(data[4:]) or len(packed) != size:
            raise ValueError("checksum")
        body = Blosc("lz4", 1, Blosc.SHUFFLE).decode(packed) if packed else b""
        near = np.frombuffer(body, "<f4", 3 * vertices).reshape(-1, 3)
        triangles = np.frombuffer(body, "<u4", 3 * faces, 12 * vertices).reshape(-1, 3)
    except (struct.error, ValueError, RuntimeError) as error:
        raise CorruptChunkError(
            f"scratch data in {where} are damaged; delete the job's directory and run it again"
        ) from error
    return Surface(near.astype(np.float64) + np.array(corner), triangles.astype(np.uint32))
