"""The passes of a labelling: label blocks, join their components box by box, number them, pass the numbers on.

    blocks        label each
    groups of 64  match seams │      ▲ number components
    64 groups     join seams  │      │ number components
    ...                       ▼      │
    the volume    join seams ─► number ─► number components

On the way down a box knows which of its parts are components, and on the way up it receives the numbers of the others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, Zyx
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.operators.segmentation.connected_components.blocks import (
    Components,
    Foreground,
    Joined,
    Names,
    join,
    join_boxes,
    label_block,
    later_neighbours,
    touching_pairs,
)
from daskflow.operators.segmentation.connected_components.scratch import LabelledStore, Labelling
from daskflow.scratch.records import Arrays
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage, Task, Volume, in_order

Array = npt.NDArray[Any]

# low, so that no job is refused that would run: 2^21 voxels of EM hold about 100 pieces of neurons, and their faces
# pass through one for 400 voxels
_PIECE_VOXELS = 2**21 // 100
_FACE_VOXELS = 1000
_PIECE_BYTES = 300  # at the peak of joining: where it begins, the pairs it is in, and what sorts them


@dataclass(frozen=True)
class LabelBlocks(Consumer):
    """Label every block by itself."""

    labelling: Labelling

    @property
    def grid(self) -> BlockGrid:
        return self.labelling.grid

    def compute(self, box: BoundingBox, arrays: list[Array]) -> tuple[Array, Components]:
        """Return the number of each voxel's component in the block, 0 being none, and the components."""
        raise NotImplementedError

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
        kvstore.check_writable(self.labelling.scope.url)

    def describe(self) -> dict[str, Any]:
        return {"dust": self.labelling.dust, "connectivity": self.labelling.connectivity}

    def before_seams(self) -> tuple[Stage, ...]:
        """Return the passes that the seams need to be matched; none by default."""
        return ()


@dataclass(frozen=True)
class LabelForeground(LabelBlocks):
    """Label components of voxels that are alike."""

    foreground: Foreground

    def compute(self, box: BoundingBox, arrays: list[Array]) -> tuple[Array, Components]:
        mask = self.foreground.mask(arrays[0].reshape(box.shape))
        one = self.labelling
        return label_block(mask, box, one.grid.box, one.connectivity, sized=one.dust > 0)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"foreground": self.foreground.bounds}


@dataclass(frozen=True)
class _BoxTask(Task):
    """Works on what lies in one box of a level, from 0."""

    labelling: Labelling
    level: int

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        """Guess the memory, which only labelling the blocks would show: that of pieces on both sides of all faces."""
        levels, whole = self.labelling.levels, self.labelling.grid.box
        shape = [min(sides) for sides in zip(levels[self.level].block, whole.shape, strict=True)]
        pieces = math.prod(shape) // _PIECE_VOXELS
        if self.level:
            sides = zip(shape, levels[self.level - 1].block, strict=True)
            pieces = 2 * sum(-(-one // step) * math.prod(shape) // one for one, step in sides) // _FACE_VOXELS
        return Estimate(memory=pieces * _PIECE_BYTES)

    def describe(self) -> dict[str, Any]:
        return {"connectivity": self.labelling.connectivity, "dust": self.labelling.dust, "level": self.level}


class _Joining(_BoxTask):
    """Joins the parts in a box that are one."""

    def write(self, box: BoundingBox, outputs: Joined) -> BlockResult:
        labelling, level = self.labelling, self.level
        (index,) = labelling.levels[level].touching(box)
        labelling.write(f"parts-{level}", index, outputs.parts)
        labelling.write(f"open-{level}", index, outputs.open)
        labelling.numbering.write(labelling.box_number(level, index), outputs.whole)
        return BlockResult()


class MatchSeams(_Joining):
    """Join, for every group of blocks, the components of neighbouring blocks that are one."""

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

    def compute(self, box: BoundingBox, inputs: dict[int, Components]) -> Joined:
        members = {block: inputs[block] for block in self.labelling.grid.touching(box)}
        starts = np.cumsum([0, *(one.count for one in members.values())])
        begin = dict(zip(members, starts.tolist(), strict=False))
        nothing = np.empty(0, np.int64)
        inner, out, outside = [np.empty((0, 2), np.int64)], [nothing], [nothing]
        for a, b, step in self._pairs_of_blocks(box):
            found = touching_pairs(inputs[a], inputs[b], step, self.labelling.connectivity).astype(np.int64) - 1
            if b in begin:
                inner.append(found + np.array([begin[a], begin[b]]))
            else:
                out.append(found[:, 0] + begin[a])
                outside.append(inputs[b].firsts[found[:, 1]])
        border = np.concatenate([_at_border(one, self.labelling.grid[block], box) for block, one in members.items()])
        firsts = np.concatenate([one.firsts for one in members.values()])
        sizes = np.concatenate([nothing, *(one.sizes for one in members.values() if one.sizes is not None)])
        pairs, ends, names = (np.concatenate(found) for found in (inner, out, outside))
        joined = join(firsts, pairs, sizes, border, (ends, names), self.labelling.dust)
        return replace(joined, parts=joined.parts | {"starts": starts})

    def estimate(self, box: BoundingBox) -> Estimate:
        z, y, x = self.labelling.grid.block
        blocks = len(list(self.labelling.grid.touching(box.grow(1).clip(self.labelling.grid.box))))
        planes = blocks * 2 * (z * y + z * x + y * x) * 4
        return Estimate(bytes_read=planes, memory=2 * planes + super().estimate(box).memory)


class JoinSeams(_Joining):
    """Join, for every box of a level, the parts of the boxes within it that are one."""

    def read(self, box: BoundingBox) -> list[Arrays]:
        within = self.labelling.levels[self.level - 1].touching(box)
        return self.labelling.read(f"open-{self.level - 1}", within)

    def compute(self, box: BoundingBox, inputs: list[Arrays]) -> Joined:
        grid = self.labelling.grid
        return join_boxes(inputs, box, grid.box, grid.block, self.labelling.dust)


@dataclass(frozen=True)
class NumberComponents(_BoxTask):
    """Number, for every box of a level, what its parts were joined from."""

    dtype: np.dtype[Any]

    @property
    def _last(self) -> bool:
        return self.level == len(self.labelling.levels) - 1

    def read(self, box: BoundingBox) -> tuple[Arrays, Names, Array, int]:
        labelling, level = self.labelling, self.level
        (index,) = labelling.levels[level].touching(box)
        (parts,) = labelling.read(f"parts-{level}", [index])
        count = int(np.count_nonzero(parts["whole"]))
        numbers = labelling.numbering.numbers(labelling.box_number(level, index), count)
        if self._last:
            return parts, numbers, np.empty(0, self.dtype), labelling.numbering.total(count)
        (handed,) = labelling.read(f"open-{level}", [index])
        (above,) = labelling.read(f"numbers-{level + 1}", labelling.levels[level + 1].touching(box))
        return parts, numbers, above["numbers"][np.searchsorted(above["names"], handed["firsts"])], 0

    def compute(self, box: BoundingBox, inputs: tuple[Arrays, Names, Array, int]) -> tuple[Arrays, int]:  # noqa: ARG002
        parts, whole, rest, total = inputs
        if total > np.iinfo(self.dtype).max:
            raise ParameterError(
                f"there are {total:,} components, and {self.dtype} holds {np.iinfo(self.dtype).max:,};"
                " delete the output and leave dtype= out, or pass dtype='uint64'"
            )
        numbers = np.zeros(len(parts["open"]), self.dtype)
        numbers[parts["whole"]] = whole
        numbers[parts["open"]] = rest
        kept = {name: parts[name] for name in parts.keys() & {"starts", "names"}}
        return kept | {"numbers": numbers[parts["part_of"]]}, total

    def write(self, box: BoundingBox, outputs: tuple[Arrays, int]) -> BlockResult:
        (index,) = self.labelling.levels[self.level].touching(box)
        self.labelling.write(f"numbers-{self.level}", index, outputs[0])
        return BlockResult(counts={"components": outputs[1]} if self._last else {})

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"dtype": self.dtype.name}


def labelled(blocks: LabelBlocks, expression: Expression, spec: VolumeSpec) -> Volume:
    """Return the volume, of that description, that waits for the labelling of what an expression gives."""
    stages = labelling_stages(blocks, expression, spec.dtype)
    store = functools.partial(LabelledStore, spec=spec)
    volume = Volume.waiting(spec, store, blocks.labelling, (*expression.stages, *stages))
    return volume.with_block(blocks.labelling.grid.block)


def labelling_stages(blocks: LabelBlocks, expression: Expression, dtype: np.dtype[Any]) -> tuple[Stage, ...]:
    """Return the stages of a labelling, in order; arguments as in their tasks."""
    labelling = blocks.labelling
    levels = list(enumerate(labelling.levels))
    names = ["number-components", *(f"number-components-{level}" for level, _ in levels[1:])]
    stages = (
        Stage("label-components", labelling.grid, EvaluateVolumes.into(expression, blocks)),
        *blocks.before_seams(),
        Stage("match-seams", labelling.levels[0], MatchSeams(labelling, 0)),
        *(Stage(f"join-seams-{level}", grid, JoinSeams(labelling, level)) for level, grid in levels[1:]),
        *labelling.numbering.stages(),
        *(Stage(names[level], grid, NumberComponents(labelling, level, dtype)) for level, grid in reversed(levels)),
    )
    return in_order(stages, after=expression.stages)


def _at_border(components: Components, block: BoundingBox, box: BoundingBox) -> npt.NDArray[np.bool_]:
    """Return which components of a block lie at a side where the box around it ends and the volume goes on."""
    found = np.zeros(components.count + 1, bool)
    for (axis, side), plane in components.planes.items():
        if (block.stop[axis] == box.stop[axis]) if side else (block.start[axis] == box.start[axis]):
            found[plane] = True
    return found[1:]
