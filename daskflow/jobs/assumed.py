"""What is taken for granted where a source does not state it."""

from __future__ import annotations

import logging

from daskflow.jobs.evaluate import VoxelTask
from daskflow.stores import kvstore
from daskflow.volume import Volume
from daskflow.volume.node import Stored

_log = logging.getLogger(__name__)


def assumed_voxel_size(volume: Volume) -> tuple[str, ...]:
    """Return the warning for what needs nm of a volume of unknown voxel size, which is taken as 1 nm."""
    if volume.voxel_size is not None:
        return ()
    unknown = [n for n in sources(volume) if n.spec.voxel_size is None]
    urls = dict.fromkeys(kvstore.redact(n.store.url) for n in unknown if n.store.opened is not None)
    of = f" of {', '.join(urls)}" if urls else ""
    taken = f"the voxel size{of} is unknown and taken as 1 nm"
    return (f"{taken}; open it with --voxel-size Z Y X, in nm (in Python: voxel_size=(z, y, x))",)


def sources(volume: Volume) -> list[Stored]:
    """Return the stored volumes that a volume is read from, also by the stages that it waits for."""
    tasks = [stage.task for stage in volume.expression.stages]
    expressions = [volume.expression, *(task.expression for task in tasks if isinstance(task, VoxelTask))]
    return [node for one in expressions for node in one.nodes if isinstance(node, Stored)]


def warn(warnings: tuple[str, ...]) -> None:
    """Tell the user, once, what is taken for granted."""
    for line in warnings:
        _log.warning("warning: %s", line)
