"""What becomes of the voxels of a block: arrays in, something stored out."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from daskflow.geometry import BlockGrid, BoundingBox, Zyx
from daskflow.volume.node import Array
from daskflow.volume.output import Output
from daskflow.volume.stage import BlockResult, Bound, Estimate, Own


class Consumer(Bound):
    """Takes the arrays of a block of some volumes, and stores what it makes of them.

    Consumers are frozen dataclasses, are pickled to workers, are idempotent, and give the same bytes each time. Those
    of one `Evaluate` take voxels that are evaluated once.

    Attributes:
        verifiable: whether what it stored can be verified.
    """

    verifiable: ClassVar[bool] = False

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

    def placed(self, block: Zyx) -> Consumer:  # noqa: ARG002
        """Return the consumer that gets blocks of a shape; for those that must know it."""
        return self

    def needs(self, box: BoundingBox) -> BoundingBox | None:
        """Return the voxels that it takes for a block, or None; the block unless said, never less for a larger one."""
        return box

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Any:  # noqa: ARG002
        """Return what is to be stored, of one array for each volume; the one array unless said."""
        (array,) = arrays
        return np.ascontiguousarray(array)

    def write(self, box: BoundingBox, outputs: Any) -> BlockResult:
        """Store a block; it is done once this returned."""
        raise NotImplementedError

    def further(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        """Predict what it takes beside the voxels; nothing unless said."""
        return Estimate()

    def check(self) -> None:
        """Raise what can be known to fail before anything runs; create what is written to."""

    def refuse_to_replace(self, box: BoundingBox, own: Own) -> None:
        """Raise when writing all of `box` would replace what others have stored."""

    def describe(self) -> dict[str, Any]:
        """Return all that the stored bytes depend on, the voxels apart, as JSON."""
        raise NotImplementedError

    def makes(self) -> tuple[Output, ...]:
        """Return what it writes where it is to stay; nothing unless said."""
        return ()

    def intact(self) -> bool:
        """Return whether what earlier runs wrote is still there."""
        return True

    def verify(self, box: BoundingBox) -> None:
        """Raise when what was stored for a block is missing or damaged; asked of verifiable consumers alone."""
        raise NotImplementedError
