"""Tables from label to number in one file: mapbuffer's IntMap, which igneous uses for voxel counts.

Format (mapbuffer, ``docs/intmap``): the bytes ``intm``, a version (0), a type (3: uint64), how many rows there are
(uint32), then rows of label and value as uint64, little-endian, in the order of a breadth-first walk through the
balanced search tree of the labels (Eytzinger), which fills its last level from the left.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import CorruptChunkError, ParameterError

_MAGIC = b"intm"
_HEAD = struct.Struct("<4sBBI")
_UINT64 = 3


def encode_intmap(labels: npt.NDArray[Any], values: npt.NDArray[Any]) -> bytes:
    """Return the table of labels, each of which occurs once, and their values.

    Raises:
        ParameterError: a label that occurs twice, or a table of 2^32 rows.
    """
    order = np.argsort(labels, kind="stable")
    rows = np.stack([np.asarray(labels, "<u8")[order], np.asarray(values, "<u8")[order]], axis=1)
    if len(rows) >= 2**32 or (rows[1:, 0] == rows[:-1, 0]).any():
        raise ParameterError(f"no table of {len(rows)} labels: they must differ, and be fewer than 2^32")
    return _HEAD.pack(_MAGIC, 0, _UINT64, len(rows)) + rows[breadth_first(len(rows))].tobytes()


def decode_intmap(data: bytes) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return labels, ascending, and their values.

    Raises:
        CorruptChunkError: the file is damaged.
    """
    try:
        magic, version, kind, count = _HEAD.unpack_from(data)
        rows = np.frombuffer(data, "<u8", 2 * count, _HEAD.size).reshape(-1, 2)
    except (struct.error, ValueError) as error:
        raise CorruptChunkError(f"{len(data)} bytes are no IntMap: {error}") from error
    if (magic, version, kind) != (_MAGIC, 0, _UINT64):
        raise CorruptChunkError(f"{len(data)} bytes are no IntMap of version 0: they begin with {data[:6]!r}")
    rows = rows[np.argsort(rows[:, 0], kind="stable")].astype(np.uint64)
    return rows[:, 0], rows[:, 1]


def breadth_first(count: int) -> npt.NDArray[np.int64]:
    """Return, for each node of the search tree in breadth-first order, its rank in sorted order.

    In a full tree node i (from 1) at depth d of h has the rank (2 (i - 2^d) + 1) 2^(h-d) - 1, and leaves have the even
    ranks; the last level may lack leaves at its end, and each that is missing moves what comes behind it.
    """
    nodes: npt.NDArray[np.int64] = np.arange(1, count + 1, dtype=np.int64)
    depth = np.frexp(nodes.astype(np.float64))[1].astype(np.int64) - 1
    height = max(count.bit_length() - 1, 0)
    rank: npt.NDArray[np.int64] = (2 * (nodes - (1 << depth)) + 1) * (1 << (height - depth)) - 1
    leaves = count - (2**height - 1)
    rank -= np.maximum((rank + 1) // 2 - leaves, 0)
    return rank
