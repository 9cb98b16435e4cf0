"""Which block of a grid runs which patch, and what of a patch's answer blocks hand to each other.

A patch is run by the block in which what it answers for begins. So patches reach beyond upper faces of blocks alone:

        block      |------- 0 -------|------- 1 -------|          (one axis)
        patches    [====]  [====]  [====]  [====]  [====]
                       [====]  [====]  [====]  [====]
        core       |-----------------|    |------------|          patches of the block alone: it adds them up at once
        border                       |----|                       patches of lower blocks, too

The sum of floats depends on its order, which must not depend on the blocks. So what is answered for a border is kept by
patch, and added up, patch after patch in the order of the whole volume, when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from daskflow.geometry import BlockGrid, BoundingBox, Zyx, as_zyx
from daskflow.inference.patches import Patch, PatchGrid


@dataclass(frozen=True)
class Part:
    """What one patch answers for a part of the border of a block.

    Attributes:
        patch: the patch.
        sender: the block that runs it.
        box: the voxels, which are not in the core.
    """

    patch: Patch
    sender: int
    box: BoundingBox


@dataclass(frozen=True)
class Division:
    """The patches of a volume, shared out to blocks.

    Attributes:
        patches: those of the whole volume.
        blocks: over the voxels that are answered for, which patches cover.
        blended: whether a voxel has the answers of all patches that cover it, or of the one that owns it.
    """

    patches: PatchGrid
    blocks: BlockGrid
    blended: bool

    @classmethod
    def of(cls, patches: PatchGrid, box: BoundingBox, voxels: float, *, blended: bool) -> Division:
        """Return the division of a box into blocks of at most so many voxels, with whole strides on all axes."""
        strides = [axis.stride for axis in patches.axes]
        counts = _counts(strides, box.shape, voxels)
        first = (0 if blended else (axis.overlap + 1) // 2 for axis in patches.axes)
        places = zip(patches.box.start, patches.axes, first, strict=True)
        origin = [start + axis.margin + shift for start, axis, shift in places]
        block = [count * stride for count, stride in zip(counts, strides, strict=True)]
        return cls(patches, BlockGrid(box, as_zyx(block), as_zyx(origin)), blended)

    def counts(self, box: BoundingBox) -> Zyx:
        """Return how many patches along each axis (zyx) answer for a box."""
        z, y, x = (sum(1 for _ in self._reaches(axis, box.start[axis], box.stop[axis])) for axis in range(3))
        return z, y, x

    def reach(self, patch: Patch) -> BoundingBox:
        """Return the voxels that a patch answers for."""
        return (patch.output if self.blended else patch.owned).clip(self.blocks.box)

    def run_by(self, block: int) -> list[Patch]:
        """Return the patches that a block runs, x fastest."""
        return [patch for patch in self._answering(self.blocks[block]) if self._runner(patch) == block]

    def core(self, block: int) -> BoundingBox:
        """Return the voxels of a block for which no patch of another one answers."""
        box = self.blocks[block]
        start = []
        for axis in range(3):
            first, end = box.start[axis], box.stop[axis]
            lower = (stop for begin, stop in self._reaches(axis, first, end) if begin < first)
            start.append(min(end, max(lower, default=first)))
        return BoundingBox(as_zyx(start), box.stop)

    def beside(self, block: int) -> list[BoundingBox]:
        """Return boxes that hold the border of a block: what it has beside its core."""
        return _without(self.blocks[block], self.core(block))

    def parts(self, block: int) -> Iterator[Part]:
        """Yield what patches answer for the border of a block: in the order of the patches, for each part of it."""
        for border in self.beside(block):
            for patch in self._answering(border):
                yield Part(patch, self._runner(patch), self.reach(patch).clip(border))

    def receivers(self, patches: Sequence[Patch]) -> list[int]:
        """Return the blocks for which the patches of one block answer."""
        if not patches:
            return []
        return list(self.blocks.touching(self.reach(patches[0]).union(self.reach(patches[-1]))))

    def _answering(self, box: BoundingBox) -> Iterator[Patch]:
        return (patch for patch in self.patches.patches(box) if not self.reach(patch).clip(box).empty)

    def _runner(self, patch: Patch) -> int:
        (block,) = self.blocks.touching(BoundingBox.from_size(self.reach(patch).start, (1, 1, 1)))
        return block

    def _reaches(self, axis: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield from where to where, on an axis, each of the patches answers that answer for [start, stop)."""
        side, origin = self.patches.axes[axis], self.patches.box.start[axis]
        low, high = self.blocks.box.start[axis], self.blocks.box.stop[axis]
        for index in side.touching(start - origin, stop - origin):
            begin = side.output_start(index)
            begin, end = (begin, begin + side.output) if self.blended else side.owned(index)
            begin, end = max(begin + origin, low), min(end + origin, high)
            if begin < stop and end > start:
                yield begin, end


def _counts(strides: Sequence[int], shape: Zyx, voxels: float) -> list[int]:
    """Return how many strides a block has along each axis: as many on all as far as the volume goes, at least one."""
    counts = [1, 1, 1]
    while growing := [axis for axis in range(3) if counts[axis] * strides[axis] < shape[axis]]:
        longer = counts.copy()
        longer[min(growing, key=lambda axis: counts[axis])] += 1
        if math.prod(map(min, (c * s for c, s in zip(longer, strides, strict=True)), shape)) > voxels:
            break
        counts = longer
    return counts


def _without(box: BoundingBox, core: BoundingBox) -> list[BoundingBox]:
    """Return boxes that hold what a box has beside a core at its upper end."""
    found, rest = [], box
    for axis in range(3):
        stop, start = list(rest.stop), list(rest.start)
        stop[axis] = start[axis] = core.start[axis]
        found.append(BoundingBox(rest.start, as_zyx(stop)))
        rest = BoundingBox(as_zyx(start), rest.stop)
    return [one for one in found if not one.empty]
