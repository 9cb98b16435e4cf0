"""Boxes, block grids and volume descriptions: integers only, zyx, no I/O."""

from daskflow.geometry.box import BlockGrid, BoundingBox, Zyx, as_zyx
from daskflow.geometry.spec import LAYER_TYPES, LayerType, VolumeSpec, VoxelSize, as_voxel_size

__all__ = [
    "LAYER_TYPES",
    "BlockGrid",
    "BoundingBox",
    "LayerType",
    "VolumeSpec",
    "VoxelSize",
    "Zyx",
    "as_voxel_size",
    "as_zyx",
]
