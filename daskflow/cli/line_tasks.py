"""A line that works on boxes: its commands are applied to each task, and the tasks of a window run as one job."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from daskflow.cli.chain import Chain, EachTask, Settings, Step, client_for, run_job, say
from daskflow.errors import DaskflowError, ParameterError

if TYPE_CHECKING:
    from daskflow.geometry import BoundingBox
    from daskflow.jobs import Job
    from daskflow.jobs.report import Report
    from daskflow.volume import BoxTask, Tasks
    from daskflow.volume.stage import Output

_TOGETHER = 64  # tasks of a list that are one job at least
_MOST_JOBS = 256  # of a list, each of which keeps a directory
_SHOWN = 5
_HOPELESS = 3  # tasks of a queue of which none can be done


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


def with_queue(name: str, steps: Sequence[Step], settings: Settings) -> list[Step]:
    """Return the commands of a line that empties a queue of its blocks, which is made and filled if there is none.

    Only planning, the tasks of a queue that is not there are shown, and no commands are returned.

    Raises:
        ParameterError: the line says which tasks it has, writes nothing, or is more than what blocks alone can do.
    """
    from daskflow.cli.options import command
    from daskflow.jobs import merge
    from daskflow.operators.tasks._sqs import TaskQueue
    from daskflow.volume import load_operator

    if steps[0].generate:
        raise ParameterError(f"--queue {name} is for lines without tasks; {steps[0].command} has -q, or its own tasks")
    jobs = Chain().apply(steps).jobs
    if not jobs:
        raise ParameterError(f"--queue {name}: the line writes nothing: end it with save")
    stages = merge(jobs).stages
    grid = stages[0].grid
    region = grid.box.align(grid.block, grid.origin or grid.box.start)
    if len(stages) > 1 or not _by_boxes(steps, region, grid.box):
        raise ParameterError(
            f"--queue {name}: blocks alone do not do what this line does; run it with --share instead on each cluster"
        )
    if TaskQueue.find(name) is None:
        where = {"roi_start": region.start, "roi_stop": region.stop, "chunk_size": grid.block}
        tasks = load_operator("generate_tasks").function(**where, queue_name=name)
        if settings.only_plan:
            say(str(tasks))
            return []
        tasks.publish(say)
    fetch, delete = (command(load_operator(one)) for one in ("fetch_task_from_sqs", "delete_task_in_queue"))
    own = [one.main(words, standalone_mode=False) for one, words in ((fetch, ["-q", name]), (delete, []))]
    return [own[0], *steps, own[1]]


def _by_boxes(steps: Sequence[Step], region: BoundingBox, written: BoundingBox) -> bool:
    """Return whether the tasks of a queue that fill a region write a box, and levels of layers alone."""
    from daskflow.jobs import merge
    from daskflow.volume import BoxTask

    try:
        job = merge(Chain(task=BoxTask(region), together=True).apply(steps).jobs)
    except (EachTask, click.ClickException, DaskflowError):
        return False
    return job.stages[0].grid.box == written


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
