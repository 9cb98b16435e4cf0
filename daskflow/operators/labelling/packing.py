"""Arrays as one small object: a JSON header, then each array compressed, in pieces, with a checksum.

    │ length of the header, 4 bytes │ header │ piece │ piece │ ...

Scratch data are written once and read a few times within one job, so speed counts: LZ4 on shuffled bits packs labels
at several GB/s.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from daskflow.errors import CorruptChunkError

Array = npt.NDArray[Any]

_PIECE = 2**24
_LENGTH = struct.Struct("<I")


def pack(arrays: Mapping[str, Array]) -> bytes:
    """Return named arrays as bytes."""
    from numcodecs import Blosc

    codec = Blosc("lz4", 1, Blosc.BITSHUFFLE)
    header, body = [], []
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array).reshape(-1)
        step = max(1, _PIECE // array.dtype.itemsize)
        pieces = [bytes(codec.encode(flat[at : at + step])) for at in range(0, flat.size, step)]
        body += pieces
        header.append([name, array.dtype.str, array.shape, [[len(p), isal_zlib.crc32(p)] for p in pieces]])
    head = json.dumps(header).encode()
    return b"".join([_LENGTH.pack(len(head)), head, *body])


def unpack(data: bytes, url: str) -> dict[str, Array]:
    """Return the arrays that `pack` was given.

    Raises:
        CorruptChunkError: the bytes are not as they were written; `url` is where they come from.
    """
    from numcodecs import Blosc

    codec = Blosc("lz4", 1, Blosc.BITSHUFFLE)
    try:
        (length,) = _LENGTH.unpack_from(data)
        header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    except (struct.error, ValueError) as error:
        raise _corrupt(url) from error
    arrays, at, view = {}, _LENGTH.size + length, memoryview(data)
    for name, dtype, shape, pieces in header:
        array = np.empty(shape, dtype)
        flat, begin = array.reshape(-1), 0
        for size, checksum in pieces:
            piece = view[at : at + size]
            if len(piece) != size or isal_zlib.crc32(piece) != checksum:
                raise _corrupt(url)
            step = min(flat.size - begin, max(1, _PIECE // array.dtype.itemsize))
            codec.decode(piece, out=flat[begin : begin + step])
            at, begin = at + size, begin + step
        arrays[name] = array
    return arrays


def _corrupt(url: str) -> CorruptChunkError:
    return CorruptChunkError(f"scratch data at {url} are damaged; delete the job's directory and run it again")
