"""One box that a line works on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, as_zyx
from daskflow.volume import Flag, ListedTasks, Tasks, operator


@operator()
def create_bbox(
    *,
    start: Annotated[Sequence[int], Flag("-s")],
    stop: Annotated[Sequence[int] | None, Flag("-p")] = None,
    size: Annotated[Sequence[int] | None, Flag("-z")] = None,
) -> Tasks:
    """Make the line work on one box: the commands after it write only that.

    Args:
        start: first voxel of the box (zyx).
        stop: where the box ends (zyx), itself outside.
        size: voxels of the box (zyx), instead of a stop.

    Returns:
        The task.

    Raises:
        ParameterError: not one of a stop and a size.
    """
    if (stop is None) == (size is None):
        raise ParameterError(f"give one of stop and size of the box, got stop={stop}, size={size}")
    first = as_zyx(start, name="start")
    if size is not None:
        return ListedTasks((BoundingBox.from_size(first, size),))
    return ListedTasks((BoundingBox(first, as_zyx(stop or (), name="stop")),))
