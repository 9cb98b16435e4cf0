"""A file that says that a task is done."""

from __future__ import annotations

from typing import Annotated, Any

from daskflow.operators.tasks._flags import flag_url, touch
from daskflow.volume import AfterTask, BoxTask, Flag, operator


@operator()
def mark_complete(
    task: BoxTask, *, prefix: Annotated[str, Flag("-p")], suffix: Annotated[str, Flag("-s")] = ""
) -> AfterTask:
    """Make an empty file named by the task's box, once the line has written all that it writes.

    Args:
        prefix: beginning of the path or URL of the file, before the box.
        suffix: end of the path or URL, after the box.

    Returns:
        What is done then.
    """
    url = flag_url(prefix, task.box, suffix)

    def mark(report: Any) -> None:  # noqa: ARG001
        touch(url)

    return AfterTask(mark)
