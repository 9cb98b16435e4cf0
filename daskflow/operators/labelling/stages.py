"""The three passes of a labelling: label blocks, match seams, number the whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import daskflow
from daskflow.geometry import BlockGrid, BoundingBox, Zyx
from daskflow.operators.labelling.blocks import Components, Foreground, label_block
from daskflow.operators.labelling.merging import number_components
from daskflow.operators.labelling.scratch import Labelling, Seams
from daskflow.operators.labelling.seams import later_neighbours, touching_pairs
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage
from daskflow.volume.expression import Fetched

Array = npt.NDArray[Any]

# per block, and low, so that no job is refused that would run: 2^23 voxels of EM hold about 300 pieces of neurons,
# 1600 supervoxels, and few components of a sparse mask
_COMPONENTS = 100
_COMPONENT_BYTES = 100  # at the peak of numbering: where it begins, the pairs it is in, and what sorts them


@dataclass(frozen=True)
class LabelBlocks:
    """Label every block by itself.

    Attributes:
        labelling: blocks and scratch data.
        expression: gives the voxels; one output.
        foreground: which voxels are labelled.
    """

    labelling: Labelling
    expression: Expression
    foreground: Foreground

    def read(self, box: BoundingBox) -> Fetched:
        return self.expression.fetch_counted([box])

    def compute(self, box: BoundingBox, inputs: Fetched) -> tuple[Array, Components, dict[str, int]]:
        (array,), counts = self.expression.compute_counted([box], inputs)
        mask = self.foreground.mask(array.reshape(box.shape))
        one = self.labelling
        labels, components = label_block(mask, box, one.grid.box, one.connectivity, sized=one.dust > 0)
        return labels, components, counts

    def write(self, box: BoundingBox, outputs: tuple[Array, Components, dict[str, int]]) -> BlockResult:
        labels, components, counts = outputs
        (block,) = self.labelling.grid.touching(box)
        if components.count:
            self.labelling.write_labels(block, labels)
        self.labelling.write_components(block, components)
        return BlockResult(empty=not components.count, counts=counts)

    def estimate(self, box: BoundingBox) -> Estimate:
        source = self.expression.estimate([box])
        labels = box.size * 4
        return dataclasses.replace(source, bytes_written=labels, memory=source.memory + box.size + 2 * labels)

    def check(self) -> None:
        self.expression.check()
        assert self.labelling.url is not None
        kvstore.check_writable(self.labelling.url)

    def describe(self) -> dict[str, Any]:
        return {
            "daskflow": daskflow.__version__,
            "expression": self.expression.describe(),
            "foreground": self.foreground.bounds,
            "dust": self.labelling.dust,
            "connectivity": self.labelling.connectivity,
        }

    def bind(self, directory: str) -> LabelBlocks:
        return LabelBlocks(self.labelling.bound(directory), self.expression.bind(directory), self.foreground)


@dataclass(frozen=True)
class MatchSeams:
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

    def compute(self, box: BoundingBox, inputs: dict[int, Components]) -> Seams:
        connectivity = self.labelling.connectivity
        members = [inputs[block] for block in self.labelling.grid.touching(box)]
        links, pairs = [], [np.empty((0, 2), np.uint32)]
        for a, b, step in self._pairs_of_blocks(box):
            found = touching_pairs(inputs[a], inputs[b], step, connectivity)
            if len(found):
                links.append((a, b, len(found)))
                pairs.append(found)
        return Seams(
            np.array([m.count for m in members], np.int64),
            np.concatenate([m.firsts for m in members]),
            np.array(links, np.int64).reshape(-1, 3),
            np.concatenate(pairs),
            np.concatenate([np.empty(0, np.int64), *(m.sizes for m in members if m.sizes is not None)]),
        )

    def write(self, box: BoundingBox, outputs: Seams) -> BlockResult:
        (group,) = self.labelling.groups.touching(box)
        self.labelling.write_seams(group, outputs)
        return BlockResult()

    def estimate(self, box: BoundingBox) -> Estimate:
        z, y, x = self.labelling.grid.block
        blocks = len(list(self.labelling.grid.touching(box.grow(1).clip(self.labelling.grid.box))))
        planes = blocks * 2 * (z * y + z * x + y * x) * 4
        return Estimate(bytes_read=planes, memory=2 * planes)

    def check(self) -> None:
        """Nothing can fail that labelling the blocks has not met."""

    def describe(self) -> dict[str, Any]:
        return {"labelling": self.labelling.key}

    def bind(self, directory: str) -> MatchSeams:
        return MatchSeams(self.labelling.bound(directory))


@dataclass(frozen=True)
class NumberComponents:
    """Number the components of the whole volume; the one block is the volume.

    Attributes:
        labelling: blocks and scratch data.
        dtype: of the numbers.
    """

    labelling: Labelling
    dtype: np.dtype[Any]

    def read(self, box: BoundingBox) -> list[Seams]:  # noqa: ARG002
        return self.labelling.read_seams()

    def compute(self, box: BoundingBox, inputs: list[Seams]) -> tuple[list[Array], list[Array], int]:  # noqa: ARG002
        counts = [seams.counts for seams in inputs]
        members = np.concatenate([np.array(self.labelling.members(group), np.int64) for group in range(len(inputs))])
        ends = np.cumsum(np.concatenate(counts))
        begins = np.empty(len(members), np.int64)
        begins[members] = ends - np.concatenate(counts)
        links = np.concatenate([seams.links for seams in inputs])
        pairs = np.concatenate([seams.pairs for seams in inputs]).astype(np.int64) - 1
        pairs += np.repeat(begins[links[:, :2]], links[:, 2], axis=0)
        firsts, sizes = (np.concatenate([getattr(s, name) for s in inputs]) for name in ("firsts", "sizes"))
        numbers, total = number_components(firsts, pairs, self.dtype, sizes, self.labelling.dust)
        of_group = np.split(numbers, np.cumsum([len(s.firsts) for s in inputs])[:-1])
        return [np.concatenate(([0], np.cumsum(c))) for c in counts], of_group, total

    def write(self, box: BoundingBox, outputs: tuple[list[Array], list[Array], int]) -> BlockResult:  # noqa: ARG002
        for group, (starts, numbers) in enumerate(zip(outputs[0], outputs[1], strict=True)):
            self.labelling.write_numbers(group, starts, numbers)
        return BlockResult(counts={"components": outputs[2]})

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        """Guess the memory, which only labelling the blocks would tell: that of 100 components in every block."""
        return Estimate(memory=len(self.labelling.grid) * _COMPONENTS * _COMPONENT_BYTES)

    def check(self) -> None:
        """Nothing can fail that labelling the blocks has not met."""

    def describe(self) -> dict[str, Any]:
        return {"labelling": self.labelling.key, "dtype": self.dtype.name}

    def bind(self, directory: str) -> NumberComponents:
        return NumberComponents(self.labelling.bound(directory), self.dtype)


def labelling_stages(
    labelling: Labelling, expression: Expression, foreground: Foreground, dtype: np.dtype[Any]
) -> tuple[Stage, Stage, Stage]:
    """Return the stages of a labelling, in order; arguments as in their tasks."""
    box = labelling.grid.box
    whole = BlockGrid(box, box.shape)
    return (
        Stage("label-components", labelling.grid, LabelBlocks(labelling, expression, foreground)),
        Stage("match-seams", labelling.groups, MatchSeams(labelling)),
        Stage("number-components", whole, NumberComponents(labelling, dtype)),
    )
