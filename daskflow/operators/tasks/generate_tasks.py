"""A grid of boxes: for the commands of a line, for a file, or for a queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, Zyx, as_zyx
from daskflow.operators.tasks._listed import PublishedTasks, number_of
from daskflow.stores.opening import open_store
from daskflow.volume import Flag, Tasks, operator


@operator()
def generate_tasks(
    *,
    volume_path: Annotated[str | None, Flag("-v")] = None,
    mip: Annotated[int, Flag("-m")] = 0,
    roi_start: Annotated[Sequence[int] | None, Flag("-s")] = None,
    roi_stop: Annotated[Sequence[int] | None, Flag("-r")] = None,
    roi_size: Annotated[Sequence[int] | None, Flag("-z")] = None,
    chunk_size: Annotated[Sequence[int] | None, Flag("-c")] = None,
    stride: Sequence[int] | None = None,
    bounding_box: Annotated[str | None, Flag("-b")] = None,
    grid_size: Annotated[Sequence[int] | None, Flag("-g")] = None,
    file_path: Annotated[str | None, Flag("-f")] = None,
    queue_name: Annotated[str | None, Flag("-q")] = None,
    respect_chunk_size: bool = True,
    aligned_block_size: Annotated[Sequence[int] | None, Flag("-a")] = None,
    task_index_start: Annotated[int, Flag("-i")] = 0,
    task_index_stop: Annotated[int | None, Flag("-p")] = None,
    disbatch: Annotated[bool, Flag("-d")] = False,
) -> Tasks:
    """Cut a region into boxes, x fastest: the line runs for each of them, or they go to a file or a queue.

    The region is a box, or start and stop or size, or the volume; what of these is not given is the volume's. Commands
    that follow run for all boxes, as one job that can be stopped and resumed.

        roi start      grid 3 x chunk           roi stop
           |---------|---------|-----|···|
           |    0    |    1    |    2    |      respect_chunk_size; without, 2 ends at the stop

    Args:
        volume_path: layer or file whose box is the region.
        mip: pyramid level in whose voxels all numbers are.
        roi_start: first voxel of the region (zyx).
        roi_stop: where the region ends (zyx), itself outside.
        roi_size: voxels of the region (zyx), instead of a stop.
        chunk_size: voxels of a box (zyx).
        stride: voxels from one box to the next (zyx), which must be the chunk size, as boxes are written.
        bounding_box: one box, z0-z1_y0-y1_x0-x1, as the only task.
        grid_size: boxes per axis (zyx); by default as many as cover the region.
        file_path: NPY file for the boxes, a row of start and stop each, or a text file (.txt) with one in each line.
        queue_name: SQS queue to which the boxes are sent; it is made if there is none.
        respect_chunk_size: let all boxes have the chunk size, also where they reach beyond the region.
        aligned_block_size: grow the region to multiples of such blocks (zyx), of which a chunk is made.
        task_index_start: first of the boxes that are wanted, from 0.
        task_index_stop: where the boxes that are wanted end, itself outside.
        disbatch: only the box whose number is in the environment variable DISBATCH_REPEAT_INDEX.

    Returns:
        The tasks; nothing has been stored or sent.

    Raises:
        ParameterError: the region or the chunk size is not given, given twice, or does not fit.
    """
    if bounding_box is not None:
        grid = _one(bounding_box, chunk_size)
    else:
        if chunk_size is None:
            raise ParameterError("give the chunk_size: voxels of a box (zyx)")
        chunk = as_zyx(chunk_size, name="chunk_size")
        if stride is not None and as_zyx(stride, name="stride") != chunk:
            raise ParameterError(
                f"stride {tuple(stride)} is not the chunk size {chunk} (zyx): boxes that are written must not overlap,"
                " and context is read by --expand-margin-size"
            )
        whole = None if volume_path is None else open_store(volume_path, mip=mip).spec.box
        boxes = None if grid_size is None else as_zyx(grid_size, name="grid_size")
        region = _region(whole, chunk, boxes, roi_start, roi_stop, roi_size)
        if aligned_block_size is not None:
            region = _aligned(region, chunk, as_zyx(aligned_block_size, name="aligned_block_size"))
        covered = region.align(chunk, region.start)
        if boxes is not None:
            covered = BoundingBox.from_size(region.start, _times(boxes, chunk))
        grid = BlockGrid(covered if respect_chunk_size else covered.clip(region), chunk, region.start)
    if disbatch:
        task_index_start = number_of("DISBATCH_REPEAT_INDEX", "disbatch")
        task_index_stop = task_index_start + 1
    chosen = range(len(grid))[task_index_start:task_index_stop]
    if not chosen:
        raise ParameterError(f"there is no task from {task_index_start} to {task_index_stop} of {len(grid):,}")
    return PublishedTasks(grid, chosen, file_path, queue_name)


def _one(text: str, chunk_size: Sequence[int] | None) -> BlockGrid:
    box = BoundingBox.from_string(text)
    if chunk_size is not None and as_zyx(chunk_size, name="chunk_size") != box.shape:
        raise ParameterError(f"bounding_box {box} has {box.shape} voxels (zyx), not the chunk_size {tuple(chunk_size)}")
    return BlockGrid(box, box.shape)


def _region(
    whole: BoundingBox | None,
    chunk: Zyx,
    boxes: Zyx | None,
    start: Sequence[int] | None,
    stop: Sequence[int] | None,
    size: Sequence[int] | None,
) -> BoundingBox:
    """Return the region that the options name, of a volume if one is given."""
    if stop is not None and size is not None:
        raise ParameterError(f"both roi_stop {tuple(stop)} and roi_size {tuple(size)} are given; drop one of them")
    first = as_zyx(start, name="roi_start") if start is not None else whole.start if whole else (0, 0, 0)
    if size is not None:
        return BoundingBox.from_size(first, size)
    if stop is not None:
        return BoundingBox(first, as_zyx(stop, name="roi_stop"))
    if whole is not None:
        return BoundingBox(first, whole.stop)
    if boxes is not None:
        return BoundingBox.from_size(first, _times(boxes, chunk))
    raise ParameterError("the region is not known: give roi_stop, roi_size, grid_size or volume_path")


def _aligned(region: BoundingBox, chunk: Zyx, block: Zyx) -> BoundingBox:
    if any(c % b for c, b in zip(chunk, block, strict=True)):
        raise ParameterError(f"chunk_size {chunk} is not a multiple of aligned_block_size {block} (zyx)")
    return region.align(block)


def _times(boxes: Zyx, chunk: Zyx) -> Zyx:
    return as_zyx([b * c for b, c in zip(boxes, chunk, strict=True)])
