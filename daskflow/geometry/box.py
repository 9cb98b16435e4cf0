"""Half-open boxes of integer voxels, zyx, and grids of blocks that tile them, computed and never enumerated."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from daskflow.errors import BoundsError, GeometryError

Zyx = tuple[int, int, int]

_STRING = re.compile(r"(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)(?:\.(?:gz|br|h5|json|npy|tif|csv|png|jpg))?$")
_THREE_INTEGERS = [int] * 3


def as_zyx(value: int | Iterable[int], *, name: str = "value") -> Zyx:
    """Return three integers zyx; a single integer, also alone in a sequence, stands for all three axes.

    Raises:
        GeometryError: not one or three integers.
    """
    if type(value) is tuple and [*map(type, value)] == _THREE_INTEGERS:
        return value
    try:
        values = list(map(operator.index, value)) if isinstance(value, Iterable) else [operator.index(value)] * 3
    except TypeError:
        raise GeometryError(f"{name} {value!r} must be integers (zyx)") from None
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise GeometryError(f"{name} {value!r} has {len(values)} numbers; give one or three (zyx)")
    return (values[0], values[1], values[2])


@dataclass(frozen=True, order=True)
class BoundingBox:
    """A half-open box of voxels of one mip, zyx; coordinates may be negative.

    A box may be empty (an axis of size zero); an inverted one is refused.

    Raises:
        GeometryError: a coordinate is not an integer, or a stop lies before its start.
    """

    start: Zyx
    stop: Zyx

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", as_zyx(self.start, name="start"))
        object.__setattr__(self, "stop", as_zyx(self.stop, name="stop"))
        if any(map(operator.lt, self.stop, self.start)):
            raise GeometryError(f"box is inverted: start {self.start} zyx lies after stop {self.stop}")

    @classmethod
    def from_size(cls, start: Sequence[int], size: Sequence[int]) -> BoundingBox:
        """Return the box that begins at `start` and spans `size` voxels (both zyx)."""
        start, size = as_zyx(start, name="start"), as_zyx(size, name="size")
        return cls(start, _each(operator.add, start, size))

    @classmethod
    def from_string(cls, text: str) -> BoundingBox:
        """Return the box that ``z0-z1_y0-y1_x0-x1`` names; a file's path before it and its ending are ignored.

        Raises:
            GeometryError: the text does not end in such a name.
        """
        match = _STRING.search(text)
        if match is None:
            raise GeometryError(f"{text!r} does not name a box; expected z0-z1_y0-y1_x0-x1")
        z0, z1, y0, y1, x0, x1 = map(int, match.groups())
        return cls((z0, y0, x0), (z1, y1, x1))

    def __str__(self) -> str:
        return "_".join(f"{a}-{b}" for a, b in zip(self.start, self.stop, strict=True))

    @property
    def shape(self) -> Zyx:
        """Voxels per axis (zyx)."""
        return _each(operator.sub, self.stop, self.start)

    @property
    def size(self) -> int:
        """Number of voxels."""
        z, y, x = self.shape
        return z * y * x

    @property
    def empty(self) -> bool:
        """Whether the box holds no voxel."""
        return self.size == 0

    def __contains__(self, other: BoundingBox) -> bool:
        return all(map(operator.le, self.start, other.start)) and all(map(operator.ge, self.stop, other.stop))

    def grow(self, before: int | Sequence[int], after: int | Sequence[int] | None = None) -> BoundingBox:
        """Return the box with `before` voxels more on the low sides and `after` (default: the same) on the high sides.

        Negative numbers shrink.
        """
        before = as_zyx(before, name="before")
        after = before if after is None else as_zyx(after, name="after")
        return BoundingBox(_each(operator.sub, self.start, before), _each(operator.add, self.stop, after))

    def shrink(self, before: int | Sequence[int], after: int | Sequence[int] | None = None) -> BoundingBox:
        """Return the box with `before` voxels less on the low sides and `after` (default: the same) on the high sides.

        Raises:
            GeometryError: nothing would be left between the two margins.
        """
        before = as_zyx(before, name="before")
        after = before if after is None else as_zyx(after, name="after")
        return BoundingBox(_each(operator.add, self.start, before), _each(operator.sub, self.stop, after))

    def clip(self, other: BoundingBox) -> BoundingBox:
        """Return the part inside `other`: an empty box, placed at its nearest corner, where they do not meet."""
        start = _each(min, _each(max, self.start, other.start), other.stop)
        stop = _each(min, _each(max, self.stop, other.start), other.stop)
        return BoundingBox(start, stop)

    def union(self, other: BoundingBox) -> BoundingBox:
        """Return the smallest box that holds both."""
        return BoundingBox(_each(min, self.start, other.start), _each(max, self.stop, other.stop))

    def shift(self, offset: Sequence[int]) -> BoundingBox:
        """Return the box moved by `offset` voxels (zyx)."""
        offset = as_zyx(offset, name="offset")
        return BoundingBox(_each(operator.add, self.start, offset), _each(operator.add, self.stop, offset))

    def coarsen(self, factor: int | Sequence[int]) -> BoundingBox:
        """Return the smallest box that covers this one, voxels `factor` times larger: floor(start/f), ceil(stop/f)."""
        factor = _positive(factor)
        return BoundingBox(
            _each(operator.floordiv, self.start, factor), _each(lambda stop, f: -(-stop // f), self.stop, factor)
        )

    def refine(self, factor: int | Sequence[int]) -> BoundingBox:
        """Return the same box in voxels that are `factor` times finer."""
        factor = _positive(factor)
        return BoundingBox(_each(operator.mul, self.start, factor), _each(operator.mul, self.stop, factor))

    def align(self, unit: int | Sequence[int], origin: Sequence[int] = (0, 0, 0)) -> BoundingBox:
        """Return the smallest box that covers this one and begins and ends on multiples of `unit` from `origin`."""
        origin = as_zyx(origin, name="origin")
        back = _each(operator.neg, origin)
        return self.shift(back).coarsen(unit).refine(unit).shift(origin)

    def slices(self, within: BoundingBox) -> tuple[slice, slice, slice]:
        """Return the slices that cut this box out of an array that holds `within`.

        Raises:
            BoundsError: this box is not inside `within`.
        """
        if self not in within:
            raise BoundsError(f"box {self} is not inside {within} (z0-z1_y0-y1_x0-x1)")
        z, y, x = (slice(a - o, b - o) for a, b, o in zip(self.start, self.stop, within.start, strict=True))
        return z, y, x


def _each(function: Callable[..., int], *axes: Sequence[int]) -> Zyx:
    z, y, x = map(function, *axes)
    return z, y, x


def _positive(factor: int | Sequence[int]) -> Zyx:
    factor = as_zyx(factor, name="factor")
    if min(factor) < 1:
        raise GeometryError(f"factor {factor} zyx must be at least 1 on every axis")
    return factor


@dataclass(frozen=True)
class BlockGrid:
    """The blocks of one size that tile a box; block *i* is arithmetic, x fastest.

        origin          box.start                       box.stop
          |---------|---:-----|---------|---------|-----:---|
                        | 0   |    1    |    2    |  3  |

    Blocks lie on multiples of `block` from `origin` and are cut to the box, so the first and last may be smaller.

    Attributes:
        box: the voxels that are tiled.
        block: voxels per block (zyx).
        origin: the corner from which blocks are counted; by default `box.start`.

    Raises:
        GeometryError: a block size below 1.
    """

    box: BoundingBox
    block: Zyx
    origin: Zyx | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", as_zyx(self.block, name="block"))
        object.__setattr__(
            self, "origin", as_zyx(self.box.start if self.origin is None else self.origin, name="origin")
        )
        if min(self.block) < 1:
            raise GeometryError(f"block {self.block} zyx must be at least 1 on every axis")

    @functools.cached_property
    def _bounds(self) -> BoundingBox:
        """The grid positions that blocks take, counted from the origin."""
        assert self.origin is not None
        if self.box.empty:
            return BoundingBox((0, 0, 0), (0, 0, 0))
        return self.box.shift(tuple(-o for o in self.origin)).coarsen(self.block)

    @functools.cached_property
    def shape(self) -> Zyx:
        """Blocks per axis (zyx)."""
        return self._bounds.shape

    @property
    def count(self) -> int:
        """Number of blocks, which `len` cannot give beyond 2**63."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.count

    def position(self, index: int) -> Zyx:
        """Return where block `index` stands in the grid (zyx), (0, 0, 0) being the first.

        Raises:
            IndexError: there is no such block.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of a grid of {len(self)} blocks")
        rest, x = divmod(index, self.shape[2])
        z, y = divmod(rest, self.shape[1])
        return z, y, x

    def index(self, position: Zyx) -> int:
        """Return the number of the block at a grid position (zyx).

        Raises:
            IndexError: there is no such block.
        """
        if not all(0 <= p < n for p, n in zip(position, self.shape, strict=True)):
            raise IndexError(f"position {position} zyx of a grid of {self.shape} blocks")
        return (position[0] * self.shape[1] + position[1]) * self.shape[2] + position[2]

    def __getitem__(self, index: int) -> BoundingBox:
        first = self._bounds.start
        at = tuple(map(operator.add, self.position(index), first))
        assert self.origin is not None
        cell = BoundingBox.from_size(at, (1, 1, 1)).refine(self.block).shift(self.origin)
        return cell.clip(self.box)

    def __iter__(self) -> Iterator[BoundingBox]:
        return (self[index] for index in range(len(self)))

    def touching(self, box: BoundingBox) -> Iterator[int]:
        """Yield the numbers of the blocks that share a voxel with `box`, in order."""
        assert self.origin is not None
        inside = box.clip(self.box)
        if inside.empty:
            return
        first = self._bounds.start
        cells = inside.shift(tuple(-o for o in self.origin)).coarsen(self.block).shift(tuple(-f for f in first))
        for z in range(cells.start[0], cells.stop[0]):
            for y in range(cells.start[1], cells.stop[1]):
                for x in range(cells.start[2], cells.stop[2]):
                    yield self.index((z, y, x))

    def coarser(self, along: int) -> BlockGrid:
        """Return the grid of boxes of so many blocks along each axis, the first block being the first of its box."""
        assert self.origin is not None
        sides = zip(self.box.start, self.origin, self.block, strict=True)
        origin = as_zyx([start - (start - origin) % step for start, origin, step in sides])
        return BlockGrid(self.box, as_zyx([step * along for step in self.block]), origin)

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Sizes of the blocks along each axis, as `dask.array` calls its chunks."""
        z, y, x = (self._sizes(axis) for axis in range(3))
        return z, y, x

    def _sizes(self, axis: int) -> tuple[int, ...]:
        assert self.origin is not None
        low, high, origin, block = self.box.start[axis], self.box.stop[axis], self.origin[axis], self.block[axis]
        if self.box.empty:
            return (high - low,)
        first, last = self._bounds.start[axis], self._bounds.stop[axis]
        edges = [min(max(origin + i * block, low), high) for i in range(first, last + 1)]
        return tuple(b - a for a, b in itertools.pairwise(edges)) or (0,)
