"""Tasks for which a file is there, or is not."""

from __future__ import annotations

from typing import Annotated, Literal

from daskflow.operators.tasks._flags import flag_url, holds_something
from daskflow.stores import kvstore
from daskflow.volume import BoxTask, Flag, operator


@operator()
def skip_task_by_file(
    task: BoxTask,
    *,
    prefix: Annotated[str, Flag("-p")],
    suffix: Annotated[str, Flag("-s")] = "",
    mode: Annotated[Literal["missing", "empty", "exist"], Flag("-m")] = "exist",
    adjust_size: Annotated[int | None, Flag("-a")] = None,
) -> BoxTask | None:
    """Skip a task if a file named by its box exists, or does not.

    A task that is skipped is done: the commands that follow do nothing for it, but delete-task-in-queue does.

    Args:
        prefix: beginning of the path or URL of the file, before the box.
        suffix: end of the path or URL, after the box.
        mode: skip if the file exists (exist), if it does not (missing), or if it does not or holds nothing (empty).
        adjust_size: voxels by which the box in the name is larger on every side; smaller if negative.

    Returns:
        The task, or nothing.
    """
    url = flag_url(prefix, task.box, suffix, adjust_size)
    if mode == "empty":
        return task if holds_something(url) else None
    return None if kvstore.exists(url) == (mode == "exist") else task
