"""CLAHE (Zuiderveld 1994, Graphics Gems IV, VIII.5) as OpenCV has it: clipped histograms, tables, interpolation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox
from daskflow.operators.image.clahe.tiles import Tiles

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]


def equalizing_tables(histograms: Counts, clip_limit: float, dtype: np.dtype[Any]) -> Array:
    """Return, for every tile, the table of what its grey values become.

    Counts above the limit are cut off and given back evenly to all values, the rest to every n-th one; the table is the
    cumulative count, scaled to the dtype's range in single precision.

    Args:
        histograms: last axis of 256 or 65536 grey values; every tile has the same number of voxels.
        clip_limit: how many times the mean count is left; no limit at 0 or below.
        dtype: uint8 or uint16.
    """
    bins = histograms.shape[-1]
    voxels = int(histograms[(0,) * (histograms.ndim - 1)].sum())
    if clip_limit > 0:
        limit = max(int(clip_limit * voxels / bins), 1)
        cut = np.maximum(histograms - limit, 0).sum(axis=-1, keepdims=True)
        share, rest = np.divmod(cut, bins)
        step = np.maximum(bins // np.maximum(rest, 1), 1)
        values = np.arange(bins)
        extra = (values % step == 0) & (values // step < rest)
        histograms = np.minimum(histograms, limit) + share + extra
    scale = np.float32(bins - 1) / np.float32(voxels)
    tables = np.cumsum(histograms, axis=-1).astype(np.float32) * scale
    rounded: Array = np.clip(np.rint(tables), 0, bins - 1).astype(dtype)
    return rounded


def equalize(array: Array, table: Array, *, box: BoundingBox, table_box: BoundingBox, tiles: Tiles) -> Array:
    """Return an array in which every voxel is interpolated between what the tables of the four nearest tiles say.

    Args:
        array: uint8 or uint16, zyx or czyx with one channel.
        table: tables of the tiles around it, shape (z, tiles along y, tiles along x times grey values).
        box: of the array.
        table_box: of the table.
        tiles: how they lie.
    """
    bins = np.iinfo(array.dtype).max + 1
    rows, columns = tiles.local(box)
    top, bottom, above, below = tiles.axes[0].between(*rows)
    left, right, before, after = tiles.axes[1].between(*columns)
    offset = table_box.start[2] // bins
    to_left, to_right = (left - offset) * bins, (right - offset) * bins
    bands = _bands(top + bottom)
    sections, result = array.reshape(box.shape), np.empty(box.shape, array.dtype)
    for section, tables, out in zip(sections, table, result, strict=True):
        values = tables.astype(np.float32)
        for start, stop in bands:
            grey = section[start:stop].astype(np.intp)
            first, second = grey + to_left, grey + to_right
            high = _mixed(values[top[start] - table_box.start[1]], first, second, before, after)
            low = _mixed(values[bottom[start] - table_box.start[1]], first, second, before, after)
            high *= above[start:stop, None]
            low *= below[start:stop, None]
            high += low
            out[start:stop] = np.rint(high, out=high)
    return result.reshape(array.shape)


def _mixed(values: Array, first: Array, second: Array, before: Array, after: Array) -> Array:
    """Return the mean of what two tables say, weighted by where the voxels of a row lie between their tiles."""
    mixed = values.take(first)
    mixed *= before
    other = values.take(second)
    other *= after
    mixed += other
    return mixed


def _bands(tiles: Array) -> list[tuple[int, int]]:
    """Return the runs of rows between the same tiles, whose numbers, added up, never descend."""
    cuts = [0, *(np.flatnonzero(np.diff(tiles)) + 1).tolist(), len(tiles)]
    return list(itertools.pairwise(cuts))
