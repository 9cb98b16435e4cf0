"""The passes of a labelling: label blocks, match the seams within and between groups of them, number the whole.

blocks   label each ──► groups of 64: which components are one ──► between groups ──► number the components of groups
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox, Zyx
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.operators.segmentation.connected_components.blocks import Components, Foreground, label_block
from daskflow.operators.segmentation.connected_components.numbering import leaders, number_components
from daskflow.operators.segmentation.connected_components.scratch import Joins, Labelling, Parts, Seams
from daskflow.operators.segmentation.connected_components.seams import later_neighbours, touching_pairs
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage, Task, in_order

Array = npt.NDArray[Any]

# per block, and low, so that no job is refused that would run: 2^21 voxels of EM hold about 100 pieces of neurons, of
# which those in one group of blocks that are one count once, and few components of a sparse mask
_PIECES = 100
_COMPONENTS = 10
_COMPONENT_BYTES = 100  # at the peak of numbering: where it begins, the pairs it is in, and what sorts them


@dataclass(frozen=True)
class LabelBlocks(Consumer):
    """Label every block by itself.

    Attributes:
        labelling: blocks and scratch data.
        foreground: which voxels are labelled.
    """

    labelling: Labelling
    foreground: Foreground

    @property
    def grid(self) -> BlockGrid:
        return self.labelling.grid

    def compute(self, box: BoundingBox, arrays: list[Array]) -> tuple[Array, Components]:
        mask = self.foreground.mask(arrays[0].reshape(box.shape))
        one = self.labelling
        return label_block(mask, box, one.grid.box, one.connectivity, sized=one.dust > 0)

    def write(self, box: BoundingBox, outputs: tuple[Array, Components]) -> BlockResult:
        labels, components = outputs
        (block,) = self.labelling.grid.touching(box)
        if components.count:
            self.labelling.write_labels(block, labels)
        self.labelling.write_components(block, components)
        return BlockResult(empty=not components.count)

    def further(self, box: BoundingBox) -> Estimate:
        labels = box.size * 4
        return Estimate(bytes_written=labels, memory=box.size + 2 * labels)

    def check(self) -> None:
        assert self.labelling.url is not None
        kvstore.check_writable(self.labelling.url)

    def describe(self) -> dict[str, Any]:
        return {
            "foreground": self.foreground.bounds,
            "dust": self.labelling.dust,
            "connectivity": self.labelling.connectivity,
        }


@dataclass(frozen=True)
class MatchSeams(Task):
    """Find, for every group of blocks, which components of neighbouring blocks are one.

    Attributes:
        labelling: blocks and scratch data.
    """

    labelling: Labelling

    def _pairs_of_blocks(self, box: BoundingBox) -> Iterator[tuple[int, int, Zyx]]:
        grid = self.labelling.grid
        for block in grid.touching(box):
            place = grid.position(block)
            for step in later_neighbours(self.labelling.connectivity):
                z, y, x = (p + s for p, s in zip(place, step, strict=True))
                if all(0 <= p < n for p, n in zip((z, y, x), grid.shape, strict=True)):
                    yield block, grid.index((z, y, x)), step

    def read(self, box: BoundingBox) -> dict[int, Components]:
        blocks = set(self.labelling.grid.touching(box)) | {b for _, b, _ in self._pairs_of_blocks(box)}
        return self.labelling.read_components(sorted(blocks))

    def compute(self, box: BoundingBox, inputs: dict[int, Components]) -> tuple[Seams, Parts]:
        members = list(self.labelling.grid.touching(box))
        place = {block: index for index, block in enumerate(members)}
        starts = np.cumsum([0, *(inputs[block].count for block in members)])
        links, pairs, inner = [], [np.empty((0, 2), np.uint32)], [np.empty((0, 2), np.int64)]
        for a, b, step in self._pairs_of_blocks(box):
            found = touching_pairs(inputs[a], inputs[b], step, self.labelling.connectivity)
            if b in place:
                inner.append(found.astype(np.int64) - 1 + starts[[place[a], place[b]]])
            elif len(found):
                links.append((a, b, len(found)))
                pairs.append(found)
        firsts = np.concatenate([inputs[block].firsts for block in members])
        leader = leaders(firsts, np.concatenate(inner))
        roots = np.flatnonzero(leader == np.arange(len(firsts)))
        part_of = np.searchsorted(roots, leader)
        known = [sizes for block in members if (sizes := inputs[block].sizes) is not None]
        sizes = np.zeros(len(roots) if known else 0, np.int64)
        if known:
            np.add.at(sizes, part_of, np.concatenate(known))
        links_found = np.array(links, np.int64).reshape(-1, 3)
        seams = Seams(starts, part_of.astype(np.uint32), links_found, np.concatenate(pairs))
        return seams, Parts(firsts[roots], sizes)

    def write(self, box: BoundingBox, outputs: tuple[Seams, Parts]) -> BlockResult:
        (group,) = self.labelling.groups.touching(box)
        self.labelling.write_seams(group, outputs[0])
        self.labelling.write_parts(group, outputs[1])
        return BlockResult()

    def estimate(self, box: BoundingBox) -> Estimate:
        z, y, x = self.labelling.grid.block
        blocks = len(list(self.labelling.grid.touching(box.grow(1).clip(self.labelling.grid.box))))
        planes = blocks * 2 * (z * y + z * x + y * x) * 4
        return Estimate(bytes_read=planes, memory=2 * planes)

    def describe(self) -> dict[str, Any]:
        return {"labelling": self.labelling.key}


@dataclass(frozen=True)
class JoinGroups(Task):
    """Find, for every group of blocks, which of its components are one with those of the groups behind it.

    Attributes:
        labelling: blocks and scratch data.
    """

    labelling: Labelling

    def read(self, box: BoundingBox) -> dict[int, Seams]:
        (group,) = self.labelling.groups.touching(box)
        known = self.labelling.read_seams([group])
        others = {self.labelling.group_of(int(block))[0] for block in known[group].links[:, 1]}
        return known | self.labelling.read_seams(sorted(others))

    def compute(self, box: BoundingBox, inputs: dict[int, Seams]) -> Joins:
        (group,) = self.labelling.groups.touching(box)
        mine = inputs[group]
        found: dict[int, list[Array]] = {}
        ends = np.cumsum(mine.links[:, 2])
        for (a, b, count), end in zip(mine.links.tolist(), ends.tolist(), strict=True):
            pairs = mine.pairs[end - count : end].astype(np.int64) - 1
            other, place = self.labelling.group_of(b)
            here = mine.part_of[mine.starts[self.labelling.group_of(a)[1]] + pairs[:, 0]]
            there = inputs[other].part_of[inputs[other].starts[place] + pairs[:, 1]]
            found.setdefault(other, []).append(np.stack((here, there), axis=1))
        joined = {other: np.unique(np.concatenate(parts), axis=0) for other, parts in sorted(found.items())}
        links = np.array([(other, len(pairs)) for other, pairs in joined.items()], np.int64).reshape(-1, 2)
        return Joins(links, np.concatenate([np.empty((0, 2), np.uint32), *joined.values()]))

    def write(self, box: BoundingBox, outputs: Joins) -> BlockResult:
        (group,) = self.labelling.groups.touching(box)
        self.labelling.write_joins(group, outputs)
        return BlockResult()

    def estimate(self, box: BoundingBox) -> Estimate:
        blocks = 8 * len(list(self.labelling.grid.touching(box)))
        return Estimate(memory=blocks * _PIECES * _COMPONENT_BYTES)

    def describe(self) -> dict[str, Any]:
        return {"labelling": self.labelling.key, "joined": "groups"}


@dataclass(frozen=True)
class NumberComponents(Task):
    """Number the components of the whole volume; the one block is the volume.

    Attributes:
        labelling: blocks and scratch data.
        dtype: of the numbers.
    """

    labelling: Labelling
    dtype: np.dtype[Any]

    def read(self, box: BoundingBox) -> tuple[list[Parts], list[Joins]]:  # noqa: ARG002
        return self.labelling.read_parts(), self.labelling.read_joins()

    def compute(self, box: BoundingBox, inputs: tuple[list[Parts], list[Joins]]) -> tuple[list[Array], int]:  # noqa: ARG002
        parts, joins = inputs
        begins = np.cumsum([0, *(len(part.firsts) for part in parts)])
        pairs = np.concatenate([join.pairs for join in joins]).astype(np.int64)
        groups = [np.stack((np.full(len(j.links), group), j.links[:, 0]), axis=1) for group, j in enumerate(joins)]
        counts = np.concatenate([join.links[:, 1] for join in joins])
        pairs += np.repeat(begins[np.concatenate(groups)], counts, axis=0)
        firsts, sizes = (np.concatenate([getattr(part, name) for part in parts]) for name in ("firsts", "sizes"))
        numbers, total = number_components(firsts, pairs, self.dtype, sizes, self.labelling.dust)
        return np.split(numbers, begins[1:-1]), total

    def write(self, box: BoundingBox, outputs: tuple[list[Array], int]) -> BlockResult:  # noqa: ARG002
        for group, numbers in enumerate(outputs[0]):
            self.labelling.write_numbers(group, numbers)
        return BlockResult(counts={"components": outputs[1]})

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        """Guess the memory, which only labelling the blocks would tell: that of 10 components for every block."""
        return Estimate(memory=len(self.labelling.grid) * _COMPONENTS * _COMPONENT_BYTES)

    def describe(self) -> dict[str, Any]:
        return {"labelling": self.labelling.key, "dtype": self.dtype.name}


def labelling_stages(
    labelling: Labelling, expression: Expression, foreground: Foreground, dtype: np.dtype[Any]
) -> tuple[Stage, ...]:
    """Return the stages of a labelling, in order; arguments as in their tasks."""
    box = labelling.grid.box
    whole = BlockGrid(box, box.shape)
    stages = (
        Stage("label-components", labelling.grid, EvaluateVolumes.into(expression, LabelBlocks(labelling, foreground))),
        Stage("match-seams", labelling.groups, MatchSeams(labelling)),
        Stage("join-groups", labelling.groups, JoinGroups(labelling)),
        Stage("number-components", whole, NumberComponents(labelling, dtype)),
    )
    return in_order(stages, after=expression.stages)
