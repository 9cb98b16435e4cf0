"""Named volumes that a line of commands passes on, the jobs that it ends in, and how these are planned and run."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self

import click

from daskflow.cli.wording import as_typed, makers
from daskflow.errors import DaskflowError, ParameterError
from daskflow.redaction import redact

if TYPE_CHECKING:
    from distributed import Client

    from daskflow.clusters import Threads
    from daskflow.geometry import BoundingBox, VolumeSpec
    from daskflow.jobs import Job
    from daskflow.jobs.progress import Progress, Snapshot
    from daskflow.jobs.report import Report
    from daskflow.volume import BoxTask, Tasks, Volume


class EachTask(Exception):
    """A command does for each task what it cannot do for all of them at once."""


NOTHING = object()  # what is read of a file that a task does not have


def say(text: str, *, err: bool = False) -> None:
    """Write a text to the terminal: what may come from a stranger's file is shown there, and does nothing."""
    click.echo(redact(text), err=err)


@dataclass
class Chain:
    """What the commands of one line have made so far: volumes by name, jobs, and what is done once these have run.

    Attributes:
        volumes: by name, and what else is passed on: points, synapses, skeletons, JSON.
        task: the box that the line works on, in a line of tasks.
        together: whether the task stands for all tasks of the line, which tile its box.
        region: the smallest box that holds all tasks, where that is known.
        reads: what the first volume that a line of tasks opens is, in whose voxels boxes count.
        own: URLs of files that only the task reads.
        absent: names for which the task has no file to be read.
        skipped: whether a command has found that there is nothing to do.
        command: the one that is applied.
        unread: names that no command has read yet, and which has made each.
        latest: the name made last.
        later: commands, and what makes the volumes that they get 0 in places.
    """

    volumes: dict[str, Any] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    after: list[Callable[[Report | None], None]] = field(default_factory=list)
    task: BoxTask | None = None
    together: bool = False
    region: BoundingBox | None = None
    reads: VolumeSpec | None = None
    own: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    skipped: bool = False
    command: str = ""
    unread: dict[str, str] = field(default_factory=dict)
    latest: str = ""
    later: list[tuple[str, Callable[[Volume], Volume]]] = field(default_factory=list)

    def apply(self, steps: Sequence[Step]) -> Chain:
        """Apply commands in order; of a task that is skipped, only that it is done is said to its queue."""
        for step in steps:
            if step.always or not self.skipped:
                self.command = step.command
                step(self)
        if self.later and not self.skipped:
            raise ParameterError(f"mask --skip-to {self.later[0][0]}: the line has no such command after it")
        if (self.jobs or self.after) and not self.skipped:
            for name, maker in self.unread.items():
                advice = "save it, or leave the command out" if name == "chunk" else f"one that does has -i {name}"
                raise ParameterError(f"{maker}: no later command reads its result {name!r}; {advice}")
        return self

    def one_task(self) -> BoxTask | None:
        """Return the task, as a command has it that depends on where its box begins and ends.

        Raises:
            EachTask: it stands for all tasks.
        """
        if self.together:
            raise EachTask
        return self.task

    def put(self, name: str, value: Any) -> None:
        """Keep a result under a name.

        Raises:
            ParameterError: no command has read what had the name before.
        """
        if name in self.unread:
            maker = self.unread[name]
            raise ParameterError(f"its result replaces {name!r}, which {maker} has made and no command has read")
        self.volumes[name] = value
        self.absent.discard(name)
        self.unread[name] = self.command
        self.latest = name

    def saved(self, volume: Volume, saved: Volume) -> None:
        """Let later commands that read a volume have what was saved of it, which knows its layer."""
        self.volumes |= {name: saved for name, value in self.volumes.items() if value is volume}

    def _refuse_nested(self, job: Job) -> None:
        """Raise where of two precomputed layers that the line saves one would lie in the other."""
        own = _layers(job)
        for one, other in itertools.product(own, [layer for earlier in self.jobs for layer in _layers(earlier)]):
            inner, outer = max(one, other), min(one, other)
            if inner.startswith(f"{outer}/"):
                raise ParameterError(f"{inner} lies in {outer}, which the line saves, too; save it beside that")

    def usual(self, name: str, kind: Any = None) -> str:
        """Return the name that is read where none is said: the usual one, or without it that of the last result."""
        latest = self.volumes.get(self.latest)
        return self.latest if name not in self.volumes and latest is not None and _is_of(latest, kind) else name

    def volumes_named(self, names: str | None, kind: Any = None) -> list[Any]:
        """Return the volumes that a comma-separated list names, or objects of the `kind` that is wanted instead.

        Unless the line gives that name to something else, bbox is the box of the task.
        """
        from daskflow.stores.objects.located import TaskBox

        known = self.volumes if self.task is None else {"bbox": TaskBox(self.task.box), **self.volumes}
        found = []
        for name in (names or "").split(","):
            if not name:
                continue
            if name in self.absent:
                raise ParameterError(f"the task has no file for {name!r}; skip-none -i {name} leaves such tasks out")
            if name not in known:
                there = ", ".join(sorted(known)) or "none yet: begin with open, load-... or create-chunk"
                advice = makers(kind) or (f"; -o {name} names a result so" if name != "chunk" else "")
                raise ParameterError(f"there is no volume {name!r}; there are: {there}{advice}")
            if name not in self.volumes:
                self.one_task()
            found.append(known[name])
            self.unread.pop(name, None)
            if not _is_of(found[-1], kind):
                wanted = getattr(kind, "__name__", "Volume")
                raise ParameterError(f"it takes {wanted}, and {name!r} is {found[-1]!r}{makers(kind)}")
        return found

    def masked(self, command: str, inputs: list[Any]) -> list[Any]:
        """Return what a command gets of volumes, those masked that an earlier command has said to mask only here."""
        for named, mask in [one for one in self.later if command == one[0] or command.startswith(f"{one[0]}-")]:
            inputs = [mask(one) if _is_of(one, None) else one for one in inputs]
            self.later.remove((named, mask))
        return inputs

    def take(self, result: Any, name: str | None) -> None:
        """Keep what an operator returned: volumes under their names, a job, the task, or that there is none."""
        from daskflow.stores.objects.located import Passed
        from daskflow.volume import AfterTask, BoxTask, Volume

        if isinstance(result, tuple):
            names = (name or "chunk").split(",")
            if len(names) != len(result):
                raise ParameterError(f"it returns {len(result)} volumes; name as many: -o first,second")
            for one, value in zip(names, result, strict=True):
                self.put(one, value)
        elif isinstance(result, Volume | Passed):
            self.put(name or "chunk", result)
        elif isinstance(result, AfterTask):
            self.after.append(result.action)
        elif isinstance(result, BoxTask):
            self.task = result
        elif result is None:
            self.skipped = True
        elif result is NOTHING:
            self.volumes.pop(name or "chunk", None)
            self.absent.add(name or "chunk")
        else:
            self._refuse_nested(result)
            self.jobs.append(result)


def _layers(job: Job) -> set[str]:
    """Return the precomputed layer that a job saves a volume in, if any."""
    level = None if job.volume is None else job.volume.node.saved
    return {level.url} if level is not None and level.format == "precomputed" else set()


def _is_of(value: Any, kind: Any) -> bool:
    """Return whether a result is of a kind of objects, or else a volume."""
    from daskflow.volume import Volume

    return isinstance(value, kind or Volume)


@dataclass(frozen=True)
class Step:
    """One command of the line.

    Attributes:
        command: its name.
        apply: what it does to the chain.
        generate: returns the tasks that it says the line works on.
        always: whether it is applied to a task that is skipped, too.
    """

    command: str
    apply: Callable[[Chain], None]
    generate: Callable[[], Tasks] | None = None
    always: bool = False

    def __call__(self, chain: Chain) -> None:
        """Apply the command."""
        with self.named():
            self.apply(chain)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Put the command's name before what is complained of meanwhile, unless that begins with it."""
        try:
            yield
        except DaskflowError as error:
            named = str(error).startswith((f"{self.command} ", f"{self.command}: "))
            raise click.ClickException(str(error) if named else f"{self.command}: {error}") from error


@dataclass(frozen=True)
class Settings:
    """What the options before the first command said.

    Attributes:
        command: the words of the command line, for a later retry.
        directory: of the job that is retried, to know it again.
    """

    command: tuple[str, ...]
    cluster: str | None
    cluster_options: tuple[str, ...]
    workers: str | None
    threads: int | None
    memory: str | None
    only_plan: bool
    retries: int
    fail_fast: bool
    quiet: bool
    yes: bool
    overwrite: bool
    retry_failed: bool
    share: bool
    directory: str | None

    @classmethod
    def of(cls, options: Mapping[str, Any], command: tuple[str, ...] = (), directory: str | None = None) -> Self:
        """Take the options of the command line's beginning."""
        known = {one.name for one in fields(cls)}
        said = {name: value for name, value in options.items() if name in known}
        return cls(**said, command=command, directory=directory)


def run(chain: Chain, settings: Settings) -> int:
    """Run what the chain ended in; return the exit status: 0, 2 when blocks failed, 130 after Ctrl-C."""
    from daskflow.jobs import Interrupted, merge

    if chain.skipped:
        say("skipped")
    elif not chain.jobs and not chain.after:
        raise ParameterError("the line computes nothing: end it with save, evaluate-segmentation or neuroglancer")
    report = None
    if chain.jobs:
        job = merge(chain.jobs, command=settings.command)
        try:
            with client_for(settings) as client:
                report = run_job(job, client, settings)
        except Interrupted:
            return 130  # the progress has said how to go on
    if settings.only_plan or (report is not None and not report.ok):
        return 2 if report is not None and not report.ok else 0
    for act in chain.after if settings.directory is None else ():
        act(report)
    return 0


def run_job(job: Job, client: Client | Threads | None, settings: Settings, *, brief: bool = False) -> Report | None:
    """Run a job and show its report, of one that is done in one line if `brief`; or show its plan and return None."""
    if settings.directory is not None and job.directory != settings.directory:
        raise ParameterError(
            f"from here the command line means {job.directory}, not {settings.directory}:"
            " go to the directory where it was typed first"
        )
    if settings.only_plan:
        job.check(client, overwrite=settings.overwrite)
        plan = job.plan(client)
        say(str(plan))
        plan.check()
        return None
    if settings.directory is None and job.confirm and not settings.yes:
        agree(job.confirm)
    report = job.run(
        client,
        progress=False if settings.quiet else BeforeReport(None if brief else job.name),
        retries=settings.retries,
        fail_fast=settings.fail_fast,
        overwrite=settings.overwrite,
        retry_failed=settings.retry_failed,
        share=settings.share,
    )
    told = [replace(one, message=as_typed(one.message)) for one in report.failures]
    shown = replace(report, warnings=(), failures=tuple(told))  # the log has told the warnings
    if report.ok and (brief or settings.quiet):
        for line in report.found:
            say(line)
    else:
        say(str(shown) if report.ok or settings.quiet else shown.details)
    return report


class BeforeReport:
    """Shows how far a job is, in the words of the command line, and leaves it to the report that it went well.

    Attributes:
        name: the job's; None where no report follows.
    """

    def __init__(self, name: str | None) -> None:
        self.name = name

    @functools.cached_property
    def _shown(self) -> Progress:
        from daskflow.jobs.progress import progress_of

        return progress_of(None)

    def update(self, snapshot: Snapshot) -> None:
        """Show how far a stage is."""
        self._shown.update(snapshot)

    def say(self, line: str) -> None:
        """Show a line that stays, unless the report will."""
        if self.name is None or not line.startswith((f"{self.name}: finished, ", f"{self.name}: already done, ")):
            self._shown.say(as_typed(line))

    def close(self) -> None:
        """Show nothing more."""
        if "_shown" in self.__dict__:
            self._shown.close()


def agree(lines: Sequence[str]) -> None:
    """Show what is about to happen, and go on only when that is wanted."""
    for line in lines:
        say(line, err=True)
    try:
        click.confirm("Go on?", abort=True, err=True)
    except click.Abort:
        raise ParameterError("nothing was done; answer y, or say --yes before the first command") from None


def check_cluster(settings: Settings) -> None:
    """Raise where what is said of the cluster cannot be, before anything is opened."""
    wanted = asked(settings)
    if wanted is not None:
        from daskflow.clusters import check_words

        check_words(*wanted)


def asked(settings: Settings) -> tuple[str, dict[str, Any]] | None:
    """Return the cluster that is asked for and its options, None where nothing is said."""
    from daskflow.clusters.cluster_file import read_option

    sizes = {"workers": settings.workers, "threads": settings.threads, "memory": settings.memory}
    options = {**dict(map(read_option, settings.cluster_options)), **sizes}
    if settings.cluster is None and all(value is None for value in options.values()):
        return None
    return settings.cluster or "local", options


@contextlib.contextmanager
def client_for(settings: Settings) -> Iterator[Any]:
    """Yield what the options ask for: a client, or its size for a plan of what is far away; None without a word."""
    if not settings.quiet:
        logging.getLogger("daskflow.clusters").setLevel(logging.INFO)  # says where the dashboard is
    wanted = asked(settings)
    if wanted is None:
        yield None
        return
    from daskflow.clusters import connect, stand_in

    where, options = wanted
    if settings.only_plan and (planned := stand_in(where, options)):
        yield planned
        return
    with connect(where, **options) as client:
        yield client
