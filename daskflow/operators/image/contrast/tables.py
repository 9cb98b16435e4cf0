"""Volumes that look voxels up in tables, which stages leave in scratch data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.geometry import BoundingBox
from daskflow.jobs.sinks import KeptStore, ScratchSink
from daskflow.volume import Stage, Volume
from daskflow.volume.description import describe, describe_function
from daskflow.volume.node import Array, Calling, Memory, Node, Step, Waiting, checked


def waiting(kept: ScratchSink, stages: Sequence[Stage]) -> Waiting:
    """Return the node that answers for what `stages` hand to a scratch sink."""
    return Waiting(kept.spec, KeptStore, kept, tuple(stages))


def look_up(
    volume: Volume,
    tables: Waiting,
    function: Callable[..., Array],
    *,
    where: Callable[[BoundingBox], BoundingBox],
    memory: Memory,
    **options: Any,
) -> Volume:
    """Return the volume whose blocks are ``function(block, table, box=, table_box=, **options)``.

    Args:
        volume: gives the blocks.
        tables: gives the tables.
        function: returns the block, of the shape and dtype it got.
        where: the box of the tables that is needed for a box of the volume.
        memory: bytes that the function takes, as for `Volume.map_overlap`.
        **options: handed to the function.
    """
    spec = volume.spec
    return Volume(_LookUp(spec, function, volume.node, tables, where, options, memory), block=volume.block)


@dataclass(frozen=True, eq=False)
class _LookUp(Step, Calling):
    function: Callable[..., Array]
    volume: Node
    tables: Node
    where: Callable[[BoundingBox], BoundingBox]
    options: dict[str, Any]
    memory: Memory

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.volume, self.tables)

    def with_inputs(self, inputs: tuple[Node, ...]) -> _LookUp:
        return dataclasses.replace(self, volume=inputs[0], tables=inputs[1])

    def needs(self, box: BoundingBox) -> tuple[BoundingBox, ...]:
        return (box, self.where(box))

    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:
        result = self.function(*arrays, box=box, table_box=self.where(box), **self.options)
        return checked(np.asarray(result), box, self.spec, self.function)

    def working(self, box: BoundingBox) -> float:
        if callable(self.memory):
            return self.memory(box)
        return (self.memory or 0) * box.size

    def describe(self) -> dict[str, Any]:
        return {"function": describe_function(self.function), "options": describe(self.options)}
