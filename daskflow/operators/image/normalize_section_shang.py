"""Intensities of sections between their own extremes."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators.image._extremes import Extremes, extremes_of
from daskflow.volume import Volume, operator


@operator(takes="image")
def normalize_section_shang(
    volume: Volume, *, nominalmin: float | None = None, nominalmax: float | None = None, clipvalues: bool = False
) -> Volume:
    """Map every section so that its second smallest and second largest value become two given ones.

    The map is linear; the smallest and the largest value are taken for artefacts. A section without two different
    values between them stays as it is, in its own units. The result waits for a pass that finds these values.

    Args:
        volume: an image with one channel.
        nominalmin: what the second smallest value becomes; by default 0.
        nominalmax: what the second largest value becomes; by default the largest number of the dtype, 1 for floats.
        clipvalues: clip what lies outside of the two.

    Returns:
        A float32 image.

    Raises:
        ParameterError: several channels, or two values that do not ascend.
    """
    if volume.channels not in (None, 1):
        raise ParameterError(f"normalize-section-shang takes one channel, the volume has {volume.channels}")
    most = 1.0 if volume.dtype.kind in "fb" else float(np.iinfo(volume.dtype).max)
    low, high = nominalmin or 0.0, most if nominalmax is None else nominalmax
    if not low < high:
        raise ParameterError(f"nominalmin {low:g} must be below nominalmax {high:g}")
    found, stages = extremes_of(volume, by_section=True)
    spec = volume.spec.replace(dtype=np.dtype(np.float32), chunk=None, shard=None)
    return volume.map_after(mapped, left=found, stages=stages, spec=spec, low=low, high=high, clip=clipvalues)


def mapped(
    array: np.ndarray[Any, Any], *, box: BoundingBox, left: Extremes, low: float, high: float, clip: bool
) -> np.ndarray[Any, Any]:
    """Return an array (zyx, or czyx with one channel) as float32 whose sections are mapped by their extremes."""
    result = array.astype(np.float32)
    for section, values in zip(result.reshape(box.shape), left.within(box), strict=True):
        inner = values[1:-1].astype(np.float64)
        if len(inner) == 2:
            section[...] = low + (section - inner[0]) * ((high - low) / (inner[1] - inner[0]))
            if clip:
                np.clip(section, low, high, out=section)
    return result
