"""Numbers of voxels compressed for scratch data, which are written once and read a few times within one job.

LZ4 on shuffled bits packs labels at several GB/s, to a fraction of what they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_PIECE = 2**24  # bytes, as one buffer of the codec has at most 2^31
_SIZE = slice(12, 16)  # where a buffer has its own size, little-endian


def pack(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return the bytes that `unpack` makes the array of."""
    from numcodecs import Blosc

    codec, step = Blosc("lz4", 1, Blosc.BITSHUFFLE), max(1, _PIECE // array.dtype.itemsize)
    flat = np.ascontiguousarray(array).reshape(-1)
    return np.frombuffer(b"".join(codec.encode(flat[at : at + step]) for at in range(0, flat.size, step)), np.uint8)


def unpack(packed: npt.NDArray[np.uint8], shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the array of a shape and type that `pack` was given."""
    from numcodecs import Blosc

    codec, array = Blosc("lz4", 1, Blosc.BITSHUFFLE), np.empty(shape, dtype)
    flat, step = array.reshape(-1), max(1, _PIECE // array.dtype.itemsize)
    for at in range(0, flat.size, step):
        size = int.from_bytes(packed[_SIZE].tobytes(), "little")
        codec.decode(packed[:size], out=flat[at : at + step])
        packed = packed[size:]
    return array
