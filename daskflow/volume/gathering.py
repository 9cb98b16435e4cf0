"""A node that is put together from parts of its input which lie apart."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from daskflow.geometry import BoundingBox
from daskflow.volume.node import Array, Node, Source


@dataclass(frozen=True, eq=False)
class Gathered(Source):
    """Voxels of one input from several boxes that one box would not hold cheaply, e.g. sections in another order.

        input   |--a--|.....................|--b--|
        result  |--b--|--a--|

    What a block needs is evaluated part by part, when sources are read.

    Attributes:
        input: what is put together anew.
    """

    input: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)

    def with_inputs(self, inputs: tuple[Node, ...]) -> Gathered:
        return dataclasses.replace(self, input=inputs[0])

    @abstractmethod
    def parts(self, box: BoundingBox) -> Sequence[tuple[BoundingBox, BoundingBox]]:
        """Return, for a box of the result, the parts it consists of: where in the input, and where in the result."""

    def hull(self, box: BoundingBox) -> BoundingBox:
        """Return one box of the input that holds all parts of a box of the result."""
        nothing = BoundingBox(self.input.spec.box.start, self.input.spec.box.start)
        parts = [part for part, _ in self.parts(box)]
        return functools.reduce(BoundingBox.union, parts) if parts else nothing

    def fetch(self, box: BoundingBox) -> Array:
        raise AssertionError(f"{box} asked of a node that an expression gathers")
