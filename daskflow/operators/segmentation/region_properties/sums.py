"""Sums over the voxels of every label of a block, in whole numbers, so that they do not depend on the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, Zyx
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import How, merged

Array = npt.NDArray[Any]

# sums: of z y x, zz zy zx yy yx xx and, with an image, of its values and their squares, as 2^32 high + low
_BOXES: dict[str, How] = {"labels": "key", "voxels": "sum", "starts": "min", "stops": "max"}
_RANGE: dict[str, How] = {"least": "min", "most": "max"}
COLUMNS: dict[str, How] = {**_BOXES, "low": "sum", "high": "sum"}
IMAGE_COLUMNS = COLUMNS | _RANGE

_TILE = 2**18  # voxels whose sums are 64 bits wide
_HALF = 32
_OF_TILE: dict[str, How] = {**_BOXES, "sums": "sum"}


def check_size(box: BoundingBox, block: Zyx) -> None:
    """Raise unless the sums of a tile fit.

    Raises:
        ParameterError: the volume, or a row of its blocks, is too long.
    """
    if max(_TILE, block[2]) * max(box.shape) ** 2 >= 2**63:
        raise ParameterError(f"{box} is too long for sums over blocks {block} (zyx); crop it, or take smaller blocks")


def sums_of(box: BoundingBox, labels: Array, image: Array | None = None, *, corner: Zyx) -> Arrays:
    """Return the rows of a block: columns as in `COLUMNS`, or `IMAGE_COLUMNS`; label 0 is left out.

    Args:
        box: the block.
        labels: its voxels (zyx).
        image: integers of at most 16 bits.
        corner: of the volume, from which coordinates are counted.
    """
    columns, of_tile = (COLUMNS, _OF_TILE) if image is None else (IMAGE_COLUMNS, _OF_TILE | _RANGE)
    length, parts = box.shape[2], []
    values = None if image is None else image.reshape(-1, length)
    rows, step = labels.reshape(-1, length), max(1, _TILE // length)
    origin = [a - b for a, b in zip(box.start, corner, strict=True)]
    for at in range(0, len(rows), step):
        runs = _runs(rows[at : at + step], None if values is None else values[at : at + step])
        z, y = np.divmod(at + runs.pop("rows"), box.shape[1])
        part = merged(of_tile, [_moments(z + origin[0], y + origin[1], runs, origin[2])])
        sums = part.pop("sums")
        parts.append(part | {"low": sums & (2**_HALF - 1), "high": sums >> _HALF})
    return merged(columns, parts)


def _runs(labels: Array, image: Array | None) -> Arrays:
    """Return the runs of voxels of one label along x: row, x, length, and what the image has there."""
    flat, length = labels.reshape(-1), labels.shape[1]
    fresh = np.ones(flat.size, bool)
    fresh[1:] = flat[1:] != flat[:-1]
    fresh[::length] = True
    starts = np.flatnonzero(fresh)
    lengths = np.diff(starts, append=flat.size)
    found: Arrays = {"labels": flat[starts].astype(np.uint64), "lengths": lengths}
    found["rows"], found["x"] = np.divmod(starts, length)
    if image is not None:
        values = image.reshape(-1).astype(np.int64)
        found["values"], found["squares"] = (np.add.reduceat(one, starts) for one in (values, values * values))
        found["least"], found["most"] = (ufunc.reduceat(values, starts) for ufunc in (np.minimum, np.maximum))
    named = found["labels"] != 0
    return {name: column[named] for name, column in found.items()}


def _moments(z: Array, y: Array, runs: Arrays, first: int) -> Arrays:
    """Return rows whose sums over the voxels of a run follow from where it begins and its length."""
    x, n = runs.pop("x") + first, runs.pop("lengths")
    along = n * x + n * (n - 1) // 2
    squares = n * x * x + x * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6
    sums = [n * z, n * y, along, n * z * z, n * z * y, z * along, n * y * y, y * along, squares]
    sums += [runs.pop(name) for name in ("values", "squares") if name in runs]
    boxes = {"starts": np.stack((z, y, x), axis=1), "stops": np.stack((z + 1, y + 1, x + n), axis=1)}
    return runs | boxes | {"voxels": n, "sums": np.stack(sums, axis=1)}
