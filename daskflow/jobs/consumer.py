"""What becomes of the voxels of a block: arrays in, something stored out."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskflow.geometry import BlockGrid, BoundingBox, Zyx
from daskflow.volume.node import Array
from daskflow.volume.stage import Estimate, Storing


class Consumer(Storing):
    """Takes the arrays of a block of some volumes, and stores what it makes of them.

    The consumers of one `EvaluateVolumes` take voxels that are evaluated once.
    """

    @property
    def grid(self) -> BlockGrid | None:
        """The blocks it takes voxels in, which larger blocks are cut into; None when it takes any."""
        return None

    @property
    def unit(self) -> Zyx | None:
        """The shape that one block must own, counted from `origin`; None when any block will do."""
        return None

    @property
    def origin(self) -> Zyx | None:
        """The corner that units are counted from; None for the volume's."""
        return None

    @property
    def gpu(self) -> bool:
        """Whether it computes on a GPU where there is one."""
        return False

    def kept(self, box: BoundingBox) -> str:  # noqa: ARG002
        """Say what all of a box is to other stages for which it is kept in scratch data; nothing by default."""
        return ""

    def placed(self, block: Zyx) -> Consumer:  # noqa: ARG002
        """Return the consumer that gets blocks of a shape; for those that must know it."""
        return self

    def needs(self, box: BoundingBox) -> BoundingBox | None:
        """Return the voxels that it takes for a block, or None; the block by default, never less for a larger one."""
        return box

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Any:  # noqa: ARG002
        """Return what is to be stored, of one array for each volume; the one array by default."""
        (array,) = arrays
        return np.ascontiguousarray(array)

    def further(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        """Predict what it takes beside the voxels; nothing by default."""
        return Estimate()
