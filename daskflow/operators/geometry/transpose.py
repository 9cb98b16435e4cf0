"""The axes of a volume in reverse order."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskflow.geometry import BoundingBox
from daskflow.volume import Volume, operator


@operator()
def transpose(volume: Volume) -> Volume:
    """Take the axes in the order x, y, z: what was along z is then along x.

    Offset, voxel size and chunks go with the axes; channels stay first.

    Args:
        volume: the volume.

    Returns:
        A volume of the same voxels.
    """
    spec = volume.spec
    size, shift = spec.voxel_size, spec.shift
    turned = spec.replace(
        box=reverse(spec.box),
        voxel_size=None if size is None else size[::-1],
        coarseness=spec.coarseness[::-1],
        shift=shift[::-1],
        chunk=None,
        shard=None,
        chunk_origin=None if spec.chunk_origin is None else spec.chunk_origin[::-1],
    )
    return volume.map_boxes(turn, reads=reverse, spec=turned).with_block(volume.block[::-1])


def reverse(box: BoundingBox) -> BoundingBox:
    """Return a box with its axes in reverse order."""
    return BoundingBox(box.start[::-1], box.stop[::-1])


def turn(array: np.ndarray[Any, Any], **_: Any) -> np.ndarray[Any, Any]:
    """Return an array (zyx or czyx) with its last three axes in reverse order."""
    return np.ascontiguousarray(np.swapaxes(array, -3, -1))
