"""A task whose box is moved or resized."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.volume import BoxTask, Flag, operator


@operator()
def adjust_bbox(task: BoxTask, *, corner_offset: Annotated[Sequence[int], Flag("-c")]) -> BoxTask:
    """Move the corners of the task's box, for the commands that follow.

    Args:
        corner_offset: what is added to the start (z y x) and to the stop (z y x) of the box.

    Returns:
        The task with the other box.

    Raises:
        ParameterError: not six numbers.
        GeometryError: the stop would lie before the start.
    """
    if len(corner_offset) != 6:
        raise ParameterError(f"corner_offset {tuple(corner_offset)} must be six numbers: start z y x, stop z y x")
    start = [a + b for a, b in zip(task.box.start, corner_offset[:3], strict=True)]
    stop = [a + b for a, b in zip(task.box.stop, corner_offset[3:], strict=True)]
    box = BoundingBox((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return dataclasses.replace(task, box=box)
