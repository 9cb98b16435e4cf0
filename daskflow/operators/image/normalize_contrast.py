"""Contrast of sections, or of the whole, in a range of grey values."""

from __future__ import annotations

import os
from typing import Annotated

import numpy as np

from daskflow.errors import ParameterError
from daskflow.operators.image.contrast import grey_range, stretch_by_files, stretch_sections
from daskflow.operators.image.contrast.counts import Sampling, counted_levels
from daskflow.operators.image.contrast.tables import grey_image
from daskflow.stores import kvstore
from daskflow.volume import Flag, Volume, operator


@operator(takes="image")
def normalize_contrast(
    volume: Volume,
    *,
    lower_clip_fraction: Annotated[float, Flag("-l")] = 0.01,
    upper_clip_fraction: Annotated[float, Flag("-u")] = 0.01,
    minval: int = 1,
    maxval: int = 255,
    per_section: bool = True,
    levels: str | os.PathLike[str] | None = None,
) -> Volume:
    """Stretch the grey values of every section, or of the whole volume, to a range.

    Of the voxels above 0, the darkest and the brightest fraction is cut off; what lies between is spread linearly:
    ``clip(round((v - lower) maxval / (upper - lower)), minval, maxval)``. What has no contrast stays as it is. The
    result waits for a pass that counts the grey values, all over the volume.

    Args:
        volume: a uint8 image with one channel.
        lower_clip_fraction: share of the voxels that is cut off at the dark end.
        upper_clip_fraction: share of the voxels that is cut off at the bright end.
        minval: no result is below it; black becomes it.
        maxval: no result is above it.
        per_section: every section has its own limits; otherwise (--whole) the volume has one pair of them.
        levels: directory with the levels of section z in the file ``z``, as contrast-levels and igneous write them,
            taken instead of counting; so a part of a volume is treated as in the whole. Black sections without levels,
            such as a margin beyond the edge of a layer, stay black.

    Returns:
        A uint8 image.

    Raises:
        ParameterError: another dtype, several channels, a segmentation, or fractions or values out of range.
        StoreNotFoundError: a section has no levels; raised while planning for the first and the last.
    """
    clip = checked_range(volume, "normalize-contrast", lower_clip_fraction, upper_clip_fraction, minval, maxval)
    if levels is not None:
        if not per_section:
            raise ParameterError("levels are of sections; leave per_section on")
        return stretch_by_files(volume, kvstore.normalise(levels), clip, low=minval, high=maxval, top=maxval)
    found, stages = counted_levels(volume, Sampling(volume.box, 1.0, 0), together=not per_section)
    return stretch_sections(volume, found, stages, clip, low=minval, high=maxval, top=maxval)


def checked_range(
    volume: Volume, name: str, lower: float, upper: float, minval: int, maxval: int
) -> tuple[float, float]:
    """Return the two fractions that are cut off, or raise where they, the values or the volume make no sense."""
    grey_image(volume, name)
    if volume.dtype != np.uint8:
        raise ParameterError(f"{name} takes uint8, the volume is {volume.dtype}; contrast takes uint16")
    if not (0 <= lower < 1 and 0 <= upper < 1 and lower + upper < 1):
        raise ParameterError(f"clip fractions {lower} and {upper} must be at least 0 and leave something between them")
    if grey_range(volume, minval, maxval)[1] == 0:
        raise ParameterError(f"minval {minval} and maxval {maxval} leave only black; raise maxval")
    return lower, upper
