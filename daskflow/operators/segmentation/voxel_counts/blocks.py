"""Labels of one array and how many voxels each has, and tables of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.scratch.tables import How, merged

Labels = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Table = tuple[Labels, Counts]

COLUMNS: dict[str, How] = {"labels": "key", "counts": "sum"}

_TILE = 2**21  # voxels whose runs are in memory at once
_SAMPLE = 1000  # voxels that tell how far labels lie apart
_DENSE = 4  # a table of as many numbers as a quarter of the voxels is filled faster than runs are hashed


def count_labels(array: npt.NDArray[Any]) -> Table:
    """Return the labels of an array of bool or integers, sorted, and how many voxels each has.

    Raises:
        ParameterError: negative labels.
    """
    import fastremap

    flat = array.reshape(-1)
    if not flat.size:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    if flat.dtype == bool:
        flat = flat.view(np.uint8)
    some = flat[:: max(1, flat.size // _SAMPLE)]
    if int(some.max()) - int(some.min()) > flat.size // _DENSE:
        tables = [_hashed(flat[at : at + _TILE]) for at in range(0, flat.size, _TILE)]
        return add_tables(tables)
    labels, counts = fastremap.unique(flat, return_counts=True)
    _refuse_negative(labels[0])
    return labels.astype(np.uint64), counts.astype(np.int64)


def add_tables(tables: Sequence[Table]) -> Table:
    """Return the table of all parts together, sorted by label."""
    if len(tables) == 1:
        return tables[0]
    parts = [{"labels": labels, "counts": counts} for labels, counts in tables]
    whole = merged(COLUMNS, parts or [{"labels": np.empty(0, np.uint64), "counts": np.empty(0, np.int64)}])
    return whole["labels"], whole["counts"]


def _hashed(flat: npt.NDArray[Any]) -> Table:
    """Return the table of labels from any range: runs of equal voxels are told apart by hashing."""
    import fastremap

    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1)
    lengths = np.diff(ends, prepend=-1)
    _refuse_negative(flat[ends].min())
    numbers, names = fastremap.renumber(flat[ends].astype(np.uint64), preserve_zero=False)
    labels = np.fromiter(names.keys(), np.uint64, len(names))
    sums = np.bincount(numbers, lengths, minlength=len(names) + 1)[np.fromiter(names.values(), np.int64, len(names))]
    order = np.argsort(labels)
    return labels[order], sums[order].astype(np.int64)


def _refuse_negative(lowest: Any) -> None:
    if lowest < 0:
        raise ParameterError(f"labels must not be negative; there is {lowest}")
