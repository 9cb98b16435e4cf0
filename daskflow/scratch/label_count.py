"""How many different labels there are, told from records that stay small however many there are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.scratch.records import Arrays
from daskflow.stores.objects.shards import murmurhash

_EXACT = 2**16  # labels that a record lists; of more it keeps a sketch
_BITS = 14  # of a hash that choose a register: the estimate is off by 0.8 % (standard deviation)
_RANKS = 64 - _BITS


def label_record(labels: npt.NDArray[np.uint64]) -> Arrays:
    """Return the record of some labels: the labels themselves, or a sketch of very many.

    The sketch is a HyperLogLog: of the hashes that begin alike, the most zeros that follow. The record of several sets
    is the same whatever was merged first.
    """
    labels = np.unique(labels)
    return {"labels": labels} if len(labels) <= _EXACT else {"registers": _sketch(labels)}


def join_labels(records: list[Arrays]) -> Arrays:
    """Return the record of all labels whose records are given."""
    sketches = [record["registers"] for record in records if "registers" in record]
    lists = [record["labels"] for record in records if "labels" in record]
    joined = label_record(np.concatenate([np.zeros(0, np.uint64), *lists]))
    if not sketches:
        return joined
    sketches.append(joined["registers"] if "registers" in joined else _sketch(joined["labels"]))
    return {"registers": np.maximum.reduce(sketches)}


def label_count(record: Arrays) -> int:
    """Return how many labels a record tells of: exactly up to 65,536, else within about a per cent.

    Source: O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm 6.
    """
    if "labels" in record:
        return len(record["labels"])
    registers = record["registers"]
    size = len(registers)
    counts = np.bincount(registers, minlength=_RANKS + 2).tolist()
    total = size * _tau(1 - counts[_RANKS + 1] / size)
    for rank in range(_RANKS, 0, -1):
        total = 0.5 * (total + counts[rank])
    total += size * _sigma(counts[0] / size)
    return round(size * size / (2 * math.log(2) * total))


def _sketch(labels: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    registers = np.zeros(2**_BITS, np.uint8)
    hashed = murmurhash(labels)
    rest: npt.NDArray[Any] = hashed << np.uint64(_BITS)
    # the leading zeros of 50 bits: 64 - bits of the number that they are, in two halves that a float holds exactly
    high = np.frexp((rest >> np.uint64(32)).astype(np.float64))[1]
    low = np.frexp((rest & np.uint64(2**32 - 1)).astype(np.float64))[1]
    used = np.where(high > 0, high + 32, low)
    ranks = np.minimum(64 - used + 1, _RANKS + 1).astype(np.uint8)
    np.maximum.at(registers, (hashed >> np.uint64(64 - _BITS)).astype(np.int64), ranks)
    return registers


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z = 1.0, x
    while True:
        x *= x
        before, z, y = z, z + x * y, 2 * y
        if z == before:
            return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z = 1.0, 1 - x
    while True:
        x = math.sqrt(x)
        before, y = z, 0.5 * y
        z -= (1 - x) ** 2 * y
        if z == before:
            return z / 3
