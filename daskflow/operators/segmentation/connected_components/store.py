"""The labelled volume: provisional labels of blocks, renumbered as they are read."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.operators.segmentation.connected_components.scratch import Labelling
from daskflow.stores.memory import ScratchStore

Array = npt.NDArray[Any]

_KEPT = 8  # groups whose numbers one store holds


class LabelledStore(ScratchStore):
    """What the stages of a labelling left in scratch; it can only be read.

    Args:
        labelling: what was labelled, bound.
        spec: what the result is.
    """

    def __init__(self, labelling: Labelling, spec: VolumeSpec) -> None:
        super().__init__(labelling.scope.url, [spec])
        self._labelling = labelling
        self._numbers: dict[int, tuple[Array, Array]] = {}
        self._reading = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (LabelledStore, (self._labelling, self.spec))

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
        starts, numbers = self._numbers_of(group)
        if starts[place] == starts[place + 1]:
            return np.zeros(part.shape, self.spec.dtype)
        table = np.concatenate((np.zeros(1, self.spec.dtype), numbers[starts[place] : starts[place + 1]]))
        return table.take(self._labelling.read_labels(block)[part.slices(inside)])

    def _numbers_of(self, group: int) -> tuple[Array, Array]:
        """Return the numbers of a group, kept for the blocks that follow; each run binds a store of its own."""
        with self._reading:
            found = self._numbers.pop(group, None) or self._labelling.read_numbers(group)
            while len(self._numbers) >= _KEPT:
                del self._numbers[next(iter(self._numbers))]
            self._numbers[group] = found
            return found

    def fingerprint(self) -> dict[str, Any]:
        return {"components": self._labelling.scope.name}
