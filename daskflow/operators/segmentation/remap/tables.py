"""Tables from label to label: of files, which every worker maps or loads once, and of what Python holds."""

from __future__ import annotations

import functools
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.stores import kvstore, states

Labels = npt.NDArray[np.uint64]
Source = str | os.PathLike[str] | Mapping[int, int] | npt.NDArray[Any]

_ENDINGS = (".npy", ".json", ".csv")
_LARGEST = 2**64 - 1


class Table(Protocol):
    """What gives labels new names."""

    def rows(self) -> Rows:
        """Return the table itself."""

    def check(self) -> None:
        """Raise when the table is not there or makes no sense."""

    def describe(self) -> Any:
        """Return what the table depends on, as JSON."""


@dataclass(frozen=True)
class Rows:
    """A table in memory, or mapped from a file.

    Attributes:
        keys: old labels, rising; None when `values` has one for each label from 0 on.
        values: new labels.
    """

    keys: npt.NDArray[Any] | None
    values: npt.NDArray[Any]

    def look_up(self, labels: Labels) -> tuple[Labels, npt.NDArray[np.bool_]]:
        """Return the new names of labels, any for those that have none; and which have one."""
        if not len(self.values):
            return np.zeros(labels.shape, np.uint64), np.zeros(labels.shape, bool)
        last = len(self.values) - 1
        if self.keys is None:
            return self.values[np.minimum(labels, np.uint64(last))].astype(np.uint64), labels <= last
        at = np.minimum(_place(self.keys, labels), last)
        return self.values[at].astype(np.uint64), self.keys[at].astype(np.uint64) == labels

    @functools.cached_property
    def largest(self) -> int:
        """The largest new label, 0 in an empty table."""
        return int(self.values.max(initial=0))


@dataclass(frozen=True)
class FileTable:
    """A table in a file.

    Attributes:
        url: of the file.
    """

    url: str

    def rows(self) -> Rows:
        return _loaded(self.url, states.object_state(self.url))

    def check(self) -> None:
        self.rows()

    def describe(self) -> Any:
        return {"table": kvstore.redact(self.url), "written": states.object_state(self.url)}


@dataclass(frozen=True, eq=False)
class ArrayTable:
    """A table that Python holds; it travels with the stage, once to every worker.

    Attributes:
        held: the table.
    """

    held: Rows

    def rows(self) -> Rows:
        return self.held

    def check(self) -> None:
        """It was looked through when it was made."""

    def describe(self) -> Any:
        keys = b"" if self.held.keys is None else np.ascontiguousarray(self.held.keys).tobytes()
        return {"table": states.digest(keys + b"|" + np.ascontiguousarray(self.held.values).tobytes())}


def table_of(source: Source) -> Table:
    """Return the table that a path or URL, a mapping or an array stands for; files are not opened yet.

    Raises:
        ParameterError: another kind of file, or what is no table of labels.
    """
    if isinstance(source, str | os.PathLike):
        url = kvstore.normalise(source)
        if not url.endswith(_ENDINGS):
            raise ParameterError(f"tables of labels are {', '.join(_ENDINGS)} files, not {kvstore.redact(url)}")
        return FileTable(url)
    if isinstance(source, Mapping):
        return ArrayTable(_from_pairs(list(source.items()), "the table"))
    return ArrayTable(rows_of(np.asarray(source), "the table"))


def rows_of(array: npt.NDArray[Any], name: str) -> Rows:
    """Return the rows of an array: two columns old, new in any order, or one number for each label from 0 on.

    Raises:
        ParameterError: another shape, other than integers, negative labels, or a label with two names.
    """
    if array.dtype.kind not in "bui" or array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 2):
        raise ParameterError(
            f"{name} has shape {array.shape} of {array.dtype}; it takes integers: two columns old, new,"
            " or one column with the new name of every label from 0 on"
        )
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise ParameterError(f"{name} holds {array.min()}; labels must not be negative")
    if array.ndim == 1:
        return Rows(None, array)
    keys, values = array[:, 0], array[:, 1]
    if not _rises(keys):
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], values[order]
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        torn = twice[values[twice] != values[twice + 1]]
        if len(torn):
            at = int(torn[0])
            raise ParameterError(f"{name} names label {keys[at]} both {values[at]} and {values[at + 1]}")
        keys, values = np.delete(keys, twice), np.delete(values, twice)
    return Rows(keys, values)


@functools.lru_cache(maxsize=4)
def _loaded(url: str, stamp: str | None) -> Rows:  # noqa: ARG001 (a key of the cache)
    name, path = kvstore.redact(url), kvstore.local_path(url)
    if path is not None and url.endswith(".npy") and path.is_file():
        return rows_of(_npy(path, name, mmap_mode="r"), name)
    data = kvstore.read_bytes(url)
    if data is None:
        raise StoreNotFoundError(f"there is no table {name}")
    if url.endswith(".npy"):
        return rows_of(_npy(io.BytesIO(data), name), name)
    if url.endswith(".json"):
        return _from_json(data, name)
    return rows_of(_from_csv(data, name), name)


def _npy(file: Any, name: str, **how: Any) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(file, allow_pickle=False, **how)
    except (ValueError, OSError, EOFError) as error:
        raise ParameterError(f"cannot read the table {name}: {error}") from error
    return array


def _from_json(data: bytes, name: str) -> Rows:
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ParameterError(f"cannot read the table {name}: {error}") from error
    pairs = list(content.items()) if isinstance(content, dict) else content
    return _from_pairs(pairs, name)


def _from_pairs(pairs: Any, name: str) -> Rows:
    try:
        numbers = [(int(old), int(new)) for old, new in pairs]
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name} is no table of pairs old, new: {error}") from error
    wrong = next((n for pair in numbers for n in pair if not 0 <= n <= _LARGEST), None)
    if wrong is not None:
        raise ParameterError(f"{name} holds {wrong}; labels are 0 to 2^64 - 1")
    return rows_of(np.array(numbers, np.uint64).reshape(-1, 2), name)


def _from_csv(data: bytes, name: str) -> npt.NDArray[Any]:
    first = data.split(b"\n", 1)[0].split(b",")[0].strip()
    try:
        return np.loadtxt(io.BytesIO(data), np.uint64, delimiter=",", skiprows=int(not first.isdigit()), ndmin=2)
    except ValueError as error:
        raise ParameterError(f"cannot read the table {name}, of two columns old,new: {error}") from error


def _rises(keys: npt.NDArray[Any]) -> bool:
    step = 2**24  # a mapped file is gone through in parts
    return all(
        bool(np.all(keys[at + 1 : at + step + 1] > keys[at : at + step][: len(keys) - at - 1]))
        for at in range(0, len(keys) - 1, step)
    )


def _place(keys: npt.NDArray[Any], labels: Labels) -> npt.NDArray[np.int64]:
    """Return where labels would be put among rising keys; other than `numpy.searchsorted` it copies no column."""
    low, high = np.zeros(labels.shape, np.int64), np.full(labels.shape, len(keys), np.int64)
    for _ in range(len(keys).bit_length()):
        middle = (low + high) // 2
        less = (keys[np.minimum(middle, len(keys) - 1)].astype(np.uint64) < labels) & (low < high)
        low, high = np.where(less, middle + 1, low), np.where(less | (low >= high), high, middle)
    return low
