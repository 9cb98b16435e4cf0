"""A volume without its margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, as_zyx
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
    margin = list(margin_size)
    if len(margin) not in (3, 6) or min(margin) < 0:
        raise ParameterError(f"margin {margin_size} must be three or six numbers of at least 0: low z y x, high z y x")
    low, high = as_zyx(margin[:3], name="margin"), as_zyx(margin[-3:], name="margin")
    if any(a + b >= s for a, b, s in zip(low, high, volume.box.shape, strict=True)):
        raise ParameterError(f"margins {low} and {high} leave nothing of a volume of {volume.box.shape} voxels (zyx)")
    inner: BoundingBox = volume.box.shrink(low, high)
    return volume.crop(inner)
