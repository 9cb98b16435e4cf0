"""The end of a line: plan its jobs, run them, and say what came out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from daskflow.cli.chain import Chain
from daskflow.cli.words import say
from daskflow.errors import ParameterError
from daskflow.jobs import Interrupted, Job, merge


@dataclass(frozen=True)
class Settings:
    """What the options before the first command said.

    Attributes:
        command: the words of the command line, for a later retry.
        cluster: where to run; None chooses by size.
        workers: worker processes of a local cluster.
        threads: threads per worker.
        memory: limit of each worker.
        only_plan: show the plan and run nothing.
        retries: how often a block may fail again.
        fail_fast: stop at the first block that fails.
        quiet: no progress.
        yes: do not ask before something is lost.
        overwrite: start over, whatever earlier runs have done.
        retry_failed: run the blocks that failed in an earlier run, too.
        directory: of the job that is retried, to know it again.
    """

    command: tuple[str, ...]
    cluster: str | None
    workers: int | None
    threads: int | None
    memory: str | None
    only_plan: bool
    retries: int
    fail_fast: bool
    quiet: bool
    yes: bool
    overwrite: bool
    retry_failed: bool
    directory: str | None


def run(chain: Chain, settings: Settings) -> int:
    """Run what the chain ended in; return the exit status: 0, 2 when blocks failed, 130 after Ctrl-C.

    Raises:
        ParameterError: the chain ends in nothing.
    """
    if not chain.jobs and not chain.after:
        raise ParameterError("the line computes nothing: end it with save, evaluate-segmentation or neuroglancer")
    code = 0
    if chain.jobs:
        try:
            code = _run_job(merge(chain.jobs, command=settings.command), settings)
        except Interrupted:
            return 130  # the progress has said how to go on
    if settings.directory is None and not settings.only_plan and code == 0:
        for show in chain.after:
            show()
    return code


def _run_job(job: Job, settings: Settings) -> int:
    if settings.directory is not None and job.directory != settings.directory:
        raise ParameterError(
            f"from here the command line means {job.directory}, not {settings.directory}:"
            " go to the directory where it was typed first"
        )
    with _client(settings) as client:
        if settings.only_plan:
            job.check(overwrite=settings.overwrite)
            plan = job.plan(client)
            say(str(plan))
            plan.check()
            return 0
        if settings.directory is None and job.confirm and not settings.yes:
            agree(job.confirm)
        report = job.run(
            client,
            progress=False if settings.quiet else None,
            retries=settings.retries,
            fail_fast=settings.fail_fast,
            overwrite=settings.overwrite,
            retry_failed=settings.retry_failed,
        )
    seen = not settings.quiet and sys.stdout.isatty() and sys.stderr.isatty()
    shown = replace(report, warnings=())  # the log has told them
    say(shown.details if seen else str(shown))
    for name, value in report.results.items():
        rows = value.items() if isinstance(value, dict) else [(name, value)]
        for label, found in rows:
            told = ", ".join(map(str, found)) if isinstance(found, list) else found
            named = label.replace("_", " ")
            say(f"  {named:<28}{told:.6g}" if isinstance(told, float) else f"  {named}: {told}")
    return 0 if report.ok else 2


def agree(lines: Sequence[str]) -> None:
    """Show what is about to happen, and go on only when that is wanted.

    Raises:
        ParameterError: it is not, or nobody is there to answer.
    """
    for line in lines:
        say(line, err=True)
    try:
        click.confirm("Go on?", abort=True, err=True)
    except click.Abort:
        raise ParameterError("nothing was done; answer y, or say --yes before the first command") from None


@contextlib.contextmanager
def _client(settings: Settings) -> Iterator[Any]:
    if settings.cluster is None and not (settings.workers or settings.threads or settings.memory):
        yield None
        return
    from daskflow.clusters import connect

    where = settings.cluster or "local"
    with connect(where, workers=settings.workers, threads=settings.threads, memory=settings.memory) as client:
        yield client
