"""The lazy Volume, its expression and its evaluation, and the operator registry."""

from daskflow.volume.expression import Expression
from daskflow.volume.registry import (
    Flag,
    Operator,
    Parameter,
    describe_operator,
    has_operator,
    load_file,
    load_operator,
    operator,
    operator_names,
)
from daskflow.volume.stage import BlockResult, Estimate, Stage, Task, in_order, numbered
from daskflow.volume.tasks import AfterTask, BoxTask, ListedTasks, Tasks
from daskflow.volume.volume import Volume

__all__ = [
    "AfterTask",
    "BlockResult",
    "BoxTask",
    "Estimate",
    "Expression",
    "Flag",
    "ListedTasks",
    "Operator",
    "Parameter",
    "Stage",
    "Task",
    "Tasks",
    "Volume",
    "describe_operator",
    "has_operator",
    "in_order",
    "load_file",
    "load_operator",
    "numbered",
    "operator",
    "operator_names",
]
