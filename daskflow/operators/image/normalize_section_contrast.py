"""Contrast of sections whose grey levels have been counted."""

from __future__ import annotations

import os
from typing import Annotated

from daskflow.operators.image.contrast import stretch_by_files
from daskflow.operators.image.normalize_contrast import checked_range
from daskflow.stores import kvstore
from daskflow.volume import Flag, Volume, operator


@operator(takes="image")
def normalize_section_contrast(
    volume: Volume,
    *,
    levels_path: Annotated[str | os.PathLike[str], Flag("-p")],
    lower_clip_fraction: Annotated[float, Flag("-l")] = 0.01,
    upper_clip_fraction: Annotated[float, Flag("-u")] = 0.01,
    minval: int = 1,
    maxval: int = 255,
) -> Volume:
    """Stretch the grey values of every section to a range, by levels that were counted before.

    As normalize-contrast does, with the levels that contrast-levels or igneous have written; so a part of a volume is
    treated as in the whole. Black sections without levels, such as a margin beyond the edge of a layer, stay black.

    Args:
        volume: a uint8 image with one channel.
        levels_path: directory with the levels of section z in the file ``z``: JSON with the key ``levels``.
        lower_clip_fraction: share of the voxels that is cut off at the dark end.
        upper_clip_fraction: share of the voxels that is cut off at the bright end.
        minval: no result is below it; black becomes it.
        maxval: no result is above it.

    Returns:
        A uint8 image.

    Raises:
        ParameterError: another dtype, several channels, a segmentation, or fractions or values out of range.
        StoreNotFoundError: a section has no file; raised while planning for the first and the last.
    """
    clip = checked_range(volume, "normalize-section-contrast", lower_clip_fraction, upper_clip_fraction, minval, maxval)
    place = kvstore.normalise(levels_path)
    return stretch_by_files(volume, place, clip, low=minval, high=maxval, top=maxval)
