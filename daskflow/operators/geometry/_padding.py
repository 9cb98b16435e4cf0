"""Zeros around a volume."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from daskflow.geometry import BoundingBox
from daskflow.volume import Volume
from daskflow.volume.mapping import MappedBoxes


def padded(volume: Volume, box: BoundingBox) -> Volume:
    """Return a volume over `box`, with zeros where the volume has no voxels."""
    spec = volume.spec.replace(box=box)
    return volume.map_boxes(_surrounded, reads=functools.partial(_near, whole=volume.box), spec=spec, memory=0)


def without_padding(volume: Volume) -> BoundingBox:
    """Return the box of a volume without the zeros that `padded` has put around it."""
    for node in volume.expression.nodes:
        if isinstance(node, MappedBoxes) and node.function is _surrounded and node.spec.box == volume.box:
            return node.inputs[0].spec.box
    return volume.box


def _near(box: BoundingBox, whole: BoundingBox) -> BoundingBox:
    """Return the part of a box that a volume has, or else one voxel of it, since nothing cannot be read."""
    inside = box.clip(whole)
    return BoundingBox.from_size(whole.start, (1, 1, 1)) if inside.empty else inside


def _surrounded(array: np.ndarray[Any, Any], box: BoundingBox, read_box: BoundingBox) -> np.ndarray[Any, Any]:
    out = np.zeros((*array.shape[:-3], *box.shape), array.dtype)
    if read_box in box:
        out[(..., *read_box.slices(box))] = array
    return out
