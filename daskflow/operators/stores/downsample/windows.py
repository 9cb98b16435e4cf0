"""One step of downsampling: from the voxels of every window to one voxel, for arrays zyx."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import Zyx

Array = npt.NDArray[Any]
Reduce = Callable[[Array, Zyx], Array]
Slices = tuple[slice, slice, slice]

_LANES: dict[
    np.dtype[Any], tuple[np.dtype[Any], Any, Any]
] = {  # of a uint64, every other one: dtype of the lanes, their bits, the mask of the lowest
    np.dtype(np.uint8): (np.dtype(np.uint16), np.uint64(8), np.uint64(0x00FF00FF00FF00FF)),
    np.dtype(np.uint16): (np.dtype(np.uint32), np.uint64(16), np.uint64(0x0000FFFF0000FFFF)),
}
_FEW = 4  # one window in so many, at most, is gathered by its position; more are settled where they lie


def reduce_windows(array: Array, factor: Zyx, reduce: Reduce, dtype: np.dtype[Any]) -> Array:
    """Return one voxel for each window of `factor` voxels, counted from the corner; the last ones may be smaller.

        2 x 2 windows of 5 x 3 voxels, and `reduce` sees four arrays of whole windows alike:

            aa|aa|b      2 x 2   2 x 1
            aa|aa|b
            --+--+-      1 x 2   1 x 1
            cc|cc|d

    Args:
        array: zyx.
        factor: voxels per window (zyx).
        reduce: gives one voxel per window of an array that holds whole windows, and the windows' shape.
        dtype: of the result.
    """
    if all(n % f == 0 for n, f in zip(array.shape, factor, strict=True)):
        return reduce(array, factor)
    z, y, x = (-(-n // f) for n, f in zip(array.shape, factor, strict=True))
    out = np.empty((z, y, x), dtype)
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
        if window[axis] == 2 and axis == 2 and array.dtype in _LANES and dtype.itemsize > array.itemsize:
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


def smallest(array: Array, window: Zyx) -> Array:
    """Return the least value of each window."""
    return _fold(np.minimum, array, window)


def largest(array: Array, window: Zyx) -> Array:
    """Return the greatest value of each window."""
    return _fold(np.maximum, array, window)


def _fold(function: np.ufunc, array: Array, window: Zyx) -> Array:
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

    Args:
        array: labels, unsigned integers.
        window: zyx.
        sparse: whether zeros count only where there is nothing else; of different labels in a 2 x 2 window the first
            that is not 0 of d, a, c, b wins then.
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
