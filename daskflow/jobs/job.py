"""A durable run of stages: planned, streamed, resumed, reported; and of several jobs one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daskflow.clusters import Threads, connect, script_is_guarded
from daskflow.clusters.workers import Workers
from daskflow.errors import JobError, ParameterError
from daskflow.geometry import Zyx
from daskflow.jobs.arrange import arranged, notes_on
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.jobs.executor import executor_of
from daskflow.jobs.fingerprint import describe_stages
from daskflow.jobs.fitting import fitted
from daskflow.jobs.outputs import stated
from daskflow.jobs.plan import Plan
from daskflow.jobs.prepare import Options, check_job
from daskflow.jobs.probe import check_workers
from daskflow.jobs.progress import Progress
from daskflow.jobs.report import Finish, Report
from daskflow.jobs.run import run_job
from daskflow.jobs.space import check_space
from daskflow.stores import kvstore
from daskflow.volume import Volume
from daskflow.volume.stage import Output, Scopes, Stage

if TYPE_CHECKING:
    from distributed import Client

Finishing = Finish | Callable[[Report, str], None]

_log = logging.getLogger(__name__)

_SMALL = 4 * 10**9  # bytes read and written below which worker processes take longer to start than they save
_WORTH = 5.0  # seconds that must be saved where threads would take turns at Python's lock


@dataclass(frozen=True, repr=False)
class Job:
    """A durable run: stages, and a directory that remembers what is done.

    Running it again, after whatever ended the last run, goes on where that stopped, and gives the same result.

    Attributes:
        given: the stages that say what is done.
        directory: URL where the job keeps its ledger, failures, report and scratch data. None for a job that leaves
            nothing but its report: each run has a new private directory, and none goes on with another.
        name: shown to people.
        finish: called in this process when every block is done, with the report and the directory; what they add to
            `report.results` (JSON values) is stored with the report. The next run calls them again when this process
            dies before the report is stored. One that needs scratch data is a `Finish` that says so.
        command: the command line that made the job, by which it can be retried.
        confirm: what is lost when the job runs, a line each; the command line shows it and asks before it runs.
        renewable: a finished job in the directory gives way to this one when the two differ, instead of being refused:
            for what is cheap to make again, and is not read block by block meanwhile.
        notes: what was decided where nothing was said, a line each, for the plan.
        makes: what the finish functions make, beside what the stages do.
        warnings: what is taken for granted, a line each: logged once per run, and kept in report and provenance.
        volume: what is saved in a layer, for further steps of the same job, e.g. ``merge([job, mesh(job.volume)])``.
        blocks: blocks (zyx) by the name of a stage, instead of those that it was given.

    Raises:
        ParameterError: no stage, or names that are not safe in URLs.
    """

    given: tuple[Stage, ...]
    directory: str | None
    name: str = dataclasses.field(kw_only=True)
    finish: tuple[Finishing, ...] = dataclasses.field(default=(), kw_only=True)
    command: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True)
    confirm: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    renewable: bool = dataclasses.field(default=False, kw_only=True)
    notes: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    makes: tuple[Output, ...] = dataclasses.field(default=(), kw_only=True)
    warnings: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    volume: Volume | None = dataclasses.field(default=None, kw_only=True)
    blocks: Mapping[str, Zyx] = dataclasses.field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "given", tuple(self.given))
        put(self, "finish", tuple(self.finish))
        if self.directory is not None:
            put(self, "directory", kvstore.normalise(self.directory))
        if not self.given:
            raise ParameterError(f"job {self.name} has no stage")
        for stage in self.given:
            kvstore.check_name(stage.name)

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """What is run: does what the given stages do, see `arranged`.

        A stage begins when every block of those that it comes after is done. Those of the same name are numbered, e.g.
        label-components, label-components-2. Links in URLs are followed to see what reads what others write.
        """
        return _told_apart(arranged(self.given), self.blocks)

    def __repr__(self) -> str:
        stages = ", ".join(stage.name for stage in self.stages)
        return f"<Job {self.name} · {stages} · {self.directory or 'leaves nothing'}>"

    def _repr_html_(self) -> str:
        return self.plan()._repr_html_()

    def plan(self, client: Client | Threads | Workers | None = None) -> Plan:
        """Return what the job will do and cost, estimated from a few blocks; nothing is run.

        Args:
            client: what it is planned for, or its size; without one, what `run` would start by itself.

        Raises:
            PlanError: a stage has too many blocks to keep track of.
        """
        workers = _workers(client)
        job = fitted(self, workers)
        notes = (*job.notes, *notes_on(job.stages), *(f"warning: {line}" for line in self.warnings))
        return Plan.of(self.name, self.directory, job.stages, workers, notes)

    def check(self, client: Client | Threads | Workers | None = None, *, overwrite: bool = False) -> None:
        """Raise what `run` would refuse before it computes a block; nothing is stored.

        Args:
            client: whose workers are asked whether they see what the job reads, and where it writes.
            overwrite: as in `run`.

        Raises:
            ChangedJobError: the directory belongs to a job with other parameters.
            MetadataMismatchError: an output exists and differs.
            PlanError: no worker could run it.
            DaskflowError: a function knows that it would fail, e.g. a network that does not load.
        """
        with self._placed() as job:
            check_job(fitted(job, _workers(client), anew=overwrite), overwrite=overwrite)
        check_space(self, self.plan(client), anew=overwrite)
        if client is not None:
            check_workers(self, client)

    def run(
        self,
        client: Client | Threads | None = None,
        *,
        progress: bool | Progress | None = None,
        retries: int = 2,
        fail_fast: bool = False,
        overwrite: bool = False,
        retry_failed: bool = False,
        share: bool = False,
    ) -> Report:
        """Run what is not done yet, and return what came out.

        Args:
            client: a `distributed.Client` or `Threads`. Without one, threads of this process run a job that reads and
                writes less than 4 GB and does not keep Python's lock for long; worker processes on this machine,
                started for it, run the others, and those whose last run died with its process.
            progress: False shows nothing; None shows what suits the terminal, notebook or log.
            retries: how often a block that raises is tried again before it counts as failed.
            fail_fast: stop at the first block that failed.
            overwrite: start over: forget what earlier runs have done, also of a job that differs.
            retry_failed: run the blocks that an earlier run gave up, too.
            share: run it together with other processes that run the same with `share`, on this machine or anywhere else
                that sees the job's directory: each runs parts of it, and all return the same report.

        Raises:
            PlanError: the job cannot run as planned.
            ChangedJobError: the directory belongs to a job with other parameters.
            LockedJobError: another driver runs this job.
            JobError: the operator, the storage or the cluster failed, rather than single blocks.
            Interrupted: Ctrl-C or SIGTERM came, and what ran is finished and recorded.
        """
        if share and self.directory is None:
            raise ParameterError(f"{self.name} keeps no directory, so it cannot be shared; run it without share")
        options = Options(progress, retries, fail_fast, overwrite, retry_failed, share)
        with self._placed() as job:
            return run_job(fitted(job, _workers(client), anew=overwrite), client, options)

    def verify(self, client: Client | Threads | None = None, *, progress: bool | Progress | None = None) -> Report:
        """Read back what done blocks stored, set the damaged ones to pending, and return a report that lists them.

        Stages whose tasks are not verifiable are passed over.

        Raises:
            ChangedJobError: the directory belongs to a job with other parameters.
            LockedJobError: another driver runs this job.
            JobError: no stage can be verified, or the cluster failed.
        """
        if not any(stage.task.verifiable for stage in self.stages):
            raise JobError(f"no stage of {self.name} can be verified")
        with self._placed() as job:
            return run_job(fitted(job, _workers(client)), client, Options(progress, retries=0, verb="verify"))

    def connect(self, *, isolated: bool = False) -> Client | Threads:
        """Start what runs the job when nothing else is given: see `run`; `isolated` wants other processes."""
        plan = self.plan()
        if not isolated and plan.bytes_moved < _SMALL and plan.seconds_saved < _WORTH:
            return connect("threads")
        if not script_is_guarded():
            _log.warning(
                "%s runs in threads of this process: worker processes would import the script that runs, and run it"
                ' again; put what it does below `if __name__ == "__main__":`',
                self.name,
            )
            return connect("threads")
        return connect("local")

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the job makes, where links lead, with the blocks in which it does.

        If all of it may replace what others have stored, the job starts over where its directory belongs to another.
        """
        return stated(self.stages, self.makes)

    @property
    def home(self) -> JobDirectory:
        """The job's directory, where it has one."""
        assert self.directory is not None
        return JobDirectory(self.directory)

    @contextlib.contextmanager
    def _placed(self) -> Iterator[Job]:
        """Yield the job with a directory: one that only this user can read, and that is deleted, if it has none."""
        if self.directory is not None:
            yield self
            return
        with tempfile.TemporaryDirectory(prefix="daskflow-job-", ignore_cleanup_errors=True) as directory:
            yield dataclasses.replace(self, directory=directory)


def _workers(client: Client | Threads | Workers | None) -> Workers:
    """Return what there is to run on, or would be."""
    if client is None:
        with Threads() as pool:
            return Workers(1, pool.threads, pool.threads, pool.memory)
    if isinstance(client, Workers):
        return client
    executor = executor_of(client)
    try:
        return executor.workers
    finally:
        executor.close()


def _told_apart(stages: Sequence[Stage], blocks: Mapping[str, Zyx]) -> tuple[Stage, ...]:
    """Return the stages in other blocks, by name; a name that an earlier stage has gets a number behind it."""
    told: dict[str, Stage] = {}
    fresh: dict[int, Stage] = {}
    for stage in stages:
        numbered = (f"{stage.name}-{number}" for number in range(2, len(told) + 3))
        name = next(name for name in (stage.name, *numbered) if name not in told)
        grid = dataclasses.replace(stage.grid, block=blocks.get(name, stage.grid.block))
        after = tuple(fresh[id(one)] for one in stage.after)
        told[name] = dataclasses.replace(stage, name=name, grid=grid, after=after)
        fresh[id(stage)] = told[name]
    return tuple(told.values())


def merge(jobs: Sequence[Job], *, command: tuple[str, ...] | None = None) -> Job:
    """Return one job that does what several would, in which volumes over the same box share each block.

    Stages of different jobs that do the same run once.

    Args:
        jobs: what is done; the directory of the first that keeps one is used.
        command: the command line that made them, by which the job can be retried.

    Raises:
        ParameterError: no jobs, sinks over the same box that ask for different blocks, or two jobs that would make or
            write the same thing in different ways.
        AlignmentError: the block that a sink asks for is not whole chunks and shards of another.
    """
    if not jobs:
        raise ParameterError("no jobs to merge")
    stages = _without_repeats(jobs)
    lasting = [job for job in jobs if job.directory is not None]
    _refuse_rivals(lasting)
    _refuse_one_place(stages)
    job = Job(
        tuple(stages),
        lasting[0].directory if lasting else None,
        name=" + ".join(dict.fromkeys(job.name for job in jobs)),
        finish=tuple(finish for job in jobs for finish in job.finish),
        command=command,
        confirm=tuple(line for job in jobs for line in job.confirm),
        renewable=all(job.renewable for job in jobs),
        makes=tuple(one for job in jobs for one in job.makes),
        notes=tuple(dict.fromkeys(line for job in jobs for line in job.notes)),
        warnings=tuple(dict.fromkeys(line for job in jobs for line in job.warnings)),
    )
    _ = job.stages  # what cannot be arranged is refused here
    return job


def _without_repeats(jobs: Sequence[Job]) -> list[Stage]:
    """Return the stages of jobs, those left out that do what one of an earlier job does."""
    stages: list[Stage] = []
    known: dict[tuple[Any, ...], Stage] = {}
    instead: dict[int, Stage] = {}
    for job in jobs:
        found = {}
        for stage, key in zip(job.given, keys_of(job.given), strict=True):
            if key in known:
                instead[id(stage)] = known[key]
                continue
            if any(id(one) in instead for one in stage.after):
                after = tuple(instead.get(id(one), one) for one in stage.after)
                instead[id(stage)] = dataclasses.replace(stage, after=after)
            stages.append(instead.get(id(stage), stage))
            found[key] = stages[-1]
        known |= found
    return stages


def keys_of(stages: Sequence[Stage]) -> list[tuple[Any, ...]]:
    """Return what identifies each of some stages: what its task is, what it says, and its scopes."""
    keys = []
    for stage in stages:
        scopes = Scopes("memory://nowhere")
        stage.task.bind(scopes)
        described = describe_stages([dataclasses.replace(stage, name="", after=())])
        told = [described, [one.describe() for one in scopes.met]]
        consumers = stage.task.consumers if isinstance(stage.task, EvaluateVolumes) else ()
        keys.append((type(stage.task), *map(type, consumers), json.dumps(told, sort_keys=True)))
    return keys


def _refuse_rivals(jobs: Sequence[Job]) -> None:
    """Raise for jobs that keep the same directory, and so make the same thing, and differ.

    Volumes that are evaluated into one place are left to their sinks, and jobs that give way to each other may differ.
    """
    seen: dict[str, list[tuple[Any, ...]]] = {}
    files: dict[str, tuple[str, list[tuple[Any, ...]]]] = {}
    for job in jobs:
        for one in job.makes:
            if one.kind in ("table", "file") and one.layer is None:
                kind, keys = files.setdefault(one.url, (one.kind, keys_of(job.given)))
                if "table" in (kind, one.kind) and keys != keys_of(job.given):
                    raise ParameterError(f"two steps would both write {one.url}; give one of them another output")
        if (
            job.directory is None
            or job.renewable
            or any(isinstance(stage.task, EvaluateVolumes) and stage.task.sinks for stage in job.given)
        ):
            continue
        if seen.setdefault(job.home.url, keys := keys_of(job.given)) != keys:
            place = kvstore.redact(job.home.url.removesuffix("/").removesuffix(".daskflow"))
            raise ParameterError(
                f"two steps named {job.name} would both write {place}, in different ways; give one of them another"
                " output, or run them one after the other"
            )


def _refuse_one_place(stages: Sequence[Stage]) -> None:
    """Raise where two stages would write to one place, of which either could be left in the end."""
    made = [one for one in stated(stages) if one.kind in ("level", "file", "table")]
    for one, other in itertools.combinations(made, 2):
        if one.clashes(other) and one.dataset == other.dataset:
            boxes = sorted({grid["box"] for grid in (one.grid, other.grid) if grid is not None})
            where = f" in {' and '.join(boxes)} (z0-z1_y0-y1_x0-x1), which overlap" if len(boxes) > 1 else ""
            raise ParameterError(f"two results would be written to {one}{where}; give one of them another output")
