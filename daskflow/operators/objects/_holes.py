"""Holes of labels, each label by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.config import format_bytes
from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid

Array = npt.NDArray[Any]


def check_whole(grid: BlockGrid, option: str, voxel_bytes: float) -> None:
    """Raise unless one block holds the whole volume, where an option is right for objects that are whole alone.

    Args:
        grid: the blocks.
        option: for the message.
        voxel_bytes: memory that a block takes for each voxel.

    Raises:
        ParameterError: there are several blocks; the message says which shape would do.
    """
    if len(grid) > 1:
        z, y, x = grid.box.shape
        raise ParameterError(
            f"{option} would depend on how blocks of {grid.block} voxels zyx cut objects; take the volume as one block,"
            f" shape {z} {y} {x} (about {format_bytes(int(voxel_bytes * grid.box.size))} of memory), or crop it"
        )


def without_holes(numbers: Array) -> Iterator[Array]:
    """Yield labels whose holes are filled, in as many arrays as it takes for none to cover another.

    What a label encloses belongs to it, whatever it is; a label in a hole comes in a later array. Faces connect the
    outside.

    Args:
        numbers: zyx, integers of 0 to about as many as there are labels.
    """
    from scipy.ndimage import find_objects

    parts = find_objects(numbers)
    left = [number for number, place in enumerate(parts, 1) if place is not None]
    while left:
        result, later = np.zeros_like(numbers), []
        for number in left:
            place = parts[number - 1]
            voxels = _filled(numbers[place] == number)
            if result[place][voxels].any():
                later.append(number)
            else:
                result[place][voxels] = number
        yield result
        left = later


def _filled(mask: Array) -> Array:
    import cc3d

    outside = np.pad(~mask, 1, constant_values=True)
    parts = cc3d.connected_components(outside.view(np.uint8), connectivity=6)
    filled: Array = parts[1:-1, 1:-1, 1:-1] != parts[0, 0, 0]
    return filled
