"""Coordinates and boxes as plugin files written for chunkflow expect them."""

from __future__ import annotations

import itertools
import math
import operator
from collections import UserList
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any, NamedTuple

from daskflow.geometry import BoundingBox as Box


class _Numbers(NamedTuple):
    z: Any
    y: Any
    x: Any


def _three(other: Any) -> Sequence[Any]:
    return (other,) * 3 if isinstance(other, Number) else tuple(other)


def _each(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Cartesian]:
    """Return arithmetic of coordinates with a number or three."""
    return lambda own, other: Cartesian(*map(function, own, _three(other)))


def _all(function: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Return a comparison that holds if it does on every axis."""
    return lambda own, other: len(_three(other)) == 3 and all(map(function, own, _three(other)))


class Cartesian(_Numbers):
    """Three numbers z, y, x; arithmetic takes a number or three, and comparisons hold if they do on every axis."""

    __add__ = __radd__ = _each(operator.add)
    __sub__ = _each(operator.sub)
    __mul__ = __rmul__ = _each(operator.mul)
    __floordiv__ = _each(operator.floordiv)
    __truediv__ = _each(operator.truediv)
    __mod__ = _each(operator.mod)
    __lt__ = _all(operator.lt)
    __le__ = _all(operator.le)
    __gt__ = _all(operator.gt)
    __ge__ = _all(operator.ge)

    @classmethod
    def from_collection(cls, values: Iterable[Any]) -> Cartesian:
        """Return three numbers as coordinates."""
        return cls(*values)

    def __neg__(self) -> Cartesian:
        return Cartesian(*map(operator.neg, self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number | Sequence) and _all(operator.eq)(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(tuple(self))

    @property
    def ceil(self) -> Cartesian:
        """Every number rounded up."""
        return Cartesian(*map(math.ceil, self))

    @property
    def floor(self) -> Cartesian:
        """Every number rounded down."""
        return Cartesian(*map(math.floor, self))

    @property
    def inverse(self) -> Cartesian:
        """The numbers in the order x, y, z."""
        return Cartesian(*self[::-1])

    @property
    def tuple(self) -> tuple[Any, Any, Any]:
        """The plain numbers."""
        return self.z, self.y, self.x

    @property
    def list(self) -> list[Any]:
        """The plain numbers."""
        return [*self]


def to_cartesian(values: Iterable[Any] | None) -> Cartesian | None:
    """Return three numbers as coordinates, None for None."""
    return None if values is None else Cartesian(*values)


@dataclass(frozen=True)
class BoundingBox:
    """A half-open box in global voxels (zyx)."""

    start: Cartesian
    stop: Cartesian

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", Cartesian(*self.start))
        object.__setattr__(self, "stop", Cartesian(*self.stop))

    @classmethod
    def from_delta(cls, start: Iterable[int], plus: Iterable[int]) -> BoundingBox:
        """Return the box that begins at `start` and has `plus` voxels."""
        return cls(Cartesian(*start), Cartesian(*start) + Cartesian(*plus))

    @classmethod
    def from_string(cls, text: str) -> BoundingBox:
        """Return the box that ``z0-z1_y0-y1_x0-x1`` names."""
        box = Box.from_string(text)
        return cls(Cartesian(*box.start), Cartesian(*box.stop))

    @classmethod
    def from_list(cls, numbers: Sequence[int]) -> BoundingBox:
        """Return the box of six numbers: where it begins and where it ends."""
        return cls(Cartesian(*numbers[:3]), Cartesian(*numbers[-3:]))

    def __str__(self) -> str:
        return "_".join(f"{a}-{b}" for a, b in zip(self.start, self.stop, strict=True))

    @property
    def string(self) -> str:
        """The box as ``z0-z1_y0-y1_x0-x1``."""
        return str(self)

    @property
    def minpt(self) -> Cartesian:
        """Where it begins."""
        return self.start

    @property
    def maxpt(self) -> Cartesian:
        """Where it ends, outside."""
        return self.stop

    @property
    def shape(self) -> Cartesian:
        """Its voxels along each axis."""
        return self.stop - self.start

    @property
    def slices(self) -> tuple[slice, ...]:
        """Global slices z, y, x."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def adjust(self, size: int | Sequence[int]) -> BoundingBox:
        """Return the box grown by one number or three on both sides, or with six added to its corners."""
        if isinstance(size, int):
            return BoundingBox(self.start - size, self.stop + size)
        low = size[:3] if len(size) > 3 else -Cartesian(*size)
        return BoundingBox(self.start + low, self.stop + size[-3:])

    def union(self, other: BoundingBox) -> BoundingBox:
        """Return the smallest box that holds both."""
        return BoundingBox(Cartesian(*map(min, self.start, other.start)), Cartesian(*map(max, self.stop, other.stop)))

    def intersection(self, other: BoundingBox) -> BoundingBox:
        """Return what both share."""
        return BoundingBox(Cartesian(*map(max, self.start, other.start)), Cartesian(*map(min, self.stop, other.stop)))

    def contains(self, point: Sequence[float]) -> bool:
        """Return whether a point lies in it."""
        return self.start <= Cartesian(*point) and Cartesian(*point) < self.stop

    def decompose(self, block_size: Sequence[int]) -> BoundingBoxes:
        """Return the whole blocks that it consists of, z slowest; what is left at the end is left out."""
        ranges = (range(a, b - n + 1, n) for a, b, n in zip(self.start, self.stop, block_size, strict=True))
        return BoundingBoxes(BoundingBox.from_delta(start, block_size) for start in itertools.product(*ranges))

    def clone(self) -> BoundingBox:
        """Return the same box."""
        return self

    def inverse_order(self) -> BoundingBox:
        """Return the box with its axes in the order x, y, z."""
        return BoundingBox(self.start.inverse, self.stop.inverse)

    def __add__(self, other: Any) -> BoundingBox:
        return BoundingBox(self.start + other, self.stop + other)

    def __mul__(self, other: Any) -> BoundingBox:
        return BoundingBox(self.start * other, self.stop * other)

    def __floordiv__(self, other: Any) -> BoundingBox:
        return BoundingBox(self.start // other, self.stop // other)

    def __iter__(self) -> Iterator[Cartesian]:
        return iter((self.start, self.stop))


class BoundingBoxes(UserList[BoundingBox]):
    """A list of boxes."""
