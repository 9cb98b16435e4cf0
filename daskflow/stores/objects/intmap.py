"""Maps of uint64 to uint64 in the file format IntMap, in which igneous and mapbuffer keep voxel counts.

    │ "intm" 0 3 │ n, uint32 │ key, value │ key, value │ ...        all little-endian, pairs of uint64

The keys are those of a complete binary search tree, level by level (Eytzinger's order): the children of the pair at
place k, counted from 1, stand at 2k and 2k + 1.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import CorruptChunkError, ParameterError
from daskflow.stores import kvstore
from daskflow.stores.compressed import decompress
from daskflow.stores.local_files import replacing

Labels = npt.NDArray[np.uint64]
Pairs = Iterable[tuple[Labels, Labels]]

_HEADER = struct.Struct("<4sBBI")
_MAGIC = (b"intm", 0, 3)
_PAIR = np.dtype([("key", "<u8"), ("value", "<u8")])
_COMPRESSED = (".zstd", ".gz", ".br")


def write_intmap_in_parts(url: str, count: int, parts: Pairs) -> None:
    """Write a map that need not fit into memory, atomically; copies of it that others have compressed are deleted.

    On a local disk memory holds one part; elsewhere the file passes through memory once, when it is sent.

    Keys rise from part to part and within each; all parts together have `count` of them.

    Raises:
        ParameterError: too many keys, or not as many as `count`, or they do not rise.
    """
    if count >= 2**32:
        raise ParameterError(f"an IntMap holds at most 2^32 - 1 keys, not {count:,}")
    target = kvstore.local_path(url)
    if target is not None:
        with replacing(target) as temporary:
            _fill(temporary, count, parts)
    else:
        with tempfile.TemporaryDirectory(prefix="daskflow-") as directory:
            _fill(Path(directory, "map"), count, parts)
            kvstore.write_bytes(url, Path(directory, "map").read_bytes())
    for ending in _COMPRESSED:
        kvstore.delete(url + ending)


def read_intmap(url: str) -> tuple[Labels, Labels] | None:
    """Return the keys, sorted, and the values of a map; None when there is no file, compressed or not.

    Raises:
        CorruptChunkError: the file is damaged.
        MissingDependencyError: it is compressed with brotli, which is not installed.
    """
    data = kvstore.read_bytes(url)
    for ending in _COMPRESSED:
        if data is None and (packed := kvstore.read_bytes(url + ending)) is not None:
            data = decompress(packed, ending, f"{kvstore.redact(url)}{ending}")
    if data is None:
        return None
    if len(data) < _HEADER.size or _HEADER.unpack_from(data)[:3] != _MAGIC:
        raise CorruptChunkError(f"{kvstore.redact(url)} is not an IntMap: it begins with {data[:10]!r}")
    count = _HEADER.unpack_from(data)[3]
    if len(data) != _HEADER.size + count * _PAIR.itemsize:
        raise CorruptChunkError(f"{kvstore.redact(url)} has {len(data):,} bytes, which {count:,} pairs do not take")
    pairs = np.frombuffer(data, _PAIR, offset=_HEADER.size)[places(np.arange(count), count)]
    keys = pairs["key"].astype(np.uint64)
    if np.any(keys[1:] <= keys[:-1]):
        raise CorruptChunkError(f"the keys of {kvstore.redact(url)} are not in the order of a search tree")
    return keys, pairs["value"].astype(np.uint64)


def places(ranks: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """Return the places, from 0, in Eytzinger's order, of the keys that have the `ranks`, from 0, among `count`."""
    if not count:
        return np.empty(0, np.int64)
    last = count.bit_length() - 1  # the lowest level, which alone may be incomplete
    leaves = count - (2**last - 1)
    rank = np.asarray(ranks, np.int64) + 1
    # the rank that the key would have if the lowest level were complete tells its level by its trailing zeros
    rank = np.where(rank <= 2 * leaves, rank, 2 * (rank - leaves))
    zeros = np.bitwise_count((rank & -rank) - 1).astype(np.int64)
    level = np.left_shift(np.int64(1), last - zeros)
    return np.asarray(level + (rank >> (zeros + 1)) - 1, np.int64)


def _fill(path: Path, count: int, parts: Pairs) -> None:
    with path.open("wb") as file:
        file.write(_HEADER.pack(*_MAGIC, count))
        file.truncate(_HEADER.size + count * _PAIR.itemsize)
    pairs: Any = np.memmap(path, _PAIR, "r+", offset=_HEADER.size, shape=(count,)) if count else np.empty(0, _PAIR)
    done, highest = 0, -1
    for keys, values in parts:
        if not len(keys):
            continue
        if int(keys[0]) <= highest or np.any(keys[1:] <= keys[:-1]):
            raise ParameterError("the keys of an IntMap must rise from part to part")
        if done + len(keys) > count:
            raise ParameterError(f"more than the {count:,} keys that were announced")
        at = places(np.arange(done, done + len(keys)), count)
        pairs["key"][at], pairs["value"][at] = keys, values
        done, highest = done + len(keys), int(keys[-1])
    if done != count:
        raise ParameterError(f"{done:,} keys of the {count:,} that were announced")
    if count:
        pairs.flush()
