"""Labels through a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators.segmentation.remap.tables import Table, table_of
from daskflow.volume import Flag, Volume, operator
from daskflow.volume.description import Option

Unmapped = Literal["error", "keep", "zero"]

_TILE = 2**18  # voxels, which a processor's cache holds


@operator(takes="labels")
def remap(
    volume: Volume,
    *,
    table: Annotated[str | Mapping[int, int] | npt.NDArray[Any], Flag("-t")],
    unmapped: Annotated[Unmapped, Flag("-u")] = "error",
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
            mapping or an array.
        unmapped: what becomes of a label that is not in the table: error (the block fails, and says which label),
            keep (its name) or zero (background).
        offset: what is added to labels that are kept, so that they differ from the names in the table.
        dtype: of the result; the volume's unless given.

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
    known = Fitting(table_of(table), wanted.name)
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


class Fitting(Option):
    """A table whose new labels are known to fit a dtype before anything runs.

    Attributes:
        table: the table.
        dtype: name of the dtype.
    """

    def __init__(self, table: Table, dtype: str) -> None:
        self.table = table
        self.dtype = dtype

    def check(self) -> None:
        """Raise when the table is not there, makes no sense, or does not fit."""
        self.table.check()
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
    """Return the labels of a block (zyx, or czyx with one channel) with the names that a table gives them, zyx.

    Raises:
        ParameterError: a label that is not in the table where that is an error, or does not fit the dtype.
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
    names[1:] = _names(labels[1:], box, table, unmapped, offset)
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
