"""Where the patches of a network lie: arithmetic on the box of the volume, never on that of a block."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from daskflow.errors import BoundsError, ParameterError
from daskflow.geometry import BoundingBox, Zyx, as_zyx

Offsets = tuple[int, ...]

VOXEL_FOR_VOXEL = (
    "Answers are placed voxel for voxel, for the whole input patch or its middle: a network that answers at another"
    " resolution must resample to that of its input, e.g. with torch.nn.functional.interpolate in post_process"
)


@dataclass(frozen=True)
class PatchAxis:
    """The patches along one axis, in voxels from the volume's start.

        volume    |----------------------------------|
        input     [=====0=====]                         input: 13
        output      [---0---]                           output: 9, margin 2 on both sides
        output           [---1---]                      stride = output - overlap
        output                     ...     [---n---]    the last one is moved back to end with the volume

    A volume shorter than the input patch has one patch, centred on it, that reaches beyond both ends.

    Attributes:
        size: voxels of the volume.
        input: voxels the network sees.
        output: voxels it returns, from the middle of those it sees.
        overlap: voxels that neighbouring outputs share.
    """

    size: int
    input: int
    output: int
    overlap: int

    @property
    def stride(self) -> int:
        """Voxels from one patch to the next."""
        return self.output - self.overlap

    @property
    def margin(self) -> int:
        """Voxels of the input before the output."""
        return (self.input - self.output) // 2

    def __len__(self) -> int:
        return 1 + max(0, -(-(self.size - self.input) // self.stride))

    def start(self, index: int) -> int:
        """Return where the input of a patch begins."""
        if self.size < self.input:
            return -((self.input - self.size) // 2)
        return min(index * self.stride, self.size - self.input)

    def output_start(self, index: int) -> int:
        """Return where the output of a patch begins."""
        return self.start(index) + self.margin

    @property
    def covered(self) -> tuple[int, int]:
        """The voxels of the volume that patches answer for: from, to."""
        return max(0, self.output_start(0)), min(self.size, self.output_start(len(self) - 1) + self.output)

    def owned(self, index: int) -> tuple[int, int]:
        """Return the voxels that lie deeper in a patch's output than in any other: from, to.

        A voxel halfway between the middles of two patches is the lower one's.
        """
        start, stop = self.covered
        if index > 0:
            start = self._turn(index - 1)
        if index < len(self) - 1:
            stop = self._turn(index)
        return start, stop

    def _turn(self, index: int) -> int:
        """Return the first voxel that lies deeper in the next patch than in this one."""
        return (self.output_start(index) + self.output_start(index + 1) + self.output + 1) // 2

    def touching(self, start: int, stop: int) -> range:
        """Return the patches whose output shares a voxel with [start, stop)."""
        last = len(self) - 1
        first = max(0, (start - self.margin - self.output) // self.stride + 1)
        end = min(last, (stop - 1 - self.margin) // self.stride + 1)
        if self.output_start(last) < stop and self.output_start(last) + self.output > start:
            end = last + 1
        return range(min(first, last), end)

    def neighbours(self, index: int) -> Offsets:
        """Return how far the outputs that overlap with a patch's are from it, itself included, in order."""
        here = self.output_start(index)
        return tuple(self.output_start(i) - here for i in self.touching(here, here + self.output))


@dataclass(frozen=True)
class Patch:
    """One patch.

    Attributes:
        input: what the network sees; beyond the volume where that is smaller than a patch.
        output: what it answers for.
        owned: the voxels of the volume that lie deeper in its output than in any other.
        neighbours: how far the outputs that overlap with this one are from it, for each axis (zyx).
    """

    input: BoundingBox
    output: BoundingBox
    owned: BoundingBox
    neighbours: tuple[Offsets, Offsets, Offsets]


@dataclass(frozen=True)
class PatchGrid:
    """The patches of a volume, counted from its start: the same whatever the blocks of work.

    Attributes:
        box: the volume's voxels.
        input_patch: voxels a network sees (zyx).
        output_patch: voxels it returns, from the middle of those it sees (zyx).
        overlap: voxels that neighbouring outputs share (zyx).
    """

    box: BoundingBox
    input_patch: Zyx
    output_patch: Zyx
    overlap: Zyx

    def __post_init__(self) -> None:
        for name in ("input_patch", "output_patch", "overlap"):
            object.__setattr__(self, name, as_zyx(getattr(self, name), name=name))
        if self.box.empty:
            raise ParameterError(f"box {self.box} holds no voxel to put patches on")
        if not all(1 <= o <= i for i, o in zip(self.input_patch, self.output_patch, strict=True)):
            raise ParameterError(
                f"output patch {self.output_patch} zyx must be within 1 and the input patch {self.input_patch}."
                f" {VOXEL_FOR_VOXEL}"
            )
        if not all(0 <= v < o for v, o in zip(self.overlap, self.output_patch, strict=True)):
            raise ParameterError(
                f"output_patch_overlap {self.overlap} zyx must be at least 0 and smaller than the output patch,"
                f" {self.output_patch}"
            )

    @functools.cached_property
    def axes(self) -> tuple[PatchAxis, PatchAxis, PatchAxis]:
        """The patches along z, y and x."""
        z, y, x = map(PatchAxis, self.box.shape, self.input_patch, self.output_patch, self.overlap)
        return z, y, x

    def __len__(self) -> int:
        return math.prod(len(axis) for axis in self.axes)

    @functools.cached_property
    def covered(self) -> BoundingBox:
        """The voxels of the volume that patches answer for: all, unless outputs are smaller than inputs."""
        start, stop = zip(*(axis.covered for axis in self.axes), strict=True)
        return BoundingBox(start, stop).shift(self.box.start)

    def patches(self, box: BoundingBox) -> Iterator[Patch]:
        """Yield the patches whose output shares a voxel with `box`, x fastest."""
        ranges = self._touching(box)
        sides = [[self._side(axis, index) for index in range_] for axis, range_ in zip((0, 1, 2), ranges, strict=True)]
        for z, y, x in itertools.product(*sides):
            inner = BoundingBox.from_size((z[0], y[0], x[0]), self.input_patch)
            outer = BoundingBox.from_size((z[1], y[1], x[1]), self.output_patch)
            owned = BoundingBox((z[2][0], y[2][0], x[2][0]), (z[2][1], y[2][1], x[2][1]))
            yield Patch(inner, outer, owned, (z[3], y[3], x[3]))

    def reads(self, box: BoundingBox) -> BoundingBox:
        """Return the voxels of the volume that the patches of `box` see."""
        if box.empty:
            return box.clip(self.box)
        ranges = self._touching(box)
        start = [axis.start(r[0]) for axis, r in zip(self.axes, ranges, strict=True)]
        stop = [axis.start(r[-1]) + axis.input for axis, r in zip(self.axes, ranges, strict=True)]
        return BoundingBox(as_zyx(start), as_zyx(stop)).shift(self.box.start).clip(self.box)

    def _touching(self, box: BoundingBox) -> tuple[range, range, range]:
        if box not in self.covered:
            raise BoundsError(f"box {box} is not inside {self.covered}, which the patches cover (z0-z1_y0-y1_x0-x1)")
        z, y, x = (
            axis.touching(start - origin, stop - origin)
            for axis, start, stop, origin in zip(self.axes, box.start, box.stop, self.box.start, strict=True)
        )
        return z, y, x

    def _side(self, axis: int, index: int) -> tuple[int, int, tuple[int, int], Offsets]:
        patches, origin = self.axes[axis], self.box.start[axis]
        start, stop = patches.owned(index)
        return (
            patches.start(index) + origin,
            patches.output_start(index) + origin,
            (start + origin, stop + origin),
            patches.neighbours(index),
        )
