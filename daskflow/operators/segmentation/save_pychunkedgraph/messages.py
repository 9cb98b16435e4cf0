"""The messages of PyChunkedGraph's files, in the wire format of protocol buffers.

ChunkEdgesMsg       1 in_chunk, 2 cross_chunk, 3 between_chunk: EdgesMsg
EdgesMsg            1 node_ids1, 2 node_ids2, 3 affinities, 4 areas: bytes
ChunkComponentsMsg  1 components: repeated uint64
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Names = npt.NDArray[np.uint64]

_LONGEST = 10  # bytes of a number of 64 bits, of which each holds 7


@dataclass(frozen=True)
class Edges:
    """Contacts of supervoxels: the ids `ones` and `others`, and of each pair the affinity and the area."""

    ones: Names
    others: Names
    affinities: Array
    areas: Array

    def __len__(self) -> int:
        return len(self.ones)

    def encode(self) -> bytes:
        """Return the message, the edges sorted by their ends."""
        order = np.lexsort((self.others, self.ones))
        columns = zip((self.ones, self.others, self.affinities, self.areas), ("<u8", "<u8", "<f4", "<u8"), strict=True)
        return _fields([column[order].astype(dtype).tobytes() for column, dtype in columns])


def joined(parts: Sequence[Edges]) -> Edges:
    """Return the edges of all parts, at least one."""
    columns = zip(*((one.ones, one.others, one.affinities, one.areas) for one in parts), strict=True)
    ones, others, affinities, areas = map(np.concatenate, columns)
    return Edges(ones, others, affinities, areas)


def encode_edges(in_chunk: Edges, cross_chunk: Edges, between_chunk: Edges) -> bytes:
    """Return the message of the edges of a chunk."""
    return _fields([one.encode() for one in (in_chunk, cross_chunk, between_chunk)])


def encode_components(components: Sequence[Names]) -> bytes:
    """Return the message of components, of each its size and then its supervoxels."""
    counted = [part for one in components for part in (np.array([len(one)], np.uint64), one)]
    return _fields([_varints(np.concatenate(counted))] if counted else [])


def _fields(values: Sequence[bytes]) -> bytes:
    """Return bytes as the fields 1, 2 ... of a message, those that are empty left out."""
    heads = (_varints(np.array([number << 3 | 2, len(value)], np.uint64)) for number, value in enumerate(values, 1))
    return b"".join(head + value for head, value in zip(heads, values, strict=True) if value)


def _varints(numbers: Names) -> bytes:
    """Return numbers in 7 bits a byte, the lowest first, of which all but the last say that more follow."""
    shifts = np.arange(_LONGEST, dtype=np.uint64) * np.uint64(7)
    left = numbers[:, None] >> shifts
    more = np.zeros(left.shape, bool)
    more[:, :-1] = left[:, 1:] > 0
    kept = np.ones(left.shape, bool)
    kept[:, 1:] = left[:, 1:] > 0
    values = (left & np.uint64(127)).astype(np.uint8) | (more.astype(np.uint8) << 7)
    return values[kept].tobytes()
