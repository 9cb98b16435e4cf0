"""One run of a job: lock, compare, check, stream the stages, journal, finish."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from daskflow.clusters import Threads
from daskflow.errors import DaskflowError, JobError, LockedJobError
from daskflow.jobs.batch import Home, Verb
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.evaluate import warn
from daskflow.jobs.executor import Executor, executor_of
from daskflow.jobs.fingerprint import changes, describe_stages, starts_afresh
from daskflow.jobs.ledger import DONE, EMPTY, FAILED, Journal
from daskflow.jobs.lock import Lease
from daskflow.jobs.outputs import forget_replaced, leased, refuse_files
from daskflow.jobs.plan import Plan
from daskflow.jobs.progress import Progress, Snapshot, progress_of
from daskflow.jobs.report import Failure, Finish, Interrupted, Report, StageReport, State
from daskflow.jobs.stage_run import Policy, StageRun
from daskflow.jobs.stream import Interrupts, Stream
from daskflow.stores import kvstore
from daskflow.stores.kvstore import rehearsing
from daskflow.stores.local_files import sweep
from daskflow.volume.stage import Output, Scopes, Stage, place_of

if TYPE_CHECKING:
    from distributed import Client

    from daskflow.jobs.job import Job


@dataclass(frozen=True)
class Options:
    """How a job is run; the arguments of `Job.run`."""

    progress: bool | Progress | None = None
    retries: int = 2
    fail_fast: bool = False
    overwrite: bool = False
    retry_failed: bool = False
    verb: Verb = "run"


def run_job(job: Job, client: Client | Threads | None, options: Options) -> Report:
    """Run, or verify, a job; see `Job.run` and `Job.verify`."""
    directory = job.home
    description = describe_stages(job.stages)
    plan = None if client is None else _checked(job, client)
    with ExitStack() as stack:
        outputs = job.outputs
        lease = stack.enter_context(leased(directory, outputs))
        renew = job.renewable and options.verb == "run"
        replaced = options.overwrite or _starts_over(job, directory)
        if replaced:
            _check_anew(job, directory)  # what is refused must not cost the record of what is there
        if options.overwrite:
            _delete_objects(directory, outputs)
        fresh = replaced or starts_afresh(directory, description, renew=renew, command=job.command)
        if fresh:
            directory.clear()
        made = directory.outputs if renew or not fresh else []
        scopes = Scopes(directory.scratch)
        stages = [replace(stage, task=stage.task.bind(scopes)) for stage in job.stages]
        journal = Journal(directory, stages)
        earlier = directory.load_report()
        complete = earlier is not None and earlier.ok
        killed, started = earlier is None and directory.read("job.json") is not None, time.time()
        if options.verb == "run" and not options.overwrite:
            _refuse_to_replace(stages, outputs, made)
        theirs = _replaced_since(outputs, directory.outputs)
        if _reopen(job, stages, journal, options, theirs, complete=complete) and options.verb == "run":
            directory.forget_report()  # not before: it says that the scratch data are gone
        progress = progress_of(options.progress)
        stack.callback(progress.close)
        for stage in stages:
            stage.task.check()
        if options.verb == "run" and journal.finished and earlier is not None and complete:
            kvstore.delete_tree(directory.scratch)
            report = replace(earlier, already_done=True)
            progress.say(report.headline)
            return report
        if options.verb == "run":
            warn(job.warnings)
            forget_replaced([one for one in outputs if one.overwrite or options.overwrite], directory)
        anew = complete or options.overwrite
        owned = outputs if options.verb == "run" else [one for one in outputs if one not in theirs]
        directory.claim(job.name, description, job.command, outputs=owned, anew=anew)
        if client is None:
            client = _started(job, directory, progress, stack)
            plan = _checked(job, client)
        assert plan is not None
        if isinstance(client, Threads):
            stack.enter_context(directory.in_process())
        executor = executor_of(client, Home(directory.url, directory.read("job.json")["run"]))
        stack.callback(executor.close)
        run = _Run(job, stages, scopes, directory, journal, executor, plan, progress, lease, options)
        report = run.verify() if options.verb == "verify" else run.run()
        if report.ok:
            directory.forget_death()
        for one in outputs if killed else ():
            sweep(one.url, before=started)
        return report


def _checked(job: Job, client: Client | Threads) -> Plan:
    plan = job.plan(client)
    plan.check()
    return plan


def _started(job: Job, directory: JobDirectory, progress: Progress, stack: ExitStack) -> Client | Threads:
    """Return what the blocks run on where nothing is given, until the stack closes."""
    died = directory.died_in_process
    if died:
        progress.say(
            "the process of the last run died while it ran blocks; worker processes run them now,"
            " so that a block that kills its process is found"
        )
    return stack.enter_context(job.connect(isolated=died))


def check_job(job: Job, *, overwrite: bool) -> None:
    """Raise what running a job would refuse before it computes; see `Job.check`."""
    directory = job.home
    made = directory.outputs
    with rehearsing():
        if not overwrite and not _starts_over(job, directory):
            other = starts_afresh(directory, describe_stages(job.stages), renew=job.renewable, command=job.command)
            made = [] if other and not job.renewable else made
        scopes = Scopes(directory.scratch)
        stages = [replace(stage, task=stage.task.bind(scopes)) for stage in job.stages]
        if not overwrite:
            _refuse_to_replace(stages, job.outputs, made)
        for stage in stages:
            stage.task.check()


def _check_anew(job: Job, directory: JobDirectory) -> None:
    """Raise what running a job from its start would refuse, scratch data of earlier runs aside; nothing is stored."""
    scopes = Scopes(kvstore.join(directory.url, "anew"))
    with rehearsing():
        for stage in job.stages:
            stage.task.bind(scopes).check()


def _starts_over(job: Job, directory: JobDirectory) -> bool:
    """Return whether the job replaces what another has made in its place."""
    known = directory.read("job.json")
    replaces = bool(job.outputs) and all(one.overwrite for one in job.outputs)
    return replaces and known is not None and bool(changes(known["stages"], describe_stages(job.stages)))


def _refuse_to_replace(stages: Sequence[Stage], outputs: Sequence[Output], made: Sequence[Output]) -> None:
    """Raise when the stages would replace what neither they nor an earlier run of the job has made."""
    refuse_files(outputs, made)
    levels = {(one.url, one.mip) for one in made if one.kind == "level"}
    for stage in stages:
        stage.task.refuse_to_replace(stage.grid.box, lambda url, mip: (place_of(url), mip) in levels)


def _delete_objects(directory: JobDirectory, outputs: Sequence[Output]) -> None:
    """Delete meshes and skeletons that an earlier run made where this one makes some, which would be mixed."""
    made = {one.url for one in directory.outputs}
    for one in outputs:
        if one.kind in ("mesh", "skeletons") and one.layer != one.url and one.url in made:
            kvstore.delete_tree(one.url)


def _replaced_since(outputs: Sequence[Output], made: Sequence[Output]) -> list[Output]:
    """Return the outputs that the job's record does not state any more, as `forget_replaced` leaves it."""
    known = {(one.kind, one.url, one.mip, one.dataset) for one in made}
    return [one for one in outputs if known and (one.kind, one.url, one.mip, one.dataset) not in known]


def _reopen(
    job: Job, stages: list[Stage], journal: Journal, options: Options, replaced: Sequence[Output], *, complete: bool
) -> bool:
    """Set back to pending, in storage too, what must run again although an earlier run had settled it.

    That is stored before any check makes an output anew, which would then be taken for what an earlier run made. Where
    a complete run has deleted its scratch data, those that such stages come after, or all if a finish function reads
    scratch data, run again, too. Return whether anything was set back.
    """
    again: set[str] = set()
    places = {one.stage for one in replaced}  # "" is that of what no stage has made alone
    for stage in stages:
        if options.retry_failed and journal.forget(stage.name, FAILED):
            again.add(stage.name)
        gone = not places.isdisjoint((stage.name, "")) or not stage.task.intact()
        if gone and journal.forget(stage.name, DONE, EMPTY, FAILED):
            again.add(stage.name)
    unfinished = [stage for stage in stages if not journal.ledgers[stage.name].finished]
    if complete and unfinished and options.verb == "run":
        reads = any(isinstance(finish, Finish) and finish.reads_scratch for finish in job.finish)
        needed = set(journal.ledgers) if reads else set().union(*map(_all_before, unfinished))
        again |= {name for name in needed if journal.forget(name, DONE, EMPTY, FAILED)}
    if again:
        journal.save(*again)
    return bool(again)


@dataclass
class _Run:
    job: Job
    stages: list[Stage]
    scopes: Scopes
    directory: JobDirectory
    journal: Journal
    executor: Executor
    planned: Plan
    progress: Progress
    lease: Lease
    options: Options

    def __post_init__(self) -> None:
        self.interrupts = Interrupts()
        self.reports = {stage.name: self._untouched(stage) for stage in self.stages}
        self.plans = {plan.name: plan for plan in self.planned.stages}
        self.damaged: list[Failure] = []
        self.seconds = 0.0

    def run(self) -> Report:
        """Run the stages, then the job's finish functions."""
        self.directory.forget_report()
        passes: dict[str, StageRun] = {}
        for stage in self.stages:
            passes[stage.name] = self._pass(stage, [passes[name] for name in _all_before(stage)])
        self._stream([one for one in passes.values() if not one.ledger.finished])
        whole = self.journal.finished
        report = self._report("finished" if whole else "stopped" if self.options.fail_fast else "failed")
        if report.ok:
            for finish in self.job.finish:
                bound = finish.bind(self.scopes) if isinstance(finish, Finish) else finish
                bound(report, self.directory.url)
        self.directory.save_report(report)
        if report.ok:
            kvstore.delete_tree(self.directory.scratch)
        self._say(report)
        return report

    def verify(self) -> Report:
        """Verify the done blocks of every stage that can be."""
        self._stream([self._pass(stage) for stage in self.stages if stage.task.verifiable])
        whole = self.journal.finished and not self.damaged
        report = self._report("finished" if whole else "failed")
        report = replace(report, failures=tuple(self.damaged), verified="blocks")
        self._say(report)
        return report

    def _say(self, report: Report) -> None:
        self.progress.say(report.headline)
        for line in () if report.ok else report.notes:
            self.progress.say(line)

    def _pass(self, stage: Stage, after: Sequence[StageRun] = ()) -> StageRun:
        policy = Policy(
            retries=self.options.retries,
            fail_fast=self.options.fail_fast,
            overlap=self.planned.overlaps(self.plans[stage.name]),
            verb=self.options.verb,
        )
        return StageRun(stage, self.journal.ledgers[stage.name], policy, self.journal.counts[stage.name], after)

    def _stream(self, passes: Sequence[StageRun]) -> None:
        self.stream = Stream(self.executor, passes, tick=self._tick, ended=self._ended)
        started = time.monotonic()
        try:
            with self.interrupts:
                self.stream.run()
        except KeyboardInterrupt:
            self.stream.abandon()
        except BaseException as error:
            with contextlib.suppress(DaskflowError):  # what stopped the stages tells more
                self._save(self.stream.running)
            if not isinstance(error, JobError):
                raise
            advice = f"What is done is recorded in {self.directory.url}; run the same again to go on."
            raise type(error)(f"{error}\n{advice}") from error
        finally:
            self.seconds = time.monotonic() - started
        if self.interrupts.requested:
            report = self._report("interrupted")
            self.directory.save_report(report)
            self._say(report)
            raise Interrupted(report)

    def _ended(self, one: StageRun) -> None:
        self._save([one])
        self.reports[one.stage.name] = self._reported(one)

    def _save(self, passes: Sequence[StageRun]) -> None:
        self._take_failures(passes)
        self.journal.save(*(one.stage.name for one in passes))

    def _take_failures(self, passes: Sequence[StageRun]) -> None:
        for one in passes:
            failures, one.failures = one.failures, []
            if self.options.verb == "verify":
                self.damaged += failures
            else:
                self.journal.add_failures(failures)

    def _tick(self, passes: Sequence[StageRun]) -> None:
        for one in passes:
            ledger = one.ledger
            self.progress.update(
                Snapshot(
                    stage=one.stage.name,
                    blocks=len(ledger),
                    done=ledger.count(DONE) + ledger.count(EMPTY),
                    failed=ledger.count(FAILED),
                    ran=one.ran,
                    voxels=0 if one.stage.numbered else one.voxels,
                    seconds=one.seconds,
                    workers=self.executor.workers.of(gpu=one.gpu).count,
                )
            )
        self._take_failures(passes)
        self.journal.save_soon(*(one.stage.name for one in passes))
        if self.lease.lost is not None:
            raise LockedJobError(f"{self.directory.url} was taken over by {self.lease.lost}")
        if self.interrupts.requested and not self.stream.stopping:
            self.progress.say("stopping: blocks that run are finished first; interrupt again to stop at once")
            self.stream.stop()

    def _untouched(self, stage: Stage) -> StageReport:
        return self.journal.ledgers[stage.name].report(stage.name, dict(self.journal.counts[stage.name]))

    def _reported(self, one: StageRun) -> StageReport:
        plan = self.plans[one.stage.name]
        part = one.voxels / max(1, one.stage.grid.box.size)
        return replace(
            self._untouched(one.stage),
            skipped=one.skipped,
            seconds=one.seconds,
            voxels=0 if one.stage.numbered else one.voxels,
            bytes_read=round(plan.bytes_read * part),
            bytes_written=round(plan.bytes_written * part),
            retries=one.retried,
            lost_workers=one.lost_workers,
            memory=one.memory,
        )

    def _report(self, state: State) -> Report:
        return Report(
            name=self.job.name,
            directory=self.directory.url,
            state=state,
            stages=tuple(self.reports.values()),
            failures=tuple(self.journal.failures),
            warnings=self.job.warnings,
            seconds=self.seconds,
        )


def _all_before(stage: Stage) -> set[str]:
    """Return the names of the stages that one comes after, at once or by others."""
    found: set[str] = set()
    left = list(stage.after)
    while left:
        one = left.pop()
        if one.name not in found:
            found.add(one.name)
            left += one.after
    return found
