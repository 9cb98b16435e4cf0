"""A numpy array as a store."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from daskflow.errors import GeometryError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.base import Array, Store


class ArrayStore(Store):
    """The voxels of an array in this process.

    Attributes:
        array: zyx or czyx, as `spec.shape` says.
    """

    def __init__(self, array: Array, spec: VolumeSpec) -> None:
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise GeometryError(f"array of {array.dtype} {array.shape} for a volume of {spec.dtype} {spec.shape}")
        super().__init__("memory array", [spec])
        self.array = array

    def _read(self, box: BoundingBox) -> Array:
        return np.array(self.array[(..., *box.slices(self.spec.box))], order="C")

    def _write(self, box: BoundingBox, array: Array) -> None:
        self.array[(..., *box.slices(self.spec.box))] = array

    def fingerprint(self) -> dict[str, Any]:
        """Return the hash of the voxels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.array).data).hexdigest()
        return {"array": digest, "dtype": self.spec.dtype.name, "box": str(self.spec.box)}

    def check_writable(self) -> None:
        """An array in this process can be written."""
