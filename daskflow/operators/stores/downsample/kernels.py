"""Downsampling of arrays: any factor, several levels at once, the same voxels however the work is cut."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry import Zyx

Array = npt.NDArray[Any]
Reduce = Callable[[Array, Zyx], Array]
Slices = tuple[slice, slice, slice]
Method = Literal["mean", "mode", "min", "max", "stride"]

# of a uint64, every other one: dtype of the lanes, their bits, the mask of the lowest
_LANES: dict[np.dtype[Any], tuple[np.dtype[Any], Any, Any]] = {
    np.dtype(np.uint8): (np.dtype(np.uint16), np.uint64(8), np.uint64(0x00FF00FF00FF00FF)),
    np.dtype(np.uint16): (np.dtype(np.uint32), np.uint64(16), np.uint64(0x0000FFFF0000FFFF)),
}
_FEW = 4  # one window in so many, at most, is gathered by its position; more are settled where they lie
METHODS: tuple[Method, ...] = get_args(Method)
_TILE_BYTES = 2**21  # of the source, worked on while it is in a cache; smaller ones cost more in calls


def reduce_windows(array: Array, factor: Zyx, reduce: Reduce, dtype: np.dtype[Any]) -> Array:
    """Return one voxel for each window of `factor` voxels, counted from the corner; the last ones may be smaller.

        2 x 2 windows of 5 x 3 voxels, and `reduce` sees four arrays of whole windows alike:

            aa|aa|b      2 x 2   2 x 1
            aa|aa|b
            --+--+-      1 x 2   1 x 1
            cc|cc|d

    It is given arrays (zyx) that hold whole windows, and the windows' shape.
    """
    if all(n % f == 0 for n, f in zip(array.shape, factor, strict=True)):
        return reduce(array, factor)
    z, y, x = (-(-n // f) for n, f in zip(array.shape, factor, strict=True))
    out = np.empty_like(array, dtype, "C", shape=(z, y, x))
    for source, target, window in _regions(array.shape, factor):
        out[target] = reduce(array[source], window)
    return out


def _regions(shape: Sequence[int], factor: Zyx) -> Iterator[tuple[Slices, Slices, Zyx]]:
    axes = []
    for n, f in zip(shape, factor, strict=True):
        whole, left = divmod(n, f)
        parts = [(slice(0, whole * f), slice(0, whole), f)] if whole else []
        if left:
            parts.append((slice(whole * f, n), slice(whole, whole + 1), left))
        axes.append(parts)
    for z, y, x in itertools.product(*axes):
        yield (z[0], y[0], x[0]), (z[1], y[1], x[1]), (z[2], y[2], x[2])


def sums(array: Array, window: Zyx, *, dtype: np.dtype[Any]) -> Array:
    """Return the sum of each window, computed in `dtype`, which must hold it."""
    for axis in (2, 1, 0):
        pairs = window[axis] == 2 and axis == 2 and array.dtype in _LANES and dtype.itemsize > array.itemsize
        if pairs and isinstance(array, np.ndarray):  # not one of a GPU, which has no lanes
            array = _sum_pairs(array)
        elif window[axis] > 1:
            members = [array[(slice(None),) * axis + (slice(i, None, window[axis]),)] for i in range(window[axis])]
            array = np.add(members[0], members[1], dtype=dtype)
            for member in members[2:]:
                array += member
    return array.astype(dtype, copy=False)


def _sum_pairs(array: Array) -> Array:
    """Return the sums of neighbours in x as integers twice as wide, added in the lanes of 64-bit words."""
    wide, bits, mask = _LANES[array.dtype]
    lanes = 8 // array.itemsize
    even = array.shape[2] // lanes * lanes
    words = np.ascontiguousarray(array[..., :even])
    if not words.flags.aligned or words.ctypes.data % 8:
        words = words.copy()
    words = words.view(np.uint64)
    high = words >> bits
    high &= mask
    high += words & mask
    summed: Array = high.view(wide)
    if even == array.shape[2]:
        return summed
    rest = np.add(array[..., even::2], array[..., even + 1 :: 2], dtype=wide)
    return np.concatenate([summed, rest], axis=2)


def fold(function: np.ufunc, array: Array, window: Zyx) -> Array:
    """Return what a function of two values makes of all of each window, e.g. `numpy.minimum` the least."""
    for axis in (1, 0, 2):
        members = [array[(slice(None),) * axis + (slice(i, None, window[axis]),)] for i in range(window[axis])]
        array = members[0]
        for member in members[1:]:
            array = function(array, member)
    return array


def first(array: Array, window: Zyx) -> Array:
    """Return the first voxel of each window."""
    z, y, x = window
    return array[::z, ::y, ::x]


def modes(array: Array, window: Zyx, *, sparse: bool = False) -> Array:
    """Return the most frequent label of each window.

    Of labels that are equally frequent, the one whose first voxel comes first wins, x fastest. A window of 2 x 2 in y
    and x follows COUNTLESS (Silversmith, 2017), which is a mode too: of voxels ab/cd,

        a if b or c is the same, else b if c is the same, else d          ab/ba -> b, and four labels ab/cd -> d

    Labels are unsigned integers. Sparse modes count zeros only where there is nothing else; of different labels in a
    2 x 2 window the first that is not 0 of d, a, c, b wins then.
    """
    array = np.ascontiguousarray(array)
    offsets = list(np.ndindex(*window))
    members = [array[z :: window[0], y :: window[1], x :: window[2]] for z, y, x in offsets]
    result = members[0].copy()
    if len(members) == 1:
        return result
    flat = window == (1, 2, 2)
    if flat and not sparse:
        settled = result == members[1]
        settled |= result == members[2]
    else:
        settled = result == members[1]
        for member in members[2:]:
            settled &= result == member
    left = np.flatnonzero(~settled)
    if not left.size:
        return result
    rule = (_countless_sparse if sparse else _countless) if flat else _majority
    if left.size * _FEW > settled.size:
        return rule([member.ravel() for member in members], sparse).reshape(result.shape)
    corners = _corners(left, result.shape, array.shape, window)
    row, plane = array.shape[2], array.shape[1] * array.shape[2]
    voxels = array.reshape(-1)
    labels = [voxels.take(corners + (z * plane + y * row + x)) for z, y, x in offsets]
    result.reshape(-1)[left] = rule(labels, sparse)
    return result


def _corners(windows: Array, counts: Sequence[int], shape: Sequence[int], window: Zyx) -> Array:
    """Return where the first voxel of windows, given by their number, lies in an array of `shape`; C-order."""
    line = windows // counts[2]
    first = (np.arange(counts[0])[:, None] * (window[0] * shape[1]) + np.arange(counts[1]) * window[1]) * shape[2]
    corners: Array = (windows - line * counts[2]) * window[2] + first.reshape(-1).take(line)
    return corners


def _countless(members: list[Array], sparse: bool) -> Array:  # noqa: ARG001 (as all rules)
    a, b, c, d = members
    return np.where((a == b) | (a == c), a, np.where(b == c, b, d))


def _countless_sparse(members: list[Array], sparse: bool) -> Array:  # noqa: ARG001
    a, c, b, d = members
    result = np.where(b != 0, b, c)
    for one in (a, d):
        result = np.where(one != 0, one, result)
    result = np.where((b == c) & (b != 0), b, result)
    return np.where(((a == b) | (a == c)) & (a != 0), a, result)


def _majority(members: list[Array], sparse: bool) -> Array:
    counter = np.min_scalar_type(len(members))
    counts = [np.ones(members[0].shape, counter) for _ in members]
    for (i, one), (j, other) in itertools.combinations(enumerate(members), 2):
        alike = one == other
        counts[i] += alike
        counts[j] += alike
    if sparse:
        for one, count in zip(members, counts, strict=True):
            count *= one != 0
    result, most = members[0].copy(), counts[0]
    for one, count in zip(members[1:], counts[1:], strict=True):
        result = np.where(count > most, one, result)
        np.maximum(most, count, out=most)
    return result


@dataclass(frozen=True)
class Carried:
    """Voxels of one level on their way to the next.

    Attributes:
        data: zyx or czyx; sums of whole numbers for exact means, else the level's voxels.
        counts: for sparse means, how many voxels of the finest level are not 0 in each; else None.
    """

    data: Array
    counts: Array | None = None


@dataclass(frozen=True)
class Downsampling:
    """How windows of voxels become one voxel of the next level.

    A mean of integers is that of the finest level's voxels: floor(sum / count), whole sums being carried from level to
    level. A mean of floats is that of the level before, summed in float64 and weighted by how many of the finest
    level's voxels stand behind each. At odd edges means are of the voxels that exist. Sparse means leave out voxels
    that are 0 in the finest level. The mode is that of the level before, see `windows.modes`, and so are minimum,
    maximum and stride (the first voxel).

    Attributes:
        factor: voxels per window (zyx).
        method: what becomes of a window.
        sparse: whether zeros do not count, for mean and mode.

    Raises:
        GeometryError: a factor below 1, or 1 on every axis.
        ParameterError: an unknown method, or one that has no sparse form.
    """

    factor: Zyx
    method: Method
    sparse: bool = False

    def __post_init__(self) -> None:
        if min(self.factor) < 1 or max(self.factor) == 1:
            raise GeometryError(f"factor {self.factor} zyx must be at least 1 on every axis and more on one")
        if self.method not in METHODS:
            raise ParameterError(f"method {self.method!r} is none of {', '.join(METHODS)}")
        if self.sparse and self.method not in ("mean", "mode"):
            raise ParameterError(f"method {self.method} has no sparse form; mean and mode have")

    def check(self, dtype: np.dtype[Any]) -> None:
        """Raise unless voxels of this type can be downsampled so."""
        if dtype.kind not in "buif":
            raise ParameterError(f"voxels of {dtype} cannot be downsampled")
        if self.method == "mean" and (dtype.kind == "b" or (dtype.kind in "ui" and dtype.itemsize == 8)):
            raise ParameterError(
                f"the mean of {dtype} voxels is not exact; use method='mode' for labels, or cast the volume first"
            )

    def total(self, level: int) -> Zyx:
        """Return how many voxels of the finest level, per axis (zyx), stand behind one of a level."""
        z, y, x = (f**level for f in self.factor)
        return z, y, x

    def carries(self, dtype: np.dtype[Any]) -> bool:
        """Return whether a level's voxels are not enough for the next one: sums or counts are needed, too."""
        return self.method == "mean" and (self.sparse or dtype.kind != "f")

    def carried_dtype(self, dtype: np.dtype[Any], level: int) -> np.dtype[Any]:
        """Return the type of `Carried.data` at a level."""
        if self.method != "mean" or dtype.kind == "f" or level == 0:
            return dtype
        wide = "u" if dtype.kind == "u" else "i"
        most = math.prod(self.total(level)) * max(np.iinfo(dtype).max, -int(np.iinfo(dtype).min))
        sizes = (np.dtype(f"{wide}{size}") for size in (2, 4, 8))
        return next((d for d in sizes if np.iinfo(d).max >= most), np.dtype(f"{wide}8"))

    def run(
        self, source: Carried, levels: int, *, done: int = 0, finest: Zyx | None = None, dtype: np.dtype[Any]
    ) -> tuple[list[Array], Carried]:
        """Return the voxels of the next levels, and what the level after them can be made of.

        Args:
            source: what starts at the corner of a window of the last level.
            levels: how many.
            done: the level that `source` is, counted from the finest.
            finest: how many voxels of the finest level (zyx) `source` stands for; only the end of the volume cuts
                that short of whole windows. By default all that it could.
            dtype: of the voxels.
        """
        bits = np.dtype(f"u{dtype.itemsize}")
        if self.method == "mode" and dtype != bits:  # labels are alike when all their bits are
            arrays, last = self.run(Carried(source.data.view(bits)), levels, done=done, finest=finest, dtype=bits)
            return [array.view(dtype) for array in arrays], Carried(last.data.view(dtype))
        shape = source.data.shape
        lead, core = shape[:-3], (shape[-3], shape[-2], shape[-1])
        if finest is None:
            z, y, x = (n * t for n, t in zip(core, self.total(done), strict=True))
            finest = (z, y, x)
        sizes = [tuple(-(-n // t) for n, t in zip(core, self.total(level), strict=True)) for level in range(levels + 1)]
        empty = functools.partial(np.empty_like, source.data, order="C")  # on a GPU where the source is
        outputs = [empty(dtype=dtype, shape=(*lead, *size)) for size in sizes[1:]]
        last = Carried(
            empty(dtype=self.carried_dtype(dtype, done + levels), shape=(*lead, *sizes[-1])),
            empty(dtype=np.uint64, shape=(*lead, *sizes[-1])) if source.counts is not None or self._counts else None,
        )
        for channel in np.ndindex(lead):
            for start, stop in _tiles(core, self.total(levels), source.data.itemsize):
                behind = _behind(start, stop, self.total(done), finest)
                step = self._begun(source, (*channel, *map(slice, start, stop)), done)
                for level in range(done + 1, done + levels + 1):
                    step = self._next(step, level, behind, dtype)
                    place = (*channel, *map(_coarse, start, stop, self.total(level - done)))
                    outputs[level - done - 1][place] = self._values(step, level, behind)
                last.data[place] = step.data
                if last.counts is not None:
                    last.counts[place] = step.counts
        return outputs, last

    @property
    def _counts(self) -> bool:
        return self.method == "mean" and self.sparse

    def _begun(self, source: Carried, at: Any, done: int) -> Carried:
        data = source.data[at]
        if self.method == "mode" and data.itemsize == 8 and int(data.max()) < 2**32:
            data = data.astype(np.uint32)  # half the bytes to compare, on every level
        counts = None if source.counts is None else source.counts[at]
        if self._counts and counts is None and done == 0:
            counts = (data != 0).astype(np.uint8)
        return Carried(data, counts)

    def _next(self, step: Carried, level: int, behind: Zyx, dtype: np.dtype[Any]) -> Carried:
        data, factor = step.data, self.factor
        if self.method == "mean":
            counts = None
            if step.counts is not None:
                counts = _summed(step.counts, factor, np.dtype(np.uint64))
            if dtype.kind != "f":
                return Carried(_summed(data, factor, self.carried_dtype(dtype, level)), counts)
            return Carried(self._float_mean(step, counts, level, behind, dtype), counts)
        reduce: dict[Method, Reduce] = {
            "mode": functools.partial(modes, sparse=self.sparse),
            "min": functools.partial(fold, np.minimum),
            "max": functools.partial(fold, np.maximum),
            "stride": first,
        }
        return Carried(reduce_windows(data, factor, reduce[self.method], data.dtype))

    def _float_mean(self, step: Carried, counts: Array | None, level: int, behind: Zyx, dtype: np.dtype[Any]) -> Array:
        float64 = np.dtype(np.float64)
        values = step.data.astype(float64)
        if counts is not None and step.counts is not None:
            values = np.multiply(values, step.counts, out=np.zeros_like(values), where=step.counts != 0)
            summed = _summed(values, self.factor, float64)
            return np.divide(summed, counts, out=np.zeros_like(summed), where=counts != 0).astype(dtype)
        before, after = self.total(level - 1), self.total(level)
        for axis in range(3):  # voxels at the end stand for fewer of the finest level
            left = behind[axis] % before[axis]
            if left:
                values[(slice(None),) * axis + (slice(-1, None),)] *= left / before[axis]
        summed = _summed(values, self.factor, float64)
        summed /= math.prod(self.factor)
        for axis in range(3):
            left = behind[axis] % after[axis]
            if left:
                summed[(slice(None),) * axis + (slice(-1, None),)] *= after[axis] / left
        return summed.astype(dtype)

    def _values(self, step: Carried, level: int, behind: Zyx) -> Array:
        """Return the voxels of a level."""
        data = step.data
        if self.method != "mean" or data.dtype.kind == "f":
            return data
        if step.counts is not None:
            some = np.maximum(step.counts, 1)
            means: Array = data // (some if data.dtype.kind == "u" else some.astype(np.int64))
            return means
        out = np.empty_like(data)
        total = self.total(level)
        axes = []
        for n, size, window in zip(data.shape, behind, total, strict=True):
            whole, left = divmod(size, window)
            axes.append([(slice(0, whole), window)] * (whole > 0) + [(slice(whole, n), left)] * (left > 0))
        for parts in itertools.product(*axes):
            place, sizes = zip(*parts, strict=True)
            np.floor_divide(data[place], data.dtype.type(math.prod(sizes)), out=out[place])
        return out


def _summed(array: Array, factor: Zyx, dtype: np.dtype[Any]) -> Array:
    return reduce_windows(array, factor, functools.partial(sums, dtype=dtype), dtype)


def _tiles(shape: Zyx, window: Zyx, itemsize: int) -> Iterator[tuple[Zyx, Zyx]]:
    """Yield corners of boxes of whole windows, whole in x, that fit a cache."""
    z, y, _ = window
    row = shape[2] * itemsize
    y = min(shape[1], y * max(1, _TILE_BYTES // (row * z * y)))
    z = z * max(1, _TILE_BYTES // (row * y * z)) if y == shape[1] else z
    for z0 in range(0, shape[0], z):
        for y0 in range(0, shape[1], y):
            yield (z0, y0, 0), (min(z0 + z, shape[0]), min(y0 + y, shape[1]), shape[2])


def _behind(start: Zyx, stop: Zyx, total: Zyx, finest: Zyx) -> Zyx:
    """Return how many voxels of the finest level stand behind a box, per axis."""
    z, y, x = (min(b * t, n) - a * t for a, b, t, n in zip(start, stop, total, finest, strict=True))
    return z, y, x


def _coarse(start: int, stop: int, window: int) -> slice:
    return slice(start // window, -(-stop // window))
