"""What plugins get of the objects that a line passes on beside volumes, as chunkflow hands them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.operators.tasks.plugin.cartesian import BoundingBox, Cartesian, to_cartesian
from daskflow.operators.tasks.plugin.chunk import PointCloud
from daskflow.stores.objects import synapses
from daskflow.stores.objects.located import JsonValue, Passed, Points, SkeletonSet, TaskBox

Array = npt.NDArray[Any]


@dataclass
class Synapses:
    """Synapses under chunkflow's names; places are voxels (zyx), `post` has the row of its `pre` before them."""

    pre: Array
    post: Array
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
