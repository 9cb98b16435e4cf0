"""Surfaces as bytes in a job's scratch data."""

from __future__ import annotations

import struct

import numpy as np
from isal import isal_zlib

from daskflow.errors import CorruptChunkError
from daskflow.operators.objects.mesh.surface import Surface, extent

_HEAD = struct.Struct("<III3d")  # checksum of the rest, vertices, faces, corner


def pack_surface(surface: Surface) -> bytes:
    """Return a surface as bytes; vertices are float32 from its lowest corner, where whole numbers stay exact.

    They are not compressed: so their size tells, before they are read, how much memory a surface will take.
    """
    corner = np.floor(extent(surface.vertices)[0]) if len(surface.vertices) else np.zeros(3)
    near = (surface.vertices - corner).astype("<f4")
    head = _HEAD.pack(0, len(near), len(surface.faces), *corner.tolist())[4:]
    rest = b"".join([head, near.tobytes(), surface.faces.astype("<u4").tobytes()])
    return struct.pack("<I", isal_zlib.crc32(rest)) + rest


def unpack_surface(data: bytes, where: str) -> Surface:
    """Return what `pack_surface` was given.

    Args:
        data: what it returned.
        where: they come from, for the message.

    Raises:
        CorruptChunkError: the bytes are not as they were written.
    """
    try:
        checksum, vertices, faces, *corner = _HEAD.unpack_from(data)
        if checksum != isal_zlib.crc32(memoryview(data)[4:]):
            raise ValueError("checksum")
        near = np.frombuffer(data, "<f4", 3 * vertices, _HEAD.size).reshape(-1, 3)
        triangles = np.frombuffer(data, "<u4", 3 * faces, _HEAD.size + 12 * vertices).reshape(-1, 3)
    except (struct.error, ValueError) as error:
        raise CorruptChunkError(
            f"scratch data in {where} are damaged; delete the job's directory and run it again"
        ) from error
    return Surface(near.astype(np.float64) + np.array(corner), triangles.astype(np.uint32))
