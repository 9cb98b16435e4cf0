"""How long stages took, as metrics of CloudWatch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from daskflow.layers.log import compute_device
from daskflow.operators.tasks._sqs import aws, told
from daskflow.volume import AfterTask, operator

_MOST = 1000  # metrics in a request, as CloudWatch has it


@operator()
def cloud_watch(*, log_name: str = "chunkflow") -> AfterTask:
    """Send how many seconds every stage took to CloudWatch, once the line has written all that it writes.

    Every stage is a metric, with the compute device as its dimension. Credentials and region are those of the
    environment, as for boto3.

    Args:
        log_name: namespace of the metrics.

    Returns:
        What is done then.

    Raises:
        MissingDependencyError: boto3 is not installed.
    """
    client = aws("cloudwatch")

    def send(report: Any) -> None:
        now = datetime.now(UTC)
        device = [{"Name": "compute_device", "Value": compute_device()}]
        metrics = [
            {"MetricName": name, "Unit": "Seconds", "Value": seconds, "Dimensions": device, "Timestamp": now}
            for name, seconds in timers(report).items()
        ]
        with told(f"CloudWatch {log_name}"):
            for at in range(0, len(metrics), _MOST):
                client.put_metric_data(Namespace=log_name, MetricData=metrics[at : at + _MOST])

    return AfterTask(send)


def timers(report: Any) -> dict[str, float]:
    """Return how many seconds every stage of a report took; nothing of a line that has written nothing."""
    return {} if report is None else {stage.name: stage.seconds for stage in report.stages if stage.seconds}
