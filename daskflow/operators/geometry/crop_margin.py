"""A volume without its margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators import options
from daskflow.volume import Flag, Volume, operator


@operator()
def crop_margin(volume: Volume, *, margin_size: Annotated[Sequence[int], Flag("-m")]) -> Volume:
    """Cut a margin off a volume; what is left keeps its global coordinates.

    Args:
        volume: the volume to cut.
        margin_size: voxels cut off: low z, y, x then high z, y, x; three numbers are cut off both sides.

    Returns:
        The inner part.

    Raises:
        ParameterError: not three or six numbers, a negative one, or nothing would be left.
    """
    low, high = options.both_sides(margin_size)
    if any(a + b >= s for a, b, s in zip(low, high, volume.box.shape, strict=True)):
        raise ParameterError(f"margins {low} and {high} leave nothing of a volume of {volume.box.shape} voxels (zyx)")
    inner: BoundingBox = volume.box.shrink(low, high)
    return volume.crop(inner)
