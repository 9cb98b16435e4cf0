"""Objects by 64-bit number in shards, as neuroglancer's ``sharded.md`` has them.

A shard is a file of objects, the indexes of its minishards, and at its start where each of these indexes is:

    [ shard index | objects, by label ............ | indexes of minishards ]
      16 B each     prefix, value, prefix, value...   label, start, size

Which shard and minishard a label is in follows from its hash. A prefix is what lies right before a value and is in no
index: the fragments of a multi-resolution mesh before their manifest.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import CorruptChunkError, ParameterError
from daskflow.stores import kvstore
from daskflow.stores.compressed import decompress
from daskflow.stores.objects.files import gzip, names_below, writing
from daskflow.stores.sharding import check_sharding

Sharding = dict[str, Any]
Labels = npt.NDArray[np.uint64]
Object = bytes | tuple[bytes | Sequence[bytes], bytes]

_ENTRY = 16  # bytes: where the index of a minishard begins and ends
_ROW = 24  # bytes: label, start and size of an object
_PACKED = 0.55  # of the capacity: shards that are emptier are halved in number
_NAME = re.compile(r"([0-9a-f]+)\.shard")
_CACHED = 64


def object_sharding(
    labels: int,
    *,
    min_shards: int = 1,
    max_labels_per_shard: int | None = None,
    shard_index_bytes: int = 2**13,
    minishard_index_bytes: int = 2**15,
    minishard_index_encoding: str = "gzip",
    data_encoding: str = "raw",
) -> Sharding:
    """Return the ``sharding`` JSON for a number of labels that are spread by murmurhash3.

    The formula is that of CloudVolume's ``compute_shard_params_for_hashed``, which igneous uses: minishards are filled
    until their index has `minishard_index_bytes`, then shards until theirs has `shard_index_bytes`; shards that would
    be at most 55 % full are halved in number.

    Args:
        labels: how many there are.
        min_shards: lower bound of shards, rounded to a power of two.
        max_labels_per_shard: raises `min_shards` to that many labels in a shard, about.
        shard_index_bytes: of the index at the start of a shard, before it has more than one shard.
        minishard_index_bytes: of the index of a minishard, unpacked, before there is more than one.
        minishard_index_encoding: gzip or raw.
        data_encoding: gzip or raw; raw for multi-resolution meshes.

    Raises:
        ParameterError: an argument that makes no sense.
    """
    if labels < 0 or min_shards < 1 or (max_labels_per_shard is not None and max_labels_per_shard < 1):
        raise ParameterError(f"no shards for {labels=}, {min_shards=}, {max_labels_per_shard=}; give numbers above 0")
    for encoding in (data_encoding, minishard_index_encoding):
        if encoding not in ("raw", "gzip"):
            raise ParameterError(f"encoding {encoding!r} in shards; use raw or gzip")
    if shard_index_bytes < 2 * _ENTRY or minishard_index_bytes < 2 * _ROW:
        raise ParameterError(
            f"indexes of {shard_index_bytes=} and {minishard_index_bytes=}; give at least {2 * _ENTRY} and {2 * _ROW}"
        )
    per_minishard, most_bits = minishard_index_bytes / _ROW, math.ceil(math.log2(shard_index_bytes / _ENTRY))
    capacity = per_minishard * (shard_index_bytes / _ENTRY)
    if max_labels_per_shard is not None:
        min_shards = max(min_shards, math.ceil(labels / max_labels_per_shard))
    minishard = shard = 0
    if labels >= capacity:
        minishard = most_bits
        shard = math.ceil(math.log2(labels / (per_minishard * 2**minishard)))
    elif labels >= per_minishard:
        minishard = math.ceil(math.log2(labels / per_minishard))
    if labels and labels <= _PACKED * capacity * 2**shard:
        shard -= 1
    shard = max(shard, 0)
    more = max(round(math.log2(min_shards)) - shard, 0) if labels else 0
    return {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": 0,
        "hash": "murmurhash3_x86_128",
        "minishard_bits": max(minishard - more, 0),
        "shard_bits": shard + more,
        "minishard_index_encoding": minishard_index_encoding,
        "data_encoding": data_encoding,
    }


def murmurhash(keys: Labels) -> Labels:
    """Return the low 64 bits of murmurhash3_x86_128 (seed 0) of each number, taken as 8 bytes, little-endian.

    Source: Austin Appleby's MurmurHash3, public domain; of 8 bytes there is only the tail.
    """
    keys = np.asarray(keys, np.uint64)
    low, high = keys.astype(np.uint32), (keys >> np.uint64(32)).astype(np.uint32)
    c1, c2, c3 = np.uint32(0x239B961B), np.uint32(0xAB0E9789), np.uint32(0x38B34AE5)
    length = np.uint32(8)
    with np.errstate(over="ignore"):
        h1 = _rotated(low * c1, 15) * c2 ^ length
        h2 = _rotated(high * c2, 16) * c3 ^ length
        h1 = h1 + h2 + length + length
        h2, h3 = h2 + h1, length + h1
        h1, h2, h3 = _mixed(h1), _mixed(h2), _mixed(h3)
        h1 = h1 + h2 + h3 + h3  # the third and fourth words are equal
        h2 = h2 + h1
    return h1.astype(np.uint64) | h2.astype(np.uint64) << np.uint64(32)


def _rotated(word: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[np.uint32]:
    return word << np.uint32(bits) | word >> np.uint32(32 - bits)


def _mixed(word: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    word = (word ^ word >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    word = (word ^ word >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return word ^ word >> np.uint32(16)


def shard_numbers(labels: npt.ArrayLike, sharding: Sharding) -> Labels:
    """Return the number of the shard that each label is in."""
    hashed = _hashed(labels, sharding)
    return hashed >> np.uint64(sharding["minishard_bits"]) & np.uint64(2 ** sharding["shard_bits"] - 1)


def minishard_numbers(labels: npt.ArrayLike, sharding: Sharding) -> Labels:
    """Return the number, within its shard, of the minishard that each label is in."""
    return _hashed(labels, sharding) & np.uint64(2 ** sharding["minishard_bits"] - 1)


def _hashed(labels: npt.ArrayLike, sharding: Sharding) -> Labels:
    keys = np.asarray(labels, np.uint64) >> np.uint64(sharding.get("preshift_bits", 0))
    if sharding["hash"] == "identity":
        return keys
    if sharding["hash"] != "murmurhash3_x86_128":
        raise ParameterError(f"hash {sharding['hash']!r} of shards is none of identity, murmurhash3_x86_128")
    return murmurhash(keys)


def shard_name(number: int, sharding: Sharding) -> str:
    """Return the name of the file of a shard."""
    return f"{number:0{-(-sharding['shard_bits'] // 4)}x}.shard"


def write_shard(
    directory: str, number: int, sharding: Sharding, objects: Mapping[int, Object] | Iterable[tuple[int, Object]]
) -> int:
    """Write a shard with all its objects, atomically, and return how many they are.

    The same objects give the same bytes. Without any object the shard is removed, and so absent.

    Args:
        directory: URL.
        number: of the shard.
        sharding: the JSON.
        objects: by label, or pairs with labels ascending, which are taken one by one: on a local disk only one is in
            memory at a time. A pair is (prefix, value), a prefix bytes or pieces of it.

    Raises:
        ParameterError: a label that belongs to another shard, or labels that do not ascend.
    """
    pairs = sorted(objects.items()) if isinstance(objects, Mapping) else objects
    url = kvstore.join(directory, shard_name(number, sharding))
    labels: list[int] = []
    starts: list[int] = []
    sizes: list[int] = []
    with writing(url) as file:
        base = 2 ** sharding["minishard_bits"] * _ENTRY
        file.write(bytes(base))
        at = 0
        for label, value in pairs:
            if labels and label <= labels[-1]:
                raise ParameterError(f"label {label} after {labels[-1]} in shard {number}; give them ascending")
            prefix, value = value if isinstance(value, tuple) else (b"", value)
            before = [prefix] if isinstance(prefix, bytes) else prefix
            value = gzip(value) if sharding["data_encoding"] == "gzip" else value
            labels.append(label)
            starts.append(at + sum(map(len, before)))
            sizes.append(len(value))
            file.writelines(before)
            file.write(value)
            at = starts[-1] + len(value)
        _refuse_others(number, labels, sharding)
        _write_indexes(file, sharding, np.array([labels, starts, sizes], np.uint64), at)
    if not labels:
        kvstore.delete(url)
    return len(labels)


def _refuse_others(number: int, labels: list[int], sharding: Sharding) -> None:
    numbers = shard_numbers(np.array(labels, np.uint64), sharding)
    for label, other in zip(labels, numbers.tolist(), strict=True):
        if other != number:
            raise ParameterError(f"label {label} belongs to shard {other}, not {number}")


def _write_indexes(file: IO[bytes], sharding: Sharding, rows: Labels, at: int) -> None:
    """Write the indexes of the minishards behind the objects, and where they are to the start of the shard.

    Rows are labels, starts and sizes, shape (3, objects). Starts, and `at`, where the objects end, are counted from the
    end of the shard index.
    """
    minishards = minishard_numbers(rows[0], sharding)
    bounds = np.zeros((2 ** sharding["minishard_bits"], 2), "<u8")
    for minishard in np.unique(minishards):
        own = rows[:, minishards == minishard]
        ends = own[1] + own[2]
        own[1, 1:] -= ends[:-1]
        own[0] = np.diff(own[0], prepend=np.uint64(0))
        index = own.astype("<u8").tobytes()
        index = gzip(index) if sharding["minishard_index_encoding"] == "gzip" else index
        file.write(index)
        bounds[int(minishard)] = at, at + len(index)
        at += len(index)
    file.seek(0)
    file.write(bounds.tobytes())


class Shards:
    """Reads objects from shards: of each the shard index, the index of a minishard, and the bytes of the object.

    Indexes are kept, so that objects read one after another cost one read each.

    Attributes:
        directory: URL.
        sharding: the JSON, with all that it leaves to defaults.

    Raises:
        StoreError: a sharding that makes no sense.
    """

    def __init__(self, directory: str, sharding: Sharding) -> None:
        self.directory = directory
        self.sharding = check_sharding(sharding, f"the sharding of {kvstore.redact(kvstore.normalise(directory))}")
        self._bounds = functools.lru_cache(_CACHED)(self._read_bounds)
        self._rows = functools.lru_cache(_CACHED)(self._read_rows)

    def read(self, label: int) -> bytes | None:
        """Return the object of a label, None when there is none.

        Raises:
            CorruptChunkError: the shard is damaged.
        """
        span = self._span(label)
        if span is None:
            return None
        url, start, size = span
        data = _range(url, start, start + size)
        suffix = ".gz" if self.sharding["data_encoding"] == "gzip" else ""
        return decompress(data, suffix, f"the object of label {label} in {kvstore.redact(url)}")

    def read_before(self, label: int, start: int, stop: int) -> bytes:
        """Return bytes of the prefix of a label's object, `start` and `stop` counted back from where the object begins.

        Raises:
            ParameterError: no such label.
            CorruptChunkError: the shard is damaged.
        """
        span = self._span(label)
        if span is None:
            raise ParameterError(f"no object of label {label} in {kvstore.redact(self.directory)}")
        url, begin, _ = span
        return _range(url, begin - start, begin - stop)

    def numbers(self) -> list[int]:
        """Return the numbers of the shards that exist, ascending."""
        found = (_NAME.fullmatch(name) for name in names_below(self.directory))
        return sorted(int(match[1], 16) for match in found if match)

    def labels(self) -> Labels:
        """Return the labels of all objects, ascending."""
        rows = (self._rows(number, minishard) for number in self.numbers() for minishard in self._filled(number))
        return np.sort(np.concatenate([np.zeros(0, np.uint64), *(labels for labels, _, _ in rows)]))

    def _span(self, label: int) -> tuple[str, int, int] | None:
        """Return where an object is: URL, first byte, and size."""
        if not 0 <= label < 2**64:
            return None
        key = np.array([label], np.uint64)
        number = int(shard_numbers(key, self.sharding)[0])
        minishard = int(minishard_numbers(key, self.sharding)[0])
        bounds = self._bounds(number)
        if bounds is None or bounds[minishard, 0] == bounds[minishard, 1]:
            return None
        labels, starts, sizes = self._rows(number, minishard)
        place = int(np.searchsorted(labels, key[0]))
        if place == len(labels) or labels[place] != key[0]:
            return None
        return self._url(number), len(bounds) * _ENTRY + int(starts[place]), int(sizes[place])

    def _filled(self, number: int) -> list[int]:
        bounds = self._bounds(number)
        return [] if bounds is None else np.flatnonzero(bounds[:, 0] < bounds[:, 1]).tolist()

    def _url(self, number: int) -> str:
        return kvstore.join(self.directory, shard_name(number, self.sharding))

    def _read_bounds(self, number: int) -> Labels | None:
        data = kvstore.read_range(self._url(number), 0, 2 ** self.sharding["minishard_bits"] * _ENTRY)
        return None if data is None else np.frombuffer(data, "<u8").reshape(-1, 2).astype(np.uint64)

    def _read_rows(self, number: int, minishard: int) -> Labels:
        """Return labels (ascending), starts and sizes of a minishard, shape (3, objects)."""
        url, bounds = self._url(number), self._bounds(number)
        assert bounds is not None
        start, stop = (int(at) + len(bounds) * _ENTRY for at in bounds[minishard])
        suffix = ".gz" if self.sharding["minishard_index_encoding"] == "gzip" else ""
        name = f"the index of minishard {minishard} of {kvstore.redact(url)}"
        data = decompress(_range(url, start, stop), suffix, name)
        if len(data) % _ROW:
            raise CorruptChunkError(f"{name} is damaged")
        labels, starts, sizes = np.frombuffer(data, "<u8").reshape(3, -1).astype(np.uint64)
        starts = np.cumsum(starts) + np.cumsum(sizes) - sizes
        rows = np.array([np.cumsum(labels), starts, sizes])
        return rows[:, np.argsort(rows[0], kind="stable")]


def _range(url: str, start: int, stop: int) -> bytes:
    data = kvstore.read_range(url, start, stop)
    if data is None:
        raise CorruptChunkError(f"{kvstore.redact(url)} has gone while it was read")
    return data
