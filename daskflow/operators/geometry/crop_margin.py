"""A volume without its margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators import options
from daskflow.volume import Flag, Volume, operator


@operator()
def crop_margin(
    volume: Volume, *, margin_size: Annotated[Sequence[int] | None, Flag("-m")] = None, crop_bbox: bool = False
) -> Volume:
    """Cut a margin off a volume; what is left keeps its global coordinates.

    In a line of tasks, what is written is the box of the task, and the margin that was read around it needs no cutting.

    Args:
        volume: the volume to cut.
        margin_size: voxels cut off: low z, y, x then high z, y, x; three numbers are cut off both sides. In
            a line of tasks it may be left out.
        crop_bbox: cut the margin off the box of the task, too; adjust-bbox does this.

    Returns:
        The inner part.

    Raises:
        ParameterError: not three or six numbers, a negative one, nothing would be left, or `crop_bbox`.
    """
    if crop_bbox:
        raise ParameterError("the box of a task is made smaller before it is read: adjust-bbox with -c and six numbers")
    if margin_size is None:
        return volume
    low, high = options.both_sides(margin_size)
    if any(a + b >= s for a, b, s in zip(low, high, volume.box.shape, strict=True)):
        raise ParameterError(f"margins {low} and {high} leave nothing of a volume of {volume.box.shape} voxels (zyx)")
    inner: BoundingBox = volume.box.shrink(low, high)
    return volume.crop(inner)
