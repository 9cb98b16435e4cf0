"""A task that is done, taken out of its queue."""

from __future__ import annotations

from typing import Any

from daskflow.errors import ParameterError
from daskflow.volume import AfterTask, BoxTask, operator


@operator(always=True)
def delete_task_in_queue(task: BoxTask) -> AfterTask:
    """Take the task out of its queue, once all is written or the task is skipped.

    Returns:
        What is done then.

    Raises:
        ParameterError: the task is not of a queue.
    """
    message = task.message
    if message is None:
        raise ParameterError("the task is not of a queue; begin the line with fetch-task-from-sqs")

    def delete(report: Any) -> None:  # noqa: ARG001
        message.delete()

    return AfterTask(delete)
