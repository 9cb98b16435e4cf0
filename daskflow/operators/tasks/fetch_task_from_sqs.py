"""Boxes of a queue that a line works on."""

from __future__ import annotations

from typing import Annotated

from daskflow.errors import ParameterError
from daskflow.operators.tasks._sqs import QueueTasks, TaskQueue
from daskflow.volume import Flag, Tasks, operator


@operator()
def fetch_task_from_sqs(
    *,
    queue_name: Annotated[str, Flag("-q")],
    visibility_timeout: Annotated[int | None, Flag("-v")] = None,
    num: Annotated[int, Flag("-n")] = -1,
    retry_times: Annotated[int, Flag("-r")] = 30,
) -> Tasks:
    """Make the line work on the boxes of an SQS queue until it is empty.

    Any number of lines may share a queue. As many boxes as the cluster has workers run at once. A box that is fetched
    is hidden from other lines, and stays so while it runs; of a line that dies, others see it again after the timeout,
    and replace what was begun. delete-task-in-queue at the end of the line takes out what is done. Credentials and
    region are those of the environment, as for boto3.

    Args:
        queue_name: name or URL of the queue.
        visibility_timeout: seconds after which others see the boxes of a line that has died; that of the queue unless
            given.
        num: how many boxes to take at most; any number if negative.
        retry_times: how often to ask again, each time for 20 seconds, while other lines hold all that is left.

    Returns:
        The tasks.

    Raises:
        ParameterError: there is no such queue, or a timeout below 1.
        MissingDependencyError: boto3 is not installed.
    """
    queue = TaskQueue.find(queue_name)
    if queue is None:
        raise ParameterError(f"there is no queue {queue_name!r}; make one: generate-tasks --queue-name {queue_name}")
    timeout = queue.timeout if visibility_timeout is None else visibility_timeout
    if timeout < 1:
        raise ParameterError(f"visibility_timeout {timeout} must be at least 1 second")
    return QueueTasks(queue, timeout, None if num < 0 else num, retry_times)
