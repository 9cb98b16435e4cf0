"""The commands about clusters: which can be used here, workers by hand, and drivers in batch jobs."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

import click

from daskflow.cli.chain import say
from daskflow.cli.options import WordCommand

if TYPE_CHECKING:
    from daskflow.clusters.kinds import Kind


_REST = {"ignore_unknown_options": True, "allow_interspersed_args": False}  # words that follow stay as they are


@click.command(cls=WordCommand, short_help="Show which kinds of cluster can be used here, and what is missing.")
@click.option("--show-script", "shown", metavar="KIND", help="Print the job script that a batch system would be given.")
@click.pass_context
def clusters(ctx: click.Context, shown: str | None) -> None:
    """Show which kinds of cluster can be used here, and what the others need.

    The script is that of the options before the command: daskflow --memory 8GB clusters --show-script slurm. KIND is
    slurm, pbs, lsf, sge, htcondor or a YAML file with one of these.
    """
    from daskflow.clusters import resolve
    from daskflow.clusters.cluster_file import read_option
    from daskflow.clusters.kinds import KINDS
    from daskflow.errors import ParameterError

    if shown is not None:
        given = ctx.find_root().params
        options = dict(map(read_option, given["cluster_options"]))
        kind, request = resolve(shown, {**options, **{name: given[name] for name in ("workers", "threads", "memory")}})
        if kind.module != "batch":
            raise ParameterError(f"{kind.name} submits no jobs: show-script takes a batch system, e.g. slurm")
        kind.check_package()
        say(kind.load().script(kind.name, request).rstrip())
        return
    for kind in KINDS.values():
        say(f"{kind.name:<12}{kind.summary:<34}{_state(kind)}")
    say("\nUse one with --cluster NAME before the first command, or its YAML file (`kind: NAME` and options);")
    say("--cluster tcp://host:8786 or scheduler.json uses a Dask scheduler that runs already.")


def _state(kind: Kind) -> str:
    """Return what a kind of cluster lacks here, or that it lacks nothing, and what Dask's configuration says of it."""
    from daskflow.errors import JobError, MissingDependencyError

    try:
        kind.check_package()
        if kind.module == "kubernetes":
            kind.load().check_configuration(kind.name)
    except (MissingDependencyError, JobError) as error:
        return str(error).removeprefix(f"{kind.name} ")
    absent = " ".join(kind.absent_commands())
    state = f"not here: no {absent} on the PATH" if absent else "ready"
    if kind.module == "batch":
        from daskflow.clusters.batch_options import configured

        names = ", ".join(sorted(configured(kind.name, kind.name)))
        state += f"; Dask's configuration (jobqueue.{kind.name}) sets {names}" if names else ""
    return state


@click.command(
    context_settings=_REST,
    short_help="Start workers on this machine for a scheduler elsewhere.",
    epilog="Other options are those of `dask worker`, e.g. --tls-ca-file, --lifetime, --resources.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes; one per core and thread, 1 with a GPU, by default.")
@click.option("--threads", type=click.IntRange(1), help="Threads per worker; 1 by default, 2 with a GPU.")
@click.option("--memory", metavar="SIZE", help="Memory limit of each worker; by default its share of the machine.")
@click.argument("address", metavar="ADDRESS")
@click.argument("others", nargs=-1, type=click.UNPROCESSED)
def worker(workers: int | None, threads: int | None, memory: str | None, address: str, others: tuple[str, ...]) -> None:
    """Start workers on this machine for the scheduler at ADDRESS, or of a scheduler.json, until Ctrl-C.

    They may join a cluster of any kind while a job runs. They need the same packages as its driver, and its paths. With
    `--resources GPU=1` a worker has two threads: one block is in the GPU while another is read or written.
    """
    from daskflow.clusters.threads import cores
    from daskflow.clusters.workers import TASKS_PER_GPU
    from daskflow.config import parse_bytes

    gpu = any(re.search(r"(^|[=, ])GPU=", word) for word in others)
    threads = threads or (TASKS_PER_GPU if gpu else 1)
    count = workers or (1 if gpu else max(1, cores() // threads))
    words = ["--scheduler-file", address] if address.endswith(".json") else [address]
    words += ["--nworkers", str(count), "--nthreads", str(threads)]
    words += [] if memory is None else ["--memory-limit", str(parse_bytes(memory))]
    if not {"--dashboard-address", "--no-dashboard"} & set(others):
        words += ["--dashboard-address", "127.0.0.1:0"]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "distributed.cli.dask_worker", *words, *others])  # noqa: S606


@click.command(
    context_settings=_REST, short_help="Put the driver of a line or recipe into a batch job, until it is done."
)
@click.option(
    "--cluster",
    default="slurm",
    show_default=True,
    metavar="WHERE",
    help="slurm, pbs, lsf, sge or htcondor, or a YAML file with one of these.",
)
@click.option("--walltime", default="1d", show_default=True, metavar="TIME", help="Of each of the driver's jobs.")
@click.option("--memory", default="4GB", show_default=True, metavar="SIZE", help="Of the driver, not of workers.")
@click.option("--queue", metavar="NAME", help="Queue or partition of the driver's job.")
@click.option("--show-script", "shown", is_flag=True, help="Print the script of the job, and submit nothing.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="recipe.py ... | COMMAND ...")
@click.pass_context
def submit(
    ctx: click.Context, cluster: str, walltime: str, memory: str, queue: str | None, shown: bool, words: tuple[str, ...]
) -> None:
    """Put the driver of a command line, or of a Python script, into a batch job of its own.

    Before its walltime ends the driver finishes the blocks that run, and its job is queued again, until the work is
    done; htcondor runs it on this machine, without a walltime. A command line runs with --cluster WHERE, and with the
    options before `submit`; a script gets its words as they are: daskflow submit recipe.py --cluster slurm.
    """
    from daskflow.clusters.driver_job import DriverJob

    script = words[0].endswith(".py")
    given = ["--cluster", cluster, *_root_words(ctx)]
    command = [sys.executable, *words] if script else [sys.executable, "-m", "daskflow", *given, *words]
    job = DriverJob.of(command, cluster, walltime=walltime, memory=memory, queue=queue)
    if shown:
        say(job.script.rstrip())
        return
    number, log = job.submit()
    say(f"job {number} runs the driver, and prints to {log}")
    say(job.ending)
    say(f"`{job.kind.commands[1]} {number}` ends it, and with it the jobs of its workers")


def _root_words(ctx: click.Context) -> list[str]:
    """Return the options that stand before the command."""
    words: list[str] = []
    root = ctx.find_root()
    for param in root.command.params:
        value = root.params.get(param.name or "")
        if value in (None, False, ()) or value == param.default or param.name == "cluster":
            continue
        for one in value if isinstance(value, tuple) else [value]:
            words += [param.opts[0]] if one is True else [param.opts[0], str(one)]
    return words
