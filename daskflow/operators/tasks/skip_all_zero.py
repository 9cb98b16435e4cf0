"""Tasks in whose box a volume is zero."""

from __future__ import annotations

from typing import Annotated

from daskflow.operators.tasks._flags import flag_url, touch
from daskflow.volume import BoxTask, Flag, Volume, operator


@operator()
def skip_all_zero(
    task: BoxTask,
    volume: Volume,
    *,
    prefix: Annotated[str | None, Flag("-p")] = None,
    suffix: Annotated[str, Flag("-s")] = "",
    adjust_size: Annotated[int | None, Flag("-a")] = None,
    chunk_bbox: bool = True,
) -> BoxTask | None:
    """Skip a task if the volume is zero in all of its box, which is computed for that.

    One block from the middle of the box decides, unless it is zero. Without tasks the box is that of the volume.

    Args:
        volume: the volume.
        prefix: beginning of the path or URL, before the box, of an empty file that is made if the task is skipped.
        suffix: end of the path or URL, after the box.
        adjust_size: voxels by which the box in the name is larger on every side; smaller if negative.
        chunk_bbox: name the file by the part of the box that the volume has, instead of the task's box.

    Returns:
        The task, or nothing.
    """
    box = task.box.clip(volume.box)
    if not box.empty and _holds_something(volume.crop(box)):
        return task
    if prefix is not None:
        touch(flag_url(prefix, box if chunk_bbox else task.box, suffix, adjust_size))
    return None


def _holds_something(volume: Volume) -> bool:
    middle = volume.grid[len(volume.grid) // 2]
    return bool(volume.read(middle).any()) or bool(volume.data.any().compute())
