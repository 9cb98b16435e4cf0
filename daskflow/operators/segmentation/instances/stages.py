"""The passes that label instances: run the function on blocks, match those of neighbours, then as for components."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.geometry import BoundingBox, Zyx
from daskflow.operators.segmentation.connected_components.blocks import (
    Components,
    Pairs,
    first_indices,
    global_indices,
)
from daskflow.operators.segmentation.connected_components.scratch import Labelling, pack, unpack
from daskflow.operators.segmentation.connected_components.stages import LabelBlocks
from daskflow.operators.segmentation.instances.matching import Array, checked_labels, match, owned
from daskflow.scratch.records import Arrays
from daskflow.volume import BlockResult, Estimate, Stage, Task
from daskflow.volume.description import describe
from daskflow.volume.mapping import box_names

Matches = dict[tuple[int, int], tuple[Pairs, dict[str, int]]]  # by axis and neighbour

_VOXEL_BYTES = 24  # what the function gets, its labels, and these twice as numbers


@dataclass(frozen=True, kw_only=True)
class InstanceLabelling(Labelling):
    """One labelling of instances: how far beyond a block its function sees (zyx), and what `match` joins."""

    depth: Zyx
    threshold: float
    of_smaller: bool

    def seen(self, box: BoundingBox) -> BoundingBox:
        """Return what the function sees for a block."""
        return box.grow(self.depth).clip(self.grid.box)

    def neighbours(self, block: int, step: int) -> Iterator[tuple[int, int]]:
        """Yield an axis and the neighbour along it, for those that come after a block (1) or before it (-1)."""
        for axis in range(3):
            place = list(self.grid.position(block))
            place[axis] += step
            if 0 <= place[axis] < self.grid.shape[axis]:
                yield axis, self.grid.index((place[0], place[1], place[2]))

    def read_components(self, blocks: Iterable[int]) -> dict[int, Components]:
        """Return the instances of some blocks; their planes are lists of matches, as long on both sides of a face."""
        found = super().read_components(blocks)
        for axis, (side, step) in itertools.product(range(3), enumerate((-1, 1))):
            inner = [block for block in found if axis in dict(self.neighbours(block, step))]
            for block, record in zip(inner, self.read(f"matched-{axis}{side}", inner), strict=True):
                found[block].planes[axis, side] = record["numbers"]
        return found


@dataclass(frozen=True)
class LabelInstances(LabelBlocks):
    """Label the instances of every block by a function."""

    labelling: InstanceLabelling
    function: Callable[..., Any]
    on_gpu: bool

    @property
    def gpu(self) -> bool:
        return self.on_gpu

    def needs(self, box: BoundingBox) -> BoundingBox:
        return self.labelling.seen(box)

    def compute(self, box: BoundingBox, arrays: list[Array]) -> tuple[Array, Components]:
        """Return the number of each voxel that the function sees, and the instances."""
        around = self.needs(box)
        places = {"box": box, "read_box": around}
        found = self.function(arrays[0].copy(), **{name: places[name] for name in box_names(self.function)})
        numbers, count = owned(checked_labels(found, box, around), box, around)
        firsts = first_indices(np.ascontiguousarray(numbers[box.slices(around)]), count)
        return numbers, Components(count, global_indices(firsts, box, self.grid.box), None, {})

    def write(self, box: BoundingBox, outputs: tuple[Array, Components]) -> BlockResult:
        numbers, instances = outputs
        (block,) = self.grid.touching(box)
        self.labelling.write("seen", block, {numbers.dtype.name: pack(numbers)})
        return super().write(box, (numbers[box.slices(self.needs(box))], instances))

    def further(self, box: BoundingBox) -> Estimate:
        seen = self.needs(box).size
        return Estimate(bytes_written=4 * (box.size + seen), memory=_VOXEL_BYTES * seen)

    def describe(self) -> dict[str, Any]:
        return {"function": describe(self.function), "depth": list(self.labelling.depth)}

    def before_seams(self) -> tuple[Stage, ...]:
        return (Stage("match-instances", self.grid, MatchInstances(self.labelling)),)


@dataclass(frozen=True)
class MatchInstances(Task):
    """Match the instances of every block with those of its next neighbours."""

    labelling: InstanceLabelling

    def read(self, box: BoundingBox) -> dict[int, Arrays]:
        (block,) = self.labelling.grid.touching(box)
        blocks = [block, *(other for _, other in self.labelling.neighbours(block, 1))]
        return dict(zip(blocks, self.labelling.read("seen", blocks), strict=True))

    def compute(self, box: BoundingBox, inputs: dict[int, Arrays]) -> Matches:
        labelling = self.labelling
        (block,) = labelling.grid.touching(box)
        seen, mine = self._numbers(block, inputs)
        found = {}
        for axis, other in labelling.neighbours(block, 1):
            beyond, theirs = self._numbers(other, inputs)
            both = seen.clip(beyond)
            one, two = (np.moveaxis(a[both.slices(b)], axis, 0) for a, b in ((mine, seen), (theirs, beyond)))
            face = box.stop[axis] - both.start[axis]
            found[axis, other] = match(one, two, face, labelling.threshold, labelling.of_smaller)
        return found

    def _numbers(self, block: int, records: dict[int, Arrays]) -> tuple[BoundingBox, Array]:
        seen = self.labelling.seen(self.labelling.grid[block])
        ((dtype, packed),) = records[block].items()
        return seen, unpack(packed, seen.shape, dtype)

    def write(self, box: BoundingBox, outputs: Matches) -> BlockResult:
        (block,) = self.labelling.grid.touching(box)
        counts: Counter[str] = Counter()
        for (axis, other), (pairs, found) in outputs.items():
            self.labelling.write(f"matched-{axis}1", block, {"numbers": pairs[:, :1]})
            self.labelling.write(f"matched-{axis}0", other, {"numbers": pairs[:, 1:]})
            counts.update(found)
        return BlockResult(counts=dict(counts))

    def estimate(self, box: BoundingBox) -> Estimate:
        seen = self.labelling.seen(box).size
        return Estimate(bytes_read=16 * seen, memory=2 * _VOXEL_BYTES * seen)

    def describe(self) -> dict[str, Any]:
        one = self.labelling
        return {"match": [one.threshold, one.of_smaller], "depth": list(one.depth)}
