"""An array in memory as a store."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from daskflow.errors import ParameterError, StoreAccessError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.base import Array, Store


class ArrayStore(Store):
    """The voxels of a numpy array; reading copies, writing changes the array.

    Args:
        array: voxels, zyx or czyx as `spec` says; it travels along when the store is pickled.
        spec: geometry and meaning, of the array's shape and dtype.

    Raises:
        ParameterError: the array has another shape or dtype than `spec`.
    """

    def __init__(self, array: Array, spec: VolumeSpec) -> None:
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise ParameterError(f"array {array.shape} {array.dtype} for a volume of {spec.shape} {spec.dtype}")
        super().__init__("memory array", [spec])
        self.array = array

    def _read(self, box: BoundingBox) -> Array:
        return np.array(self.array[(..., *box.slices(self.spec.box))], order="C")

    def _write(self, box: BoundingBox, array: Array) -> None:
        self.array[(..., *box.slices(self.spec.box))] = array

    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.sha256(np.ascontiguousarray(self.array).data).hexdigest()
        return {"format": "array", "dtype": self.spec.dtype.name, "box": str(self.spec.box), "sha256": digest}

    def check_writable(self) -> None:
        if not self.array.flags.writeable:
            raise StoreAccessError("the array is read-only; write into a copy")
