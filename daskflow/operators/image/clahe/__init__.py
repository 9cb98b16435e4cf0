"""Contrast-limited adaptive histogram equalisation of sections."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators.image.clahe.equalize import equalize
from daskflow.operators.image.clahe.stages import equalizing
from daskflow.operators.image.clahe.tiles import Tiles
from daskflow.operators.image.contrast.place import grey_image, with_few_sections
from daskflow.operators.image.contrast.tables import look_up
from daskflow.volume import Flag, Volume, operator

_TABLE_BYTES = 2**26  # that a block may look up


@operator(takes="image")
def clahe(
    volume: Volume,
    *,
    clip_limit: Annotated[float, Flag("-c")] = 40.0,
    tile_grid: Annotated[Sequence[int], Flag("-t")] = (8, 8),
) -> Volume:
    """Equalise the contrast of every section locally (CLAHE), the same for any blocks.

    Every voxel is what OpenCV's ``createCLAHE`` makes of it on the whole section, which no worker has to hold. The
    result waits for two passes, which a job runs by itself: count the grey values of every tile, reading every block
    once, and make a table of each tile.

    Args:
        volume: a uint8 or uint16 image with one channel.
        clip_limit: how steep contrast may become: counts are cut off at so many times the mean count of a tile; 0 or
            less for no limit.
        tile_grid: tiles of a section along y and x.

    Returns:
        An image of the same dtype.

    Raises:
        ParameterError: a segmentation, another dtype, several channels, or not two numbers of at least one tile.
    """
    grey_image(volume, "clahe")
    if math.isnan(clip_limit):
        raise ParameterError("clip limit is nan; give a number")
    tiles = Tiles(volume.box, _grid(tile_grid))
    volume = with_few_sections(volume, _table_bytes(volume, tiles), _TABLE_BYTES)
    tables = equalizing(volume, tiles, float(clip_limit))
    where = functools.partial(_tables_of, tiles=tiles, bins=int(np.iinfo(volume.dtype).max) + 1)
    return look_up(volume, tables, equalize, where=where, memory=_working, tiles=tiles)


def _grid(tile_grid: Sequence[int]) -> tuple[int, int]:
    numbers = np.asarray(tile_grid)
    if numbers.shape != (2,) or numbers.dtype.kind not in "iu" or numbers.min() < 1:
        raise ParameterError(f"tile grid {tile_grid} must be two numbers of tiles, along y and x, of at least 1")
    return int(numbers[0]), int(numbers[1])


def _table_bytes(volume: Volume, tiles: Tiles) -> int:
    """Return the bytes of the tables that one section of a block may be looked up in."""
    return tiles.near(volume.block) * (int(np.iinfo(volume.dtype).max) + 1) * volume.dtype.itemsize


def _tables_of(box: BoundingBox, tiles: Tiles, bins: int) -> BoundingBox:
    """Return the box of the tables that the voxels of a box are interpolated from."""
    (top, bottom), (left, right) = (
        axis.neighbours(*ends) for axis, ends in zip(tiles.axes, tiles.local(box), strict=True)
    )
    return BoundingBox((box.start[0], top, left * bins), (box.stop[0], bottom, right * bins))


def _working(box: BoundingBox) -> float:
    """Return the bytes for one section: indices of both tables, and two mixtures."""
    return 40.0 * box.shape[1] * box.shape[2]
