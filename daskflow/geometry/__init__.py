"""Boxes, block grids and volume descriptions: integers only, zyx, no I/O."""

from daskflow.geometry.box import BoundingBox, Zyx, as_zyx
from daskflow.geometry.grid import BlockGrid
from daskflow.geometry.spec import LAYER_TYPES, LayerType, VolumeSpec

__all__ = ["LAYER_TYPES", "BlockGrid", "BoundingBox", "LayerType", "VolumeSpec", "Zyx", "as_zyx"]
