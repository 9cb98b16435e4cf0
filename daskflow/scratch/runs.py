"""Rows sorted by key in one object, of which those between two keys are read alone.

object     rows 0-499 | rows 500-999 | rows 1000-1499 | ...     each a record by itself
index      of each the first key and the end in bytes; a sample of all keys
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import JobError
from daskflow.scratch.records import Arrays, at_once, decode, encode, read_record, record_url, write_record
from daskflow.stores import kvstore

Keys = npt.NDArray[np.uint64]

_PARTS = 256  # that a run is written in, if they have as many rows as the next number; also keys of its sample
_ROWS = 64
_SHIFT = (5**0.5 - 1) / 2


def write_run(
    directory: str, stage: str, number: int, keys: Sequence[str], rows: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Store rows, sorted by the columns that `keys` names; other arguments as for `write_record`."""
    names = np.stack([rows[name] for name in keys], axis=1)
    count = len(names)
    step = max(_ROWS, -(-count // _PARTS))
    starts = range(0, max(1, count), step)
    parts = [encode({name: column[at : at + step] for name, column in rows.items()}) for at in starts]
    kvstore.write_bytes(record_url(directory, stage, number), b"".join(parts))
    samples = min(count, _PARTS)
    shift = number * _SHIFT % 1  # so that the samples of runs that are alike are not
    index = {
        "first": names[::step],
        "ends": np.cumsum([len(part) for part in parts]),
        "keys": names[((np.arange(samples) + shift) * count / max(1, samples)).astype(np.int64)],
        "weights": np.full(samples, count / max(1, samples)),
    }
    write_record(directory, index_of(stage), number, index)


def index_of(stage: str) -> str:
    """Return the name of the records that hold `keys`, a sample of those of each run, and their `weights`: rows."""
    return f"{stage}-index"


def read_runs(
    directory: str, stage: str, numbers: Sequence[int], keys: Sequence[str], low: Keys | None, high: Keys | None
) -> list[Arrays]:
    """Return the rows of each of some runs whose keys are at least `low` and below `high`; None stands for no bound.

    Raises:
        JobError: a run is missing.
    """
    return at_once(lambda number: _read(directory, stage, number, keys, low, high), numbers)


def _read(directory: str, stage: str, number: int, keys: Sequence[str], low: Keys | None, high: Keys | None) -> Arrays:
    index = present(read_record(directory, index_of(stage), number), directory, stage)
    first, ends = list(index["first"].T), [0, *index["ends"].tolist()]
    begin = 0 if low is None else max(0, place(first, low) - 1)
    end = len(ends) - 1 if high is None else max(begin + 1, place(first, high))
    url, bounds = record_url(directory, stage, number), ends[begin : end + 1]
    data = kvstore.read_range(url, bounds[0], bounds[-1])
    if data is None:
        raise missing(directory, stage)
    view = memoryview(data)
    parts = [decode(view[a - bounds[0] : b - bounds[0]], url) for a, b in itertools.pairwise(bounds)]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns = [rows[name] for name in keys]
    start = 0 if low is None else place(columns, low)
    stop = None if high is None else place(columns, high)
    return {name: column[start:stop] for name, column in rows.items()}


def place(keys: Sequence[Keys], splitter: Keys) -> int:
    """Return the first row of sorted key columns that does not come before a splitter."""
    low, high = 0, len(keys[0])
    for column, value in zip(keys, splitter, strict=True):
        first, last = (int(np.searchsorted(column[low:high], value, side=side)) for side in ("left", "right"))
        low, high = low + first, low + last
    return low


def present(record: Arrays | None, directory: str, stage: str) -> Arrays:
    """Return a record.

    Raises:
        JobError: there is none.
    """
    if record is None:
        raise missing(directory, stage)
    return record


def missing(directory: str, stage: str) -> JobError:
    """Return the error for records that a stage should have left."""
    return JobError(f"records of {stage} in {directory} are missing; delete the job's directory and run it again")
