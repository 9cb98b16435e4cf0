"""Labels through a table: of a file, which every worker maps or loads once, or of what Python holds."""

from __future__ import annotations

import functools
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox
from daskflow.operators.segmentation._merge_tree import read_tree
from daskflow.stores import kvstore, states
from daskflow.stores.parquet import load_pyarrow
from daskflow.volume import Volume, operator
from daskflow.volume.description import Option

Unmapped = Literal["error", "keep", "zero"]
Labels = npt.NDArray[np.uint64]
Source = str | os.PathLike[str] | Mapping[int, int] | npt.NDArray[Any]

_TILE = 2**18  # voxels, which a processor's cache holds
_ENDINGS = (".npy", ".json", ".csv")
_LARGEST = 2**64 - 1


@operator(takes="labels")
def remap(
    volume: Volume,
    *,
    table: str | Mapping[int, int] | npt.NDArray[Any],
    cut: float | None = None,
    unmapped: Unmapped = "error",
    offset: int = 0,
    dtype: Literal["uint8", "uint16", "uint32", "uint64"] | None = None,
) -> Volume:
    """Rename labels by a table, e.g. supervoxels to the objects that they were agglomerated into.

    A table is two columns, old and new, or one column with the new name of every label from 0 on. A .npy file is mapped
    by every worker instead of loaded, also one of 10^8 rows, if its old labels rise (otherwise each worker loads and
    sorts it once). Background, 0, stays 0 unless the table renames it.

    Args:
        volume: a segmentation, with one channel.
        table: path or URL of a .npy, .json ({"old": new} or a list of pairs) or .csv (old,new) file; in Python also a
            mapping or an array. Or the .parquet file of a merge tree, as `agglomerate` writes it, with `cut`;
            each worker loads it.
        cut: least mean affinity that merges in a tree, from 0 to 1; fragments that merge with none are unmapped.
        unmapped: what becomes of a label that is not in the table: error (the block fails, and says which label),
            keep (its name) or zero (background).
        offset: what is added to labels that are kept, so that they differ from the names in the table.
        dtype: dtype of the result; the volume's unless given.

    Returns:
        The segmentation with its new labels, zyx.

    Raises:
        ParameterError: the volume holds no labels, or the table makes no sense or does not fit the dtype.
    """
    if unmapped not in ("error", "keep", "zero"):
        raise ParameterError(f"unmapped={unmapped!r} is none of error, keep, zero")
    if offset and unmapped != "keep":
        raise ParameterError(f"offset {offset} is added to labels that are kept; it needs unmapped='keep'")
    if offset < 0:
        raise ParameterError(f"offset {offset} must not be negative")
    wanted = np.dtype(dtype if dtype is not None else "uint8" if volume.dtype == bool else volume.dtype)
    known = Fitting(table_of(table, cut), wanted.name)
    return volume.map_blocks(
        rename,
        dtype=wanted,
        channels=None,
        layer_type="segmentation",
        table=known,
        unmapped=unmapped,
        offset=offset,
        dtype_name=wanted.name,
    )


@dataclass(frozen=True)
class Fitting(Option):
    """A table whose new labels are known to fit a dtype before anything runs."""

    table: FileTable | ArrayTable
    dtype: str

    def check(self) -> None:
        """Raise when the table is not there, makes no sense, or does not fit."""
        largest = self.table.rows().largest
        if largest > np.iinfo(self.dtype).max:
            raise ParameterError(
                f"the table names a label {largest}, which {self.dtype} cannot hold; pass dtype='uint64'"
            )

    def describe(self) -> Any:
        """Return what the table depends on, as JSON."""
        return self.table.describe()


def rename(
    array: npt.NDArray[Any], box: BoundingBox, table: Fitting, unmapped: Unmapped, offset: int, dtype_name: str
) -> npt.NDArray[Any]:
    """Return the labels of a block (zyx, or czyx with one channel) with the names that a table gives them, zyx."""
    find = functools.partial(_names, box=box, table=table, unmapped=unmapped, offset=offset)
    return replace_labels(array, find, box, dtype_name)


def replace_labels(
    array: npt.NDArray[Any], find: Callable[[Labels], Labels], box: BoundingBox, dtype_name: str
) -> npt.NDArray[Any]:
    """Return the labels of a block (zyx, or czyx with one channel) with the names that a function finds for them, zyx.

    The function gets each label once, in any order.
    """
    import fastremap

    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype == bool:
        flat = flat.view(np.uint8)
    ends = _ends_of_runs(flat)
    runs = flat[ends]
    numbers, places = fastremap.renumber(runs.astype(np.uint64, copy=False), preserve_zero=False)
    labels = np.zeros(len(places) + 1, np.uint64)
    labels[np.fromiter(places.values(), np.int64, len(places))] = np.fromiter(places.keys(), np.uint64, len(places))
    names = np.zeros(len(labels), np.uint64)
    names[1:] = find(labels[1:])
    if names.max() > np.iinfo(dtype_name).max:
        raise ParameterError(f"{dtype_name} cannot hold the label {names.max()} of block {box}; pass dtype='uint64'")
    return np.repeat(names.astype(dtype_name)[numbers], np.diff(ends, prepend=-1)).reshape(array.shape[-3:])


def _ends_of_runs(flat: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the index of the last voxel of every run of equal ones."""
    found = []
    for at in range(0, flat.size, _TILE):
        tile = flat[at : at + _TILE + 1]
        found.append(np.flatnonzero(tile[1:] != tile[:-1]) + at)
    return np.append(np.concatenate(found), flat.size - 1)


def _names(
    labels: npt.NDArray[np.uint64], box: BoundingBox, table: Fitting, unmapped: Unmapped, offset: int
) -> npt.NDArray[np.uint64]:
    names, found = table.table.rows().look_up(labels)
    lacking = ~found & (labels != 0)
    if unmapped == "error" and lacking.any():
        raise ParameterError(
            f"label {labels[lacking][0]} of block {box} is not in the table ({np.count_nonzero(lacking):,} such);"
            " unmapped='keep' keeps such labels, 'zero' makes them background"
        )
    kept = labels + np.uint64(offset) if unmapped == "keep" else np.zeros_like(labels)
    if unmapped == "keep" and offset and np.any(kept[lacking] < labels[lacking]):
        raise ParameterError(f"label {labels[lacking].max()} of block {box} plus {offset} is beyond 2^64 - 1")
    return np.where(found, names, np.where(lacking, kept, np.uint64(0)))


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
    """A table in a file; a merge tree is cut at a mean affinity."""

    url: str
    cut: float | None = None

    def rows(self) -> Rows:
        """Return its rows, mapped or loaded once."""
        return _loaded(self.url, states.object_state(self.url), self.cut)

    def describe(self) -> Any:
        """Return which file it is, and when that was written."""
        cut = {} if self.cut is None else {"cut": self.cut}
        return {"table": kvstore.redact(self.url), "written": states.object_state(self.url), **cut}


@dataclass(frozen=True, eq=False)
class ArrayTable:
    """A table that Python holds; it travels with the stage, once to every worker."""

    held: Rows

    def rows(self) -> Rows:
        """Return its rows."""
        return self.held

    def describe(self) -> Any:
        """Return the hash of its rows."""
        keys = b"" if self.held.keys is None else np.ascontiguousarray(self.held.keys).tobytes()
        return {"table": states.digest(keys + b"|" + np.ascontiguousarray(self.held.values).tobytes())}


def table_of(source: Source, cut: float | None = None) -> FileTable | ArrayTable:
    """Return the table that a path or URL, a mapping or an array stands for; files are not opened yet."""
    is_tree = isinstance(source, str | os.PathLike) and os.fspath(source).endswith(".parquet")
    if is_tree != (cut is not None):
        raise ParameterError(
            "a merge tree, a .parquet file, is cut at a mean affinity, and no other table is; give both table and cut"
        )
    if cut is not None and not 0 <= cut <= 1:
        raise ParameterError(f"cut {cut:g} is not from 0 to 1, as mean affinities are")
    if isinstance(source, str | os.PathLike):
        url = kvstore.normalise(source)
        if is_tree:
            load_pyarrow()
            return FileTable(url, cut)
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
def _loaded(url: str, stamp: str | None, cut: float | None) -> Rows:  # noqa: ARG001 (a key of the cache)
    if cut is not None:
        return Rows(*read_tree(url).names(cut))
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
        raise ParameterError(f"{name} is not a table of pairs old, new: {error}") from error
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
