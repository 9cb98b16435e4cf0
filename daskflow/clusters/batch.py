"""Workers as jobs of a batch system: SLURM, PBS, LSF, Grid Engine or HTCondor, by dask-jobqueue."""

from __future__ import annotations

import functools
import logging
import math
import socket
import subprocess
from collections.abc import Sequence
from typing import Any

import dask
from distributed import Client
from distributed.utils import get_ip

from daskflow.clusters.arrival import QueueWatch, await_worker
from daskflow.clusters.batch_options import BatchOptions
from daskflow.clusters.batch_systems import SYSTEMS, System
from daskflow.clusters.groups import Group, GroupScaling, groups_of
from daskflow.clusters.owning import ONE_AT_A_TIME, OwningClient, exit_on_signals
from daskflow.clusters.replacing import replacing
from daskflow.clusters.request import Request
from daskflow.clusters.workers import Workers, expected
from daskflow.config import format_bytes
from daskflow.errors import JobError

_log = logging.getLogger(__name__)

_CONFIG = {
    **ONE_AT_A_TIME,
    "distributed.adaptive.target-duration": "100ms",  # the window of a job is small: any queue wants more workers
    "distributed.adaptive.wait-count": 60,  # seconds without use after which a worker is given back
}
_OF_THE_CLUSTER = {"scheduler_options", "shared_temp_directory", "silence_logs", "security", "protocol"}


def start(kind: str, request: Request) -> Client:
    """Submit jobs that run workers, wait for the first, and return a client; closing it ends the jobs.

    The scheduler runs in this process. Where `cryptography` is installed only workers of this cluster are let in.

    Raises:
        JobError: a job is refused, or ends before its worker comes.
        ParameterError: an option that cannot be.
    """
    groups = groups_of(kind, request)
    logs = groups[0].options.logs
    exit_on_signals()
    with dask.config.set(_CONFIG):
        client = OwningClient(_open(SYSTEMS[kind], groups[0].options))
        client.expected = expected([group.size for group in groups])
        try:
            for group in groups[1:]:
                client.cluster.add_group(group.name, _of_jobs(group.options))
            for group in groups:
                _log.info("%s; their logs go to %s", _described(kind, group), logs)
            _submit(kind, client.cluster, groups)
            _adapt(client.cluster, groups)
            await_worker(client, kind, SYSTEMS[kind], logs)
            QueueWatch(client.cluster, kind, SYSTEMS[kind], logs)
        except BaseException:
            client.close()
            raise
    return client


def planned(kind: str, request: Request) -> Workers:
    """Return what plans are made for without submitting a job."""
    return expected([group.size for group in groups_of(kind, request)])


def script(kind: str, request: Request) -> str:
    """Return the script of each job, or those of the jobs of each group."""
    groups = groups_of(kind, request)
    scripts = [_script(kind, group.options) for group in groups]
    if len(groups) == 1:
        return scripts[0]
    return "\n".join(f"# {_described(kind, group)}\n{text}" for group, text in zip(groups, scripts, strict=True))


def _script(kind: str, options: BatchOptions) -> str:
    logs_exist = options.logs.exists()
    job = SYSTEMS[kind].cluster_class().job_cls("SCHEDULER", name="WORKER", **_of_jobs(options))
    if not logs_exist:
        options.logs.rmdir()  # which the job has made, though none is submitted
    return str(job.job_script())


def _of_jobs(options: BatchOptions) -> dict[str, Any]:
    """Return the values that are each job's own."""
    return {name: value for name, value in options.values.items() if name not in _OF_THE_CLUSTER}


def _adapt(cluster: Any, groups: Sequence[Group]) -> None:
    """Have each group keep the workers that there is work for."""
    first, *others = groups
    if not others:
        cluster.adapt(minimum=first.least, maximum=first.most)
        return
    cluster.adapt(functools.partial(GroupScaling, group=first), minimum=first.least, maximum=first.most)
    cluster.scalings = [GroupScaling(cluster, group, minimum=group.least, maximum=group.most) for group in others]


def _open(system: System, options: BatchOptions) -> Any:
    try:
        options.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"cannot make the folder for the logs of jobs: {error}; name one as log_directory") from error
    values = options.secured()
    where = {} if values.get("interface") else {"host": _own_address(system)}
    scheduler = {**where, "dashboard_address": "127.0.0.1:0", **values.get("scheduler_options", {})}
    return replacing(system.cluster_class())(**{**values, "scheduler_options": scheduler})


def _own_address(system: System) -> str:
    """Return the address of this machine in the network of the nodes, or else in that of its default route."""
    for node in _lines(system.nodes):
        try:
            return str(get_ip(socket.gethostbyname(node)))
        except OSError:
            continue
    return str(get_ip())


def _lines(command: tuple[str, ...]) -> list[str]:
    if not command:
        return []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split()


def _described(kind: str, group: Group) -> str:
    options, least, most = group.options, group.least, group.most
    count = f"{most} worker{'s' * (most != 1)}" if least == most else f"{least} to {most} workers"
    size = f"{options.threads} thread{'s' * (options.threads != 1)} and {format_bytes(options.memory)} each"
    together = f", {options.processes} to a job" if options.processes > 1 else ""
    until = "" if options.walltime is None else f", jobs of {options.values['walltime']}"
    amounts = (f"{name} {amount:g}" for name, amount in options.resources.items())
    declared = ", ".join(["", *amounts])
    return f"{kind}{group.name and f', {group.name}'}: {count} of {size}{declared}{together}{until}"


def _submit(kind: str, cluster: Any, groups: Sequence[Group]) -> None:
    """Submit the first jobs, so that a refusal is seen.

    Raises:
        JobError: the batch system refuses them.
    """
    try:
        cluster.sync(cluster.submit, {group.name: math.ceil(group.least / group.options.processes) for group in groups})
    except (RuntimeError, OSError) as error:
        raise JobError(f"{error}\n`daskflow clusters --show-script {kind}` shows the script") from error
