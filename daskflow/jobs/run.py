"""One run of a job: lock, prepare, connect, drive."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from daskflow.clusters import Threads
from daskflow.jobs.batch import Home
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.driver import Driver
from daskflow.jobs.executor import executor_of
from daskflow.jobs.outputs import leased
from daskflow.jobs.parts import settle
from daskflow.jobs.plan import Plan
from daskflow.jobs.prepare import Options, join, prepare
from daskflow.jobs.probe import check_workers
from daskflow.jobs.progress import Progress, progress_of
from daskflow.jobs.report import Report
from daskflow.jobs.share import SharingDriver, begin_sharing
from daskflow.jobs.space import check_space
from daskflow.stores import kvstore
from daskflow.stores.local_files import sweep

if TYPE_CHECKING:
    from distributed import Client

    from daskflow.jobs.job import Job


def run_job(job: Job, client: Client | Threads | None, options: Options) -> Report:
    """Run, or verify, a job; see `Job.run` and `Job.verify`."""
    directory, started = job.home, time.time()
    plan = None if client is None else _checked(job, client, options)
    with ExitStack() as stack:
        lease = stack.enter_context(leased(directory, job.outputs, sharing=options.share))
        progress = progress_of(options.progress)
        stack.callback(progress.close)
        if lease.joined:
            prepared = join(job)
            progress.say(f"{job.name}: joined the drivers that share it")
        else:
            settle(directory)
            prepared = prepare(job, options)
        if prepared.earlier is not None:
            kvstore.delete_tree(directory.scratch)
            report = replace(prepared.earlier, already_done=True)
            progress.say(report.headline)
            return report
        if options.share and not lease.joined:
            begin_sharing(directory, prepared, lease)
        if client is None:
            client = _started(job, directory, progress, stack)
            plan = _checked(job, client, options)
        assert plan is not None
        if isinstance(client, Threads):
            stack.enter_context(directory.in_process())
        executor = executor_of(client, Home(directory.url, directory.read("job.json")["run"]))
        stack.callback(executor.close)
        kind = SharingDriver if options.share else Driver
        driver = kind(job, prepared, directory, executor, plan, progress, lease, options)
        report = driver.verify() if options.verb == "verify" else driver.run()
        if report.ok:
            directory.forget_death()
        for one in job.outputs if prepared.killed else ():
            sweep(one.url, before=started)
        return report


def _checked(job: Job, client: Client | Threads, options: Options) -> Plan:
    plan = job.plan(client)
    plan.check()
    if options.verb == "run":
        check_space(job, plan, anew=options.overwrite)
    check_workers(job, client)
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
