"""How much each voxel of a patch counts where patches overlap.

Weights are chunkflow's "wu" bump. Along an axis of N voxels, voxel i lies at x = 2(i+1)/(N+1) - 1; the bump is
b = exp(-sum over axes of 1/(1-x^2)), rescaled linearly so that its least value is 1 and its greatest is 1e6.

The rescaled bump is a*ez*ey*ex + c with one exponential per axis, so the sum of all overlapping bumps is
a*Ez*Ey*Ex + c*Nz*Ny*Nx, where E adds the neighbours' exponentials along an axis and N counts them. A patch's share,
bump over sum, depends only on how far its neighbours are: patches away from the volume's ends have the same one. Shares
add up to 1 on every voxel, so blending is a sum without a division, and needs no sum over the volume.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from daskflow.geometry import Zyx
from daskflow.inference.patches import Offsets

T = TypeVar("T")
Array = np.ndarray[Any, np.dtype[Any]]

_GREATEST = 1e6


def share(patch: Zyx, neighbours: tuple[Offsets, Offsets, Offsets]) -> Array:
    """Return a patch's share of each of its voxels, float32 zyx: its bump over the sum of those that overlap.

    Args:
        patch: voxels of an output patch (zyx).
        neighbours: how far the patches that overlap are from this one, itself included, for each axis (zyx).
    """
    exponentials = [_exponential(size) for size in patch]
    scale, constant = _rescaling(exponentials)
    sums = [_summed(e, offsets) for e, offsets in zip(exponentials, neighbours, strict=True)]
    counts = [_summed(np.ones(n), offsets) for n, offsets in zip(patch, neighbours, strict=True)]
    # float64: on small patches the constant is near the negative of the product
    weight = _outer(exponentials, scale) + constant
    weight /= _outer(sums, scale) + _outer(counts, constant)
    return weight.astype(np.float32)


class Shares(Generic[T]):
    """The shares of patches of one size, kept for reuse, as the arrays that a device wants.

    Args:
        patch: voxels of an output patch (zyx).
        convert: makes the device's array of a float32 array.
        limit: bytes of host arrays to keep.
    """

    def __init__(self, patch: Zyx, convert: Callable[[Array], T], *, limit: int = 256 * 1024**2) -> None:
        self._patch = patch
        self._convert = convert
        self._room = max(1, limit // (4 * int(np.prod(patch))))
        self._kept: OrderedDict[tuple[Offsets, Offsets, Offsets], T] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, neighbours: tuple[Offsets, Offsets, Offsets]) -> T:
        """Return the share of a patch with these neighbours."""
        with self._lock:
            if neighbours in self._kept:
                self._kept.move_to_end(neighbours)
            else:
                self._kept[neighbours] = self._convert(share(self._patch, neighbours))
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
    size = len(values)
    result = np.zeros_like(values)
    for offset in offsets:
        result[max(0, offset) : size + min(0, offset)] += values[max(0, -offset) : size - max(0, offset)]
    return result
