"""Scratch data of a job, read as a volume."""

from __future__ import annotations

from typing import Any

from daskflow.errors import StoreAccessError
from daskflow.geometry import BoundingBox
from daskflow.stores.base import Store


class ScratchStore(Store):
    """What stages left in scratch data; it can only be read."""

    def _write(self, box: BoundingBox, array: Any) -> None:
        raise StoreAccessError(f"{self.url} holds scratch data; cannot write {array.shape} at {box}")

    def check_writable(self) -> None:
        raise StoreAccessError(f"{self.url} holds scratch data; it cannot be written")
