"""Stores of no format: a numpy array, and what stages left in scratch data."""

from __future__ import annotations

import hashlib
from typing import Any, Self

import numpy as np

from daskflow.errors import ParameterError, StoreAccessError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.base import Array, Layout, Store
from daskflow.stores.kvstore import join

_TRAVELS = 2**20
_CHUNK = (128, 128, 128)


class ArrayStore(Store):
    """The voxels of an array in this process.

    A large array does not travel with every task: where a scratch directory is known, it is written there when the
    store is first pickled, and other processes read it from there: in these `array` is None.
    """

    def __init__(self, array: Array, spec: VolumeSpec, *, scratch: str | None = None) -> None:
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise ParameterError(f"array {array.shape} {array.dtype} for a volume of {spec.shape} {spec.dtype}")
        super().__init__("array", [spec])
        self.array: Array | None = array
        self._scratch = scratch
        self._written = False
        self._digest: str | None = None

    def with_scratch(self, directory: str) -> Self:
        """Return the store of the same array, which may be written below the URL `directory` to travel."""
        if self.array is None:
            return self
        name = f"array-{hashlib.sha256(repr(self.fingerprint()).encode()).hexdigest()[:16]}.zarr"
        store = type(self)(self.array, self.spec, scratch=join(directory, name))
        store._digest = self._digest
        return store

    def __getstate__(self) -> dict[str, Any]:
        if self.array is None or self._scratch is None or self.array.nbytes <= _TRAVELS:
            return self.__dict__
        if not self._written:
            self._layer().write(self.spec.box, self.array)
            self._written = True
        self.fingerprint()
        return {**self.__dict__, "array": None}

    def _layer(self) -> Store:
        from daskflow.stores.opening import create_store

        assert self._scratch is not None
        return create_store(self._scratch, self.spec, format="zarr3", layout=Layout(chunk=_CHUNK, encoding="raw"))

    def _read(self, box: BoundingBox) -> Array:
        if self.array is None:
            return self._layer().read(box)
        return np.array(self.array[(..., *box.slices(self.spec.box))], order="C")

    def _write(self, box: BoundingBox, array: Array) -> None:
        if self.array is None:
            raise StoreAccessError("the array is in another process; write it there, or into a layer")
        self.array[(..., *box.slices(self.spec.box))] = array
        self._digest = None

    def fingerprint(self) -> dict[str, Any]:
        """Return a hash of the voxels, their dtype and place; the voxels are hashed once, and after every write.

        An array that was changed behind the store's back is taken for the one it was.
        """
        if self._digest is None:
            assert self.array is not None
            self._digest = hashlib.sha256(np.ascontiguousarray(self.array).data).hexdigest()
        return {"array": self._digest, "dtype": self.spec.dtype.name, "box": str(self.spec.box)}

    def check_writable(self) -> None:
        if self.array is None:
            raise StoreAccessError("the array is in another process; write it there, or into a layer")
        if not self.array.flags.writeable:
            raise StoreAccessError("the array is read-only; write into a copy")


class ScratchStore(Store):
    """What stages left in scratch data; it can only be read."""

    def _write(self, box: BoundingBox, array: Any) -> None:
        raise StoreAccessError(f"{self.url} holds scratch data; cannot write {array.shape} at {box}")

    def check_writable(self) -> None:
        raise StoreAccessError(f"{self.url} holds scratch data; it cannot be written")
