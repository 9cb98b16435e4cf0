"""Tasks whose chunks are stored already."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from daskflow.errors import AlignmentError
from daskflow.geometry import BlockGrid
from daskflow.operators import options
from daskflow.stores.opening import find_store
from daskflow.volume import BoxTask, Flag, operator


@operator()
def skip_task_by_blocks_in_volume(
    task: BoxTask, *, volume_path: Annotated[str, Flag("-v")], mip: options.Mip = 0
) -> BoxTask | None:
    """Skip a task if all chunks, or shards, of its box are stored in a layer.

    Any other is done again, whatever an earlier run of the line has noted.

    Args:
        volume_path: path or URL of the layer that is written.

    Returns:
        The task, or nothing.

    Raises:
        AlignmentError: the box fills a chunk or a shard in part.
        ParameterError: it is a file, no layer of chunks.
    """
    store = find_store(volume_path, mip=mip)
    if store is None:
        return task
    store.levels()  # refuses files
    spec = store.spec
    box = task.box.clip(spec.box)
    unit = spec.write_unit or spec.box.shape
    if box.align(unit, spec.chunk_origin or spec.box.start).clip(spec.box) != box:
        raise AlignmentError(
            f"the task {task.box} (z0-z1_y0-y1_x0-x1) fills chunks or shards of {unit} voxels (zyx) of {volume_path} in"
            " part; cut tasks with --aligned-block-size"
        )
    stored = sum(1 for _ in store.stored_chunks(box))
    whole = stored >= len(BlockGrid(box, unit, spec.chunk_origin))
    return None if whole else dataclasses.replace(task, missing=True)
