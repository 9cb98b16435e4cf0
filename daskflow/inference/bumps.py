"""How much each voxel of a patch counts where patches overlap.

A patch's share of a voxel is its bump over the sum of all bumps there. It depends only on how far the neighbours are:
patches away from the volume's ends have the same one. Shares add up to 1 on every voxel, so blending is a sum without a
division, and needs no sum over the volume. Along an axis of N voxels, voxel i has

    wu        b = exp(-1/(1-x^2)) with x = 2(i+1)/(N+1) - 1; the product over the axes is rescaled linearly to 1..1e6
    zung      b = exp(-(x(1-x))^-1.5) with x = (i+1)/(N+1), as in chunkflow before it had wu alone, and in DataProvider3
    gaussian  b = exp(-x^2/2) with x = (i-(N-1)/2) / (N/8), the product at least 1e-3, as in MONAI

The rescaled bump of wu is a*ez*ey*ex + c with one exponential per axis, so the sum of all overlapping bumps is
a*Ez*Ey*Ex + c*Nz*Ny*Nx, where E adds the neighbours' exponentials along an axis and N counts them.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from daskflow.geometry import Zyx
from daskflow.inference.patches import Offsets

T = TypeVar("T")
Array = np.ndarray[Any, np.dtype[Any]]
Neighbours = tuple[Offsets, Offsets, Offsets]
Bump = Literal["wu", "zung", "gaussian"]

_GREATEST = 1e6
_SIGMA = 0.125  # of the patch
_LEAST = 1e-3


def share(patch: Zyx, neighbours: Neighbours, bump: Bump = "wu") -> Array:
    """Return a patch's share of each of its voxels, float32 zyx: its bump over the sum of those that overlap.

    These are `neighbours` voxels from it along each axis, itself included.
    """
    shares = {"wu": _share_of_wu, "zung": _share_of_zung, "gaussian": _share_of_gaussian}[bump](patch, neighbours)
    return shares.astype(np.float32)


def _share_of_wu(patch: Zyx, neighbours: Neighbours) -> Array:
    exponentials = [_exponential(size) for size in patch]
    scale, constant = _rescaling(exponentials)
    sums = [_summed(e, offsets) for e, offsets in zip(exponentials, neighbours, strict=True)]
    counts = [_summed(np.ones(n), offsets) for n, offsets in zip(patch, neighbours, strict=True)]
    # float64: on small patches the constant is near the negative of the product
    weight = _outer(exponentials, scale) + constant
    weight /= _outer(sums, scale) + _outer(counts, constant)
    return weight


def _share_of_zung(patch: Zyx, neighbours: Neighbours) -> Array:
    shares = []
    for size, offsets in zip(patch, neighbours, strict=True):
        x = (np.arange(size) + 1) / (size + 1)
        logits = np.full((len(offsets), size), -np.inf)
        for row, offset in zip(logits, offsets, strict=True):
            to, of = _moved(size, offset)
            row[to] = -((x * (1 - x)) ** -1.5)[of]
        bumps = np.exp(logits - logits.max(axis=0))  # the bumps themselves are too small for a float64
        shares.append(bumps[offsets.index(0)] / bumps.sum(axis=0))
    return _outer(shares, 1.0)


def _share_of_gaussian(patch: Zyx, neighbours: Neighbours) -> Array:
    axes = [np.exp(-(((np.arange(n) - (n - 1) / 2) / (_SIGMA * n)) ** 2) / 2) for n in patch]
    bump = np.maximum(_outer(axes, 1.0), _LEAST)
    total = np.zeros(patch)
    for offsets in itertools.product(*neighbours):
        to, of = zip(*map(_moved, patch, offsets), strict=True)
        total[to] += bump[of]
    return bump / total


class Shares(Generic[T]):
    """The shares of patches of one size, kept for reuse up to `limit` bytes, as the arrays that a device wants."""

    def __init__(self, patch: Zyx, bump: Bump, convert: Callable[[Array], T], *, limit: int = 256 * 1024**2) -> None:
        self._patch, self._bump = patch, bump
        self._convert = convert
        self._room = max(1, limit // (4 * int(np.prod(patch))))
        self._kept: OrderedDict[Neighbours, T] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, neighbours: Neighbours) -> T:
        """Return the share of a patch with these neighbours."""
        with self._lock:
            if neighbours in self._kept:
                self._kept.move_to_end(neighbours)
            else:
                self._kept[neighbours] = self._convert(share(self._patch, neighbours, self._bump))
                if len(self._kept) > self._room:
                    self._kept.popitem(last=False)
            return self._kept[neighbours]


def _exponential(size: int) -> Array:
    """Return exp(-1/(1-x^2)) at each voxel of an axis, float64."""
    x = 2 * (np.arange(size) + 1) / (size + 1) - 1
    result: Array = np.exp(-1 / (1 - x**2))
    return result


def _rescaling(exponentials: list[Array]) -> tuple[float, float]:
    """Return a and c such that a*ez*ey*ex + c goes from 1 to 1e6."""
    least, greatest = (float(np.prod([f(e) for e in exponentials])) for f in (np.min, np.max))
    if greatest - least < 1e-9 * greatest:
        return 0.0, 1.0
    scale = (_GREATEST - 1) / (greatest - least)
    return scale, 1 - scale * least


def _outer(axes: list[Array], factor: float) -> Array:
    """Return the product of one vector per axis and a factor."""
    z, y, x = axes
    product: Array = (factor * z[:, None] * y)[:, :, None] * x
    return product


def _summed(values: Array, offsets: Offsets) -> Array:
    """Return, on the axis of `values`, the sum of `values` moved by each offset."""
    result = np.zeros_like(values)
    for offset in offsets:
        to, of = _moved(len(values), offset)
        result[to] += values[of]
    return result


def _moved(size: int, offset: int) -> tuple[slice, slice]:
    """Return where, on an axis, a patch lies that is moved by an offset, and which part of it that is."""
    return slice(max(0, offset), size + min(0, offset)), slice(max(0, -offset), size - max(0, offset))
