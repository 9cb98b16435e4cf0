"""What one block knows of one label's skeleton, and how that is kept in scratch data."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import CorruptChunkError

Attributes = dict[str, npt.NDArray[np.float32]]

_HEADER = struct.Struct("<4sIII")  # magic, vertices, edges, checksum of what follows
_MAGIC = b"dsk1"


@dataclass(frozen=True)
class Piece:
    """Vertices, the edges between them, and a number for each vertex by attribute.

    Vertices lie on voxels, so that those of neighbouring blocks are exactly equal where they meet.

    Attributes:
        vertices: voxels xyz, counted from the volume's first one; int32, shape (n, 3).
        edges: pairs of vertices, by their places; uint32, shape (m, 2).
        attributes: float32, shape (n,), by name.
    """

    vertices: npt.NDArray[np.int32]
    edges: npt.NDArray[np.uint32]
    attributes: Attributes = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        arrays = (self.vertices, self.edges, *self.attributes.values())
        return sum(array.nbytes for array in arrays)

    def subset(self, keep: npt.NDArray[np.bool_], edges: npt.NDArray[np.uint32]) -> Piece:
        """Return it with some of its vertices and with `edges`, which must be between those."""
        places = np.cumsum(keep, dtype=np.uint32) - np.uint32(1)
        kept = {name: values[keep] for name, values in self.attributes.items()}
        return Piece(self.vertices[keep], places[edges].reshape(-1, 2), kept)


def pack_piece(piece: Piece) -> bytes:
    """Return a piece as bytes: a header with a checksum, then its arrays, attributes in the order of their names."""
    arrays: list[npt.NDArray[Any]] = [piece.vertices.astype("<i4"), piece.edges.astype("<u4")]
    arrays += [piece.attributes[name].astype("<f4") for name in sorted(piece.attributes)]
    body = b"".join(array.tobytes() for array in arrays)
    return _HEADER.pack(_MAGIC, len(piece.vertices), len(piece.edges), zlib.crc32(body)) + body


def unpack_piece(data: bytes, names: Mapping[str, Any] | tuple[str, ...], origin: str) -> Piece:
    """Return the piece that `pack_piece` was given.

    Args:
        data: what it returned.
        names: of the attributes.
        origin: where the data come from, for the message.

    Raises:
        CorruptChunkError: the data are not as they were written.
    """
    try:
        magic, vertices, edges, checksum = _HEADER.unpack_from(data)
    except struct.error as error:
        raise _corrupt(origin) from error
    sizes = [12 * vertices, 8 * edges, *[4 * vertices] * len(names)]
    body = memoryview(data)[_HEADER.size :]
    if magic != _MAGIC or len(body) != sum(sizes) or zlib.crc32(body) != checksum:
        raise _corrupt(origin)
    ends = np.cumsum([0, *sizes])
    parts = [body[a:b] for a, b in itertools.pairwise(ends.tolist())]
    points = np.frombuffer(parts[0], "<i4").astype(np.int32).reshape(-1, 3)
    pairs = np.frombuffer(parts[1], "<u4").astype(np.uint32).reshape(-1, 2)
    if pairs.size and int(pairs.max()) >= vertices:
        raise _corrupt(origin)
    values = (np.frombuffer(part, "<f4").astype(np.float32) for part in parts[2:])
    return Piece(points, pairs, dict(zip(sorted(names), values, strict=True)))


def _corrupt(origin: str) -> CorruptChunkError:
    return CorruptChunkError(f"scratch data at {origin} are damaged; delete the job's directory and run it again")
