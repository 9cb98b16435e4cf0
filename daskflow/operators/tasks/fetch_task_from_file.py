"""Boxes of a file that a line works on."""

from __future__ import annotations

from typing import Annotated

from daskflow.errors import ParameterError
from daskflow.operators.tasks._listed import number_of, read_boxes
from daskflow.volume import Flag, ListedTasks, Tasks, operator


@operator()
def fetch_task_from_file(
    *,
    file_path: Annotated[str, Flag("-f")],
    job_index: Annotated[int | None, Flag("-i")] = None,
    slurm_job_array: bool = False,
    disbatch: Annotated[bool, Flag("-d")] = False,
    granularity: Annotated[int, Flag("-g")] = 1,
) -> Tasks:
    """Make the line work on boxes of a file: all of them, or those of one job of an array.

    generate-tasks writes such files. A box that is listed twice is one task.

    Args:
        file_path: NPY file with a row of start and stop (zyx) for each box, or text file with one in each line.
        job_index: number of the job, from 0, which has the boxes from `job_index` times `granularity` on.
        slurm_job_array: take the number of the job from SLURM_ARRAY_TASK_ID.
        disbatch: take the number of the job from DISBATCH_REPEAT_INDEX.
        granularity: boxes of each job.

    Returns:
        The tasks.

    Raises:
        ParameterError: the file holds no boxes, or none for this job.
    """
    if sum([job_index is not None, slurm_job_array, disbatch]) > 1:
        raise ParameterError("give one of job_index, slurm_job_array and disbatch")
    boxes = read_boxes(file_path)
    if slurm_job_array or disbatch:
        words = ("SLURM_ARRAY_TASK_ID", "slurm_job_array") if slurm_job_array else ("DISBATCH_REPEAT_INDEX", "disbatch")
        job_index = number_of(*words)
    if granularity < 1 or (job_index is not None and job_index < 0):
        raise ParameterError(f"granularity {granularity} must be at least 1, and job_index {job_index} at least 0")
    if not boxes:
        raise ParameterError(f"{file_path} holds no boxes")
    chosen = boxes if job_index is None else boxes[job_index * granularity : (job_index + 1) * granularity]
    if not chosen:
        raise ParameterError(f"{file_path} holds {len(boxes):,} boxes, none for job {job_index} of {granularity} each")
    return ListedTasks(tuple(dict.fromkeys(chosen)))
