"""The driver of a job that was prepared: streams the stages, journals, finishes and reports."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from daskflow.errors import DaskflowError, JobError, LockedJobError
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.executor import Executor
from daskflow.jobs.ledger import DONE, EMPTY, FAILED
from daskflow.jobs.lock import Lease
from daskflow.jobs.plan import Plan
from daskflow.jobs.prepare import Options, Prepared, all_before
from daskflow.jobs.progress import Progress, Snapshot
from daskflow.jobs.report import Failure, Finish, Interrupted, Report, StageReport, State
from daskflow.jobs.stage_run import Policy, StageRun
from daskflow.jobs.stream import Interrupts, Stream
from daskflow.stores import kvstore
from daskflow.volume.stage import Stage

if TYPE_CHECKING:
    from daskflow.jobs.job import Job

_COMPONENTS = "components"  # a count that is a result


@dataclass
class Driver:
    """Runs or verifies the stages of a job."""

    job: Job
    prepared: Prepared
    directory: JobDirectory
    executor: Executor
    planned: Plan
    progress: Progress
    lease: Lease
    options: Options

    def __post_init__(self) -> None:
        self.stages, self.journal = self.prepared.stages, self.prepared.journal
        self.interrupts = Interrupts()
        self.reports = {stage.name: self._untouched(stage) for stage in self.stages}
        self.plans = {plan.name: plan for plan in self.planned.stages}
        self.damaged: list[Failure] = []
        self.seconds = 0.0

    def run(self) -> Report:
        """Run the stages, then the job's finish functions."""
        self.directory.forget_report()
        self._stream(self._passes())
        whole = self.journal.finished
        return self._finish(self._report("finished" if whole else "stopped" if self.options.fail_fast else "failed"))

    def _passes(self) -> list[StageRun]:
        passes: dict[str, StageRun] = {}
        for stage in self.stages:
            passes[stage.name] = self._pass(stage, [passes[name] for name in all_before(stage)])
        return [one for one in passes.values() if not one.ledger.finished]

    def _finish(self, report: Report) -> Report:
        """Do what is left when the stages are over, and store the report."""
        if report.ok:
            for finish in self.job.finish:
                bound = finish.bind(self.prepared.scopes) if isinstance(finish, Finish) else finish
                earlier = dict(report.results)
                bound(report, self.directory.url)
                _keep(report.results, earlier)
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

    def _policy(self, stage: Stage) -> Policy:
        return Policy(
            retries=self.options.retries,
            fail_fast=self.options.fail_fast,
            overlap=self.planned.overlaps(self.plans[stage.name]),
            verb=self.options.verb,
        )

    def _pass(self, stage: Stage, after: Sequence[StageRun] = ()) -> StageRun:
        ledger, counts = self.journal.ledgers[stage.name], self.journal.counts[stage.name]
        return StageRun(stage, ledger, self._policy(stage), counts, after)

    def _stream(self, passes: Sequence[StageRun]) -> None:
        self.stream = Stream(self.executor, passes, tick=self._tick, ended=self._ended)
        started = time.monotonic()
        try:
            with self.interrupts:
                self.stream.run()
        except KeyboardInterrupt:
            self.stream.abandon()
        except BaseException as error:
            with contextlib.suppress(DaskflowError):  # what stopped the stages says more
                self._save(self.stream.running)
            if not isinstance(error, JobError):
                raise
            advice = f"What is done is recorded in {self.directory.url}; run the same again to go on."
            raise type(error)(f"{error}\n{advice}") from error
        finally:
            self.seconds = time.monotonic() - started
        if self.interrupts.requested:
            report = self._report("interrupted")
            self._leave(report)
            raise Interrupted(report)

    def _leave(self, report: Report) -> None:
        """Store and show the report of a run that has not ended the job."""
        self.directory.save_report(report)
        self._say(report)

    def _ended(self, one: StageRun) -> None:
        self._save([one])
        self.reports[one.stage.name] = self._reported(one)

    def _save(self, passes: Sequence[StageRun]) -> None:
        self._take_failures(passes)
        self.journal.save(*(one.stage.name for one in passes))

    def _save_soon(self, passes: Sequence[StageRun]) -> None:
        self._take_failures(passes)
        self.journal.save_soon(*(one.stage.name for one in passes))

    def _take_failures(self, passes: Sequence[StageRun]) -> None:
        for one in passes:
            failures, one.failures = one.failures, []
            if self.options.verb == "verify":
                self.damaged += failures
            else:
                self.journal.add_failures(failures)

    def _tick(self, passes: Sequence[StageRun]) -> None:
        now = time.monotonic()
        for one in passes:
            ledger, workers = one.ledger, self.executor.workers.of(gpu=one.gpu)
            self.progress.update(
                Snapshot(
                    stage=one.stage.name,
                    blocks=len(ledger),
                    done=ledger.count(DONE) + ledger.count(EMPTY),
                    failed=ledger.count(FAILED),
                    ran=one.ran,
                    voxels=0 if one.stage.numbered else one.voxels,
                    seconds=one.seconds,
                    workers=workers.count,
                    threads=max(1, workers.threads),
                    busy=one.busy,
                    silent=now - one.latest,
                )
            )
        self._save_soon(passes)
        if self.lease.lost is not None:
            raise LockedJobError(f"{self.directory.url} was taken over by {self.lease.lost}")
        if self.interrupts.requested and not self.stream.stopping:
            self.progress.say("stopping: blocks that run are finished first; interrupt again to stop at once")
            self.stream.stop()

    def _untouched(self, stage: Stage) -> StageReport:
        return self.journal.ledgers[stage.name].report(stage.name, dict(self.journal.counts[stage.name]))

    def _reported(self, one: StageRun) -> StageReport:
        return replace(
            self._moved(one.stage, one.voxels),
            skipped=one.skipped,
            seconds=one.seconds,
            retries=one.retried,
            lost_workers=one.lost_workers,
            memory=one.memory,
        )

    def _moved(self, stage: Stage, voxels: int) -> StageReport:
        """Return what is recorded of a stage, with the bytes that so many voxels moved."""
        plan, part = self.plans[stage.name], voxels / max(1, stage.grid.box.size)
        return replace(
            self._untouched(stage),
            voxels=0 if stage.numbered else voxels,
            bytes_read=round(plan.bytes_read * part),
            bytes_written=round(plan.bytes_written * part),
        )

    def _report(self, state: State) -> Report:
        return Report(
            name=self.job.name,
            directory=self.directory.url,
            state=state,
            stages=tuple(self.reports.values()),
            results=_found(tuple(self.reports.values())),
            failures=tuple(self.journal.failures),
            warnings=self.job.warnings,
            seconds=self.seconds,
        )


def _found(stages: Sequence[StageReport]) -> dict[str, Any]:
    """Return the results that are counts of stages: a number, or one for each stage that has some."""
    found = {stage.name: stage.counts[_COMPONENTS] for stage in stages if _COMPONENTS in stage.counts}
    return {_COMPONENTS: found if len(found) > 1 else sum(found.values())} if found else {}


def _keep(results: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Number the results of a step of the job that have replaced those of an earlier one of the same kind."""
    for name, value in earlier.items():
        if results[name] != value:
            free = next(other for n in itertools.count(2) if (other := f"{name}_{n}") not in results)
            results[free], results[name] = results[name], value
