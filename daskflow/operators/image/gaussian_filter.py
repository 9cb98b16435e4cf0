"""Gaussian blur."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.volume import Flag, Volume, operator

_TRUNCATE = 4.0


@operator(takes="image", keeps_name=True)
def gaussian_filter(
    volume: Volume, *, sigma: Annotated[float | Sequence[float], Flag("-s")] = (0.0, 1.0, 1.0)
) -> Volume:
    """Blur an image with a Gaussian, by default within each section.

    Every channel is blurred by itself; the kernel is cut at four standard deviations; the edge voxels are mirrored.
    Integers are rounded to the nearest (chunkflow cuts their fractions off, which darkens an image by about one value).

    Args:
        volume: the image, zyx or czyx.
        sigma: standard deviation per axis (zyx), in voxels; one number blurs y and x alone.

    Returns:
        An image of the same dtype.

    Raises:
        ParameterError: a negative standard deviation, or not one or three of them.
    """
    sigmas = (0.0, float(sigma), float(sigma)) if isinstance(sigma, int | float) else tuple(map(float, sigma))
    if len(sigmas) == 1:
        sigmas = (0.0, sigmas[0], sigmas[0])
    if len(sigmas) != 3 or min(sigmas) < 0:
        raise ParameterError(f"sigma {sigma} must be one or three numbers (zyx) of at least 0")
    depth = tuple(int(_TRUNCATE * s + 0.5) for s in sigmas)
    work = np.result_type(volume.dtype, np.float32).itemsize * (volume.channels or 1)
    return volume.map_overlap(
        blur, depth=depth, boundary=_boundary(volume, depth), dtype=volume.dtype, memory=2 * work, sigmas=sigmas
    )


def _boundary(volume: Volume, depth: Sequence[int]) -> tuple[str, ...]:
    """Mirror, except along axes too short to mirror the whole kernel, where the edge voxel is repeated."""
    return tuple("reflect" if d <= s else "nearest" for d, s in zip(depth, volume.box.shape, strict=True))


def blur(array: np.ndarray[Any, Any], sigmas: Sequence[float]) -> np.ndarray[Any, Any]:
    """Return an array (zyx or czyx; also of CuPy) blurred along its last three axes."""
    on_gpu = type(array).__module__.partition(".")[0] == "cupy"
    ndimage = importlib.import_module("cupyx.scipy.ndimage" if on_gpu else "scipy.ndimage")
    blurred = array.astype(np.result_type(array.dtype, np.float32), copy=True)
    for axis, sigma in zip((-3, -2, -1), sigmas, strict=True):
        if sigma > 0:
            blurred = ndimage.gaussian_filter1d(blurred, sigma, axis=axis, truncate=_TRUNCATE)
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        np.rint(blurred, out=blurred)
        np.clip(blurred, limits.min, limits.max, out=blurred)
    return blurred.astype(array.dtype)
