"""A line that works on boxes: its commands are applied to each task, and the tasks of a window run as one job."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import os
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from daskflow.cli.chain import NOTHING, Chain, EachTask, Settings, Step, client_for, run_job, say
from daskflow.errors import AlignmentError, BoundsError, DaskflowError, ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox, VolumeSpec, as_zyx
from daskflow.redaction import redact

if TYPE_CHECKING:
    from daskflow.jobs import Job
    from daskflow.jobs.report import Report
    from daskflow.volume import BoxTask, Operator, Tasks, Volume
    from daskflow.volume.stage import Output

_TOGETHER = 64  # tasks of a list that are one job at least
_MOST_JOBS = 256  # of a list, each of which keeps a directory
_SHOWN = 5
_HOPELESS = 3  # tasks of a queue of which none can be done
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
    result = operator.function(*inputs, *given, **values)
    if isinstance(result, Job):  # of a plugin that returns nothing
        chain.one_task()
        parts = [_part(one, chain, task.box) if isinstance(one, Volume) else one for one in inputs]
        return operator.function(*parts, *given, **values)
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
    from daskflow.stores.opening import open_store

    level = next((one for stage in job.given for one in stage.task.makes() if one.kind == "level"), None)
    if level is None:
        return
    try:
        open_store(level.url, mip=level.mip or 0)
    except StoreNotFoundError as error:
        size = "Z Y X" if spec.voxel_size is None else " ".join(f"{value:g}" for value in spec.voxel_size)
        raise ParameterError(
            f"{redact(level.url)} has no level {level.mip}, and each task reads its own file, which is {spec.box}"
            f" (z0-z1_y0-y1_x0-x1) here; create the layer for all tasks first: create-info -v {redact(level.url)}"
            f" -d {spec.dtype} -s {size} -z Z Y X -o Z Y X -b Z Y X"
        ) from error


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


def run_tasks(steps: Sequence[Step], settings: Settings) -> int:
    """Run a line for each of its tasks; return the exit status: 0, 2 where tasks failed, 130 after Ctrl-C."""
    from daskflow.jobs import Interrupted

    first, *others = steps
    assert first.generate is not None
    with first.named():
        tasks = first.generate()
        if tasks.elsewhere and others:
            raise ParameterError(
                f"the tasks go to other lines: put {others[0].command} and what follows into the line that fetches them"
            )
        if settings.only_plan:
            say(str(tasks))
        else:
            tasks.publish(say)
    if not others:
        return 0
    with client_for(settings) as client:
        try:
            return _TaskLine(tasks, others, client, settings).run()
        except Interrupted:
            return 130


class _TaskLine:
    """The commands after the one that says the tasks, what they run on, and what became of them."""

    def __init__(self, tasks: Tasks, steps: Sequence[Step], client: Any, settings: Settings) -> None:
        self.tasks, self.steps, self.client, self.settings = tasks, steps, client, settings
        self.failed: list[str] = []
        self._line = " ".join(step.command for step in steps)
        self.done = self.skipped = 0
        self._noted: set[Any] = set()

    def run(self) -> int:
        """Run window after window, and say what became of the tasks."""
        as_one = self._as_one()
        each = self.tasks.windows(self._most) if as_one is None else (window for window in [[as_one]])
        with contextlib.closing(each) as windows:
            for window in windows:
                if self.settings.only_plan:
                    self._run(window)
                    return 0
                if not self._settle(window):
                    self._retry(window)
        if as_one is not None:
            if self.failed:
                return 2  # the report has said what has failed
            self.done = len(self.tasks.listed)
        if not self.settings.quiet:
            skipped = f", {self.skipped:,} of them skipped" if self.skipped else ""
            say(f"{self.done:,} task{'s' * (self.done != 1)} done{skipped}")
        if self.failed:
            shown = ", ".join(self.failed[:_SHOWN])
            more = f" and {len(self.failed) - _SHOWN:,} more" if len(self.failed) > _SHOWN else ""
            say(f"{len(self.failed):,} failed: {shown}{more}", err=True)
        return 2 if self.failed else 0

    def _as_one(self) -> BoxTask | None:
        """Return the task that does what all tasks would, where no command does something of its own for each.

        It is one job, whose blocks do not wait for those of other tasks; none is begun here.
        """
        from daskflow.volume import BoxTask

        box = self.tasks.tiled
        if box is None:
            return None
        chain = Chain(task=BoxTask(box), region=box, together=True)
        try:
            chain.apply(self.steps)
        except (EachTask, click.ClickException, DaskflowError):  # what is refused is refused for a task
            return None
        return chain.task if chain.jobs and not chain.after else None

    def _most(self) -> int:
        """Return how many tasks run at once: of a queue as many as there are workers, whom others wait for."""
        if self.tasks.resumes:
            return max(_TOGETHER, -(-len(self.tasks.listed) // _MOST_JOBS))
        info = getattr(self.client, "scheduler_info", None)
        return 1 if info is None else max(1, len(info(n_workers=-1)["workers"]))

    def _retry(self, window: Sequence[BoxTask]) -> None:
        """Take the tasks of a window that failed one by one, where no later run would go on with them together."""
        alone = [] if self.tasks.resumes or len(window) == 1 else window
        for task in window if not alone else ():
            self._give_up(task)
        for task in alone:
            again = dataclasses.replace(task, again=True)
            if not self._settle([again]):
                self._give_up(again)

    def _give_up(self, task: BoxTask) -> None:
        self.failed.append(str(task.box))
        if task.message is not None:
            task.message.release()

    def _settle(self, window: Sequence[BoxTask]) -> bool:
        """Run a window; return whether all of it is done, and what follows then is, too.

        What tasks of a queue are refused for is shown, and the others go on, unless no task can be done.
        """
        from daskflow.jobs.outputs import forget

        try:
            chains, job, report = self._run(window)
        except (click.ClickException, DaskflowError) as error:
            if self.tasks.resumes or (self.done == 0 and len(self.failed) >= _HOPELESS):
                raise
            say(f"{window[0].box}: {error.message if isinstance(error, click.ClickException) else error}", err=True)
            return False
        if report is not None and not report.ok:
            return False
        outputs = () if job is None else job.outputs
        for chain in chains:
            own = report and _own(report, outputs, chain)
            for act in chain.after:
                act(own)
        if job is not None and job.directory is not None and not self.tasks.resumes:
            forget(job.home)  # what is left in the queue says what is left to do
        self.done += len(chains)
        self.skipped += sum(chain.skipped for chain in chains)
        for task in window:
            if task.message is not None:
                task.message.release()
        return True

    def _run(self, window: Sequence[BoxTask]) -> tuple[list[Chain], Job | None, Report | None]:
        chains = [Chain(task=task, region=self.tasks.region).apply(self.steps) for task in window]
        jobs = [job for chain in chains for job in chain.jobs]
        if not jobs:
            return chains, None, None
        tasks = str(window[0].box) if len(window) == 1 else f"{window[0].box} and {len(window) - 1} more tasks"
        boxes = [str(task.box) for task, chain in zip(window, chains, strict=True) if chain.jobs]
        some = " ".join(boxes) if len(boxes) < len(window) else ""
        job = dataclasses.replace(self._merged(jobs, some), name=f"{self._line} of {tasks}")
        if any(chain.task is not None and chain.task.missing for chain in chains) and not self.settings.only_plan:
            self._reopen(job)
        return chains, job, run_job(job, self.client, self.settings, brief=True)

    def _reopen(self, job: Job) -> None:
        """Let a job that has finished do all of it again."""
        from daskflow.jobs.lock import Lease

        if job.directory is not None and (report := job.home.load_report()) is not None and report.ok:
            with Lease(job.home.lock):
                job.home.clear()

    def _merged(self, jobs: Sequence[Job], some: str) -> Job:
        """Return one job of several.

        That of tasks of a queue has a place of its own, as others may have the same tasks, and so has that of `some` of
        a list, without those that are skipped, as others are next time.
        """
        from daskflow.jobs import merge
        from daskflow.layers.provenance import WriteProvenance

        job = merge(jobs, command=self.settings.command)
        finish = []
        for one in job.finish:
            if isinstance(one, WriteProvenance):  # once a line, which may have thousands of tasks
                if one in self._noted:
                    continue
                self._noted.add(one)
            finish.append(one)
        place = job.directory
        if place is not None and (some or not self.tasks.resumes):
            which = hashlib.sha256(some.encode()).hexdigest() if self.tasks.resumes else uuid.uuid4().hex
            place = f"{place.rstrip('/').removesuffix('.daskflow')}.{which[:8]}.daskflow/"
        return dataclasses.replace(job, finish=tuple(finish), directory=place)


def _own(report: Report, outputs: Sequence[Output], chain: Chain) -> Report:
    """Return what a report says of the stages that write what one task writes, named as in a job of it alone."""

    def key(one: Output) -> tuple[Any, ...]:
        return one.kind, one.url, one.mip, one.dataset, None if one.grid is None else one.grid["box"]

    names = {key(one): one.stage for own in chain.jobs for one in own.outputs}
    stages = {one.stage: names[key(one)] for one in outputs if key(one) in names}
    kept = (dataclasses.replace(one, name=stages[one.name]) for one in report.stages if one.name in stages)
    return dataclasses.replace(report, stages=tuple(kept))
