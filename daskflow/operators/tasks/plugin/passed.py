"""What plugins get of the objects that a line passes on beside volumes, as chunkflow hands them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow import geometry
from daskflow.geometry import VoxelSize, as_voxel_size
from daskflow.operators.tasks.plugin.cartesian import BoundingBox, Cartesian, to_cartesian
from daskflow.operators.tasks.plugin.chunk import PointCloud
from daskflow.stores.objects import synapses
from daskflow.stores.objects.located import JsonValue, Located, Passed, Points, SkeletonSet, TaskBox

Array = npt.NDArray[Any]


@dataclass
class Synapses:
    """Synapses under chunkflow's names; places are voxels (zyx), `post` has the row of its `pre` before them."""

    pre: Array
    post: Array | None = None
    resolution: Cartesian | None = None
    pre_confidence: Array | None = None
    post_confidence: Array | None = None
    users: Sequence[str] = ()
    pre_users: Array | None = None
    post_users: Array | None = None


def handed(value: Passed) -> Any:
    """Return what a plugin gets of an object; its own copy, so that no block sees what was changed in another."""
    if isinstance(value, TaskBox):
        return BoundingBox(Cartesian(*value.box.start), Cartesian(*value.box.stop))
    if isinstance(value, JsonValue):
        return value.value
    if isinstance(value, Points):
        return PointCloud(value.points.copy(), value.voxel_size)
    if isinstance(value, SkeletonSet):
        return copy.deepcopy(dict(value))
    assert isinstance(value, synapses.Synapses)
    own = {name: np.array(values) for name, values in value.attributes.items()}
    size = to_cartesian(value.voxel_size)
    return Synapses(value.pre.copy(), value.post.copy(), size, users=list(value.users), **own)


def taken_back(result: Any, box: geometry.BoundingBox | None, voxel_size: VoxelSize | None) -> Located | None:
    """Return points or synapses that a plugin has found in a box, as a line passes them on; None for anything else.

    Raises:
        ValueError: they have other forms, or a point or presynaptic site lies outside the box.
    """
    found: Located
    if hasattr(result, "pre"):
        arrays = {name: values for name, values in vars(result).items() if values is not None}
        found = synapses.synapses_of({"resolution": voxel_size, **arrays}, arrays.get("users", ()))
        places = found.pre
    elif hasattr(result, "points") or (isinstance(result, np.ndarray) and result.shape[1:] == (3,)):
        points = getattr(result, "points", result)
        size = getattr(result, "voxel_size", None)
        places = np.zeros((0, 3), np.int64) if points is None else np.asarray(points)
        found = Points(places, voxel_size if size is None else as_voxel_size(size))
    else:
        return None
    outside = box is not None and ((places < box.start) | (places >= box.stop)).any(axis=1)
    if np.any(outside):
        raise ValueError(
            f"{places[outside][0].tolist()} (zyx) is outside of {box} (z0-z1_y0-y1_x0-x1), the chunk; places are global"
            " voxels: add the voxel_offset of the chunk"
        )
    return found
