"""The labelled volume: provisional labels of blocks, renumbered as they are read."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import StoreAccessError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.operators.labelling.scratch import Labelling
from daskflow.stores import Store

Array = npt.NDArray[Any]


class LabelledStore(Store):
    """What the stages of a labelling left in scratch; it can only be read.

    Args:
        directory: URL of the scratch directory.
        labelling: what was labelled, not yet bound.
        spec: what the result is.
    """

    def __init__(self, directory: str, labelling: Labelling, spec: VolumeSpec) -> None:
        self._labelling = labelling.bound(directory)
        assert self._labelling.url is not None
        super().__init__(self._labelling.url, [spec])
        self._arguments = (directory, labelling, spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return (LabelledStore, self._arguments)

    def _read(self, box: BoundingBox) -> Array:
        grid = self._labelling.grid
        blocks = list(grid.touching(box))
        if len(blocks) == 1 and grid[blocks[0]] == box:
            return self._block(blocks[0])
        array = np.zeros(box.shape, self.spec.dtype)
        for block in blocks:
            inside = grid[block]
            part = inside.clip(box)
            array[part.slices(box)] = self._block(block, part)
        return array

    def _block(self, block: int, part: BoundingBox | None = None) -> Array:
        inside = self._labelling.grid[block]
        part = inside if part is None else part
        group, place = self._labelling.group_of(block)
        starts, numbers = _numbers(self._labelling, group)
        if starts[place] == starts[place + 1]:
            return np.zeros(part.shape, self.spec.dtype)
        table = np.concatenate((np.zeros(1, self.spec.dtype), numbers[starts[place] : starts[place + 1]]))
        return table.take(self._labelling.read_labels(block)[part.slices(inside)])

    def _write(self, box: BoundingBox, array: Array) -> None:
        raise StoreAccessError(f"{self.url} holds scratch data; cannot write {array.shape} at {box}")

    def fingerprint(self) -> dict[str, Any]:
        return {"components": self._labelling.key}

    def check_writable(self) -> None:
        raise StoreAccessError(f"{self.url} holds scratch data; it cannot be written")


_reading = threading.Lock()


def _numbers(labelling: Labelling, group: int) -> tuple[Array, Array]:
    with _reading:
        return _kept(labelling, group)


@functools.lru_cache(maxsize=8)
def _kept(labelling: Labelling, group: int) -> tuple[Array, Array]:
    return labelling.read_numbers(group)
