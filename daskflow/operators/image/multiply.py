"""The product of two volumes."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from daskflow.errors import GeometryError, ParameterError
from daskflow.volume import Flag, Volume, operator


@operator(keeps_name=True)
def multiply(volume: Volume, multiplier: Annotated[Volume, Flag("-m")]) -> Volume:
    """Multiply two volumes voxel by voxel, e.g. an image with a mask of zeros and ones.

    Types are as numpy makes them: uint8 times uint8 is uint8 and wraps around beyond 255. A volume without channels
    multiplies all channels of the other.

    Args:
        volume: the one.
        multiplier: the other, which covers the same box, at the same voxel size.

    Returns:
        The product, over the box of the first volume.

    Raises:
        GeometryError: the second does not cover the first, or has voxels of another size.
        ParameterError: both have channels, and not as many.
    """
    counts = {volume.channels or 1, multiplier.channels or 1}
    if len(counts - {1}) > 1:
        raise ParameterError(f"volumes of {volume.channels} and {multiplier.channels} channels cannot be multiplied")
    if volume.spec.ratio(multiplier.spec) != (1, 1, 1):
        raise GeometryError(
            f"voxels of {volume.spec.size_text} and {multiplier.spec.size_text} (zyx) cannot be multiplied; mask takes"
            " coarser ones"
        )
    channels = volume.channels if multiplier.channels is None else max(counts)
    dtype = np.result_type(volume.dtype, multiplier.dtype)
    return volume.map_blocks(np.multiply, multiplier, dtype=dtype, channels=channels)
