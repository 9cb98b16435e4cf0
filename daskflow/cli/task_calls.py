"""An operator in a line: in a line of tasks, what writes gets the part of its volumes that the task is about."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from daskflow.cli.chain import NOTHING, Chain
from daskflow.errors import AlignmentError, BoundsError, ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec, as_zyx
from daskflow.redaction import redact

if TYPE_CHECKING:
    from daskflow.jobs import Job
    from daskflow.volume import BoxTask, Operator, Volume

_OF_A_TASK = {"inference": ("output_crop_margin", "patch_num")}  # what the box of a task says, wherever it is cut
_NAMES = ("url", "file_name", "file_path")


def call(operator: Operator, chain: Chain, inputs: list[Volume], given: list[Any], values: dict[str, Any]) -> Any:
    """Call an operator; in a line of tasks, what writes gets the part of its volumes that the task is about.

    All else works on whole volumes, lazily, so that no result depends on how the boxes are cut; options that say how
    large a task's chunk is or becomes are left out. What needs a pass over its whole volume gets the part that all
    tasks are about.
    """
    from daskflow.jobs import Job
    from daskflow.volume import Volume

    task = chain.task
    if operator.takes_task:
        return operator.function(_task_of(chain, inputs), *inputs, *given, **values)
    if task is None:
        return operator.function(*inputs, *given, **values)
    if not operator.inputs:
        reading = values if operator.in_task is None else operator.in_task(values, task.box)
        if reading != values:
            chain.one_task()
        if reading is None:
            return NOTHING
        result = operator.function(*given, **reading)
        if isinstance(result, Volume):
            chain.reads = chain.reads or result.spec
            chain.own |= _read_by(result) if reading != values else set()
        return result
    if operator.returns is Job:
        return _sink(operator, chain, task, inputs, given, values)
    values = {name: value for name, value in values.items() if name not in _OF_A_TASK.get(operator.name, ())}
    if operator.by_task is not None and operator.by_task(*inputs, *given, **values):
        chain.one_task()
        parts = [_part(one, chain, task.box) if isinstance(one, Volume) else one for one in inputs]
        return operator.function(*parts, *given, **values)
    result = operator.function(*inputs, *given, **values)
    if not _waits(result) or any(map(_waits, inputs)):
        return result
    if chain.region is None:
        raise ParameterError(
            "it needs a pass over the whole volume, which the tasks of a queue cannot share; run it in a line of its"
            " own, save its result, and read that here"
        )
    parts = [_part(one, chain, chain.region) if isinstance(one, Volume) else one for one in inputs]
    return operator.function(*parts, *given, **values)


def _task_of(chain: Chain, inputs: Sequence[Volume]) -> BoxTask:
    from daskflow.volume import BoxTask

    if chain.task is None and not inputs:
        raise ParameterError(
            "there is no task; begin the line with create-bbox, generate-tasks, fetch-task-from-file or"
            " fetch-task-from-sqs"
        )
    return chain.one_task() or BoxTask(inputs[0].box, alone=True)


def _waits(one: Any) -> bool:
    """Return whether it is a volume that waits for a pass over voxels."""
    from daskflow.jobs.evaluate import VoxelTask
    from daskflow.volume import Volume

    return isinstance(one, Volume) and any(isinstance(stage.task, VoxelTask) for stage in one.expression.stages)


def _sink(
    operator: Operator, chain: Chain, task: BoxTask, inputs: list[Volume], given: list[Any], values: dict[str, Any]
) -> Any:
    """Return the job of a sink on the task's box alone, in the place that this has in what all tasks write."""
    from daskflow.jobs.evaluate import data_box
    from daskflow.volume import Volume

    known = inspect.signature(operator.function).parameters
    values = dict(values)
    volumes = [one for one in inputs if isinstance(one, Volume)]
    if "bounds" in known and values.get("bounds") is None and volumes:
        values["bounds"] = data_box(volumes[0]).clip(volumes[0].box)
    if "overwrite" in known and task.again:
        values["overwrite"] = True
    if "file_path" in values:
        values["file_path"] = _prefixed(values["file_path"], task)
    if not task.alone:
        given = [
            _named(value, task) if parameter.name in _NAMES else value
            for parameter, value in zip([one for one in operator.parameters if one.positional], given, strict=True)
        ]
        values = {name: _named(value, task) if name in _NAMES else value for name, value in values.items()}
    if "bounding_box" in known:
        chain.one_task()
        values["bounding_box"] = str(_part(inputs[0], chain, task.box).box)
        return operator.function(*inputs, *given, **values)
    parts = [_part(one, chain, task.box) if isinstance(one, Volume) else one for one in inputs]
    if operator.in_task is not None and all(part.box in task.box for part in parts):
        values = operator.in_task(values, task.box) or values  # a file of less is still that of the task
    job = operator.function(*parts, *given, **values)
    if values.get("upload_log") or {one.kind for stage in job.given for one in stage.task.makes()} != {"level"}:
        chain.one_task()
    if not task.alone and (read := set().union(*map(_read_by, volumes))) and read <= chain.own:
        _refuse_new_layer(job, volumes[0].spec)
    return job


def _read_by(volume: Volume) -> set[str]:
    from daskflow.jobs.evaluate import sources

    return {node.store.url for node in sources(volume)}


def _refuse_new_layer(job: Job, spec: VolumeSpec) -> None:
    """Raise where a job that reads files of one task makes a layer for all of them: no file says how large it is."""
    from daskflow.stores.opening import find_store

    level = next((one for stage in job.given for one in stage.task.makes() if one.kind == "level"), None)
    if level is not None and find_store(level.url, mip=level.mip or 0) is None:
        url = redact(level.url)
        size = "Z Y X" if spec.voxel_size is None else " ".join(f"{value:g}" for value in spec.voxel_size)
        raise ParameterError(
            f"{url} has no level {level.mip}, and each task reads its own file, which is {spec.box} (z0-z1_y0-y1_x0-x1)"
            f" here; create the layer for all tasks first: create-info -v {url} -d {spec.dtype} -s {size} -z Z Y X"
            " -o Z Y X -b Z Y X"
        )


def _named(value: Any, task: BoxTask) -> Any:
    """Return the name of a file with the task's box in it, without which each task would write the same file."""
    if not isinstance(value, str | os.PathLike) or str(task.box) in os.fspath(value):
        return value
    path, ending = os.fspath(value), _ending(os.fspath(value))
    return f"{path.removesuffix(ending)}_{task.box}{ending}" if ending else value


def _ending(path: str) -> str:
    """Return how the name of a file ends, with the dataset in it; nothing of a directory, a layer or a prefix."""
    from daskflow.stores.opening import by_suffix, split_dataset

    name, _ = split_dataset(path)
    files = [known for known in by_suffix(name) if not (known.store.of_chunks or known.store.sections)]
    suffixes = sorted([".json", *(suffix for known in files for suffix in known.suffixes)], key=len, reverse=True)
    found = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")
    return path[len(name) - len(found) :] if found else ""


def _prefixed(path: str, task: BoxTask) -> str:
    """Return the file in a directory, or whose name begins so, that is a task's; the same file if it has an ending."""
    from daskflow.stores.opening import begins_with_box

    return path if _ending(path) else begins_with_box(path, task.box)


def _part(volume: Volume, chain: Chain, box: BoundingBox) -> Volume:
    """Return the part of a volume inside a box of the level that the line reads; what has no data is left out.

    Raises:
        AlignmentError: voxels of the volume lie in the box in part.
        BoundsError: the volume does not hold what of the box the data do.
    """
    from daskflow.jobs.evaluate import data_box

    if chain.reads is not None:
        box = _rescaled(box, volume.spec, chain.reads)
    wanted = box.clip(data_box(volume))
    if wanted.empty:
        raise BoundsError(f"the task {box} lies outside the volume {volume.box} (z0-z1_y0-y1_x0-x1)")
    if wanted not in volume.box:
        raise BoundsError(
            f"the task {box} reaches out of the result, {volume.box} (z0-z1_y0-y1_x0-x1): read a margin as large as"
            " what is cropped, --expand-margin-size"
        )
    return volume.crop(wanted)


def _rescaled(box: BoundingBox, spec: VolumeSpec, reads: VolumeSpec) -> BoundingBox:
    """Return the box in voxels of a volume."""
    ratios = spec.ratio(reads)
    coarser = as_zyx([max(1, round(ratio)) for ratio in ratios])
    finer = as_zyx([max(1, round(1 / ratio)) for ratio in ratios])
    found = box.coarsen(coarser).refine(finer)
    covered = found.coarsen(finer).refine(coarser)
    if covered.clip(reads.box) != box.clip(reads.box):
        raise AlignmentError(
            f"the task {box} (z0-z1_y0-y1_x0-x1) fills voxels of {spec.size_text} (zyx) in part; nearest is {covered}"
        )
    return found
