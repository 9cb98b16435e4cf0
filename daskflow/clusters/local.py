"""Worker processes on this machine."""

from __future__ import annotations

import functools
import importlib.util
import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

import dask
from distributed import Client, LocalCluster, Nanny, Worker
from distributed.security import Security
from distributed.utils import get_mp_context

from daskflow.clusters.owning import ONE_AT_A_TIME, OwningClient
from daskflow.clusters.request import SIZES, Request, check_names, read_resources
from daskflow.clusters.threads import cores
from daskflow.clusters.workers import ALLOCATOR
from daskflow.errors import JobError

# A local worker hardly ever dies but by its block, so a block is suspected after two deaths.
_CONFIG = {
    **ONE_AT_A_TIME,
    "distributed.scheduler.allowed-failures": 1,
    **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in ALLOCATOR.items()},
}
OPTIONS = (*SIZES, "resources", "environment", "groups")
_log = logging.getLogger(__name__)
_START_METHOD = "distributed.worker.multiprocessing-method"
_FORKED_AFTER = ("distributed.nanny", "daskflow.volume.stage")


def start(kind: str, request: Request) -> Client:
    """Start a scheduler and worker processes that listen on 127.0.0.1 only; closing the client stops them.

    Other users of this machine reach that address, too: where `cryptography` is installed only those processes are let
    in, by TLS with keys that are made for this cluster and never stored.
    """
    groups = request.groups()
    request = groups[""]
    check_names(kind, request.options, OPTIONS)
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise JobError(
            'worker processes import the script that starts them; put what it does below `if __name__ == "__main__":`'
        )
    threads = request.threads or 1
    options: dict[str, Any] = {
        "n_workers": request.fixed_workers(kind) or max(1, cores() // threads),
        "threads_per_worker": threads,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0" if importlib.util.find_spec("bokeh") else None,
        "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},  # without a page a port is taken, too
        "preload": [__name__],
        "resources": read_resources(request.options.get("resources")),
        "env": request.options.get("environment", {}),
    }
    if request.memory is not None:
        options["memory_limit"] = request.memory
    secure = protection()
    with dask.config.set({**_CONFIG, **_forked()}):
        client = OwningClient(_PatientCluster(**options, **secure))
        add_groups(client, kind, groups, secure)
    return client


def add_groups(client: OwningClient, kind: str, groups: Mapping[str, Request], secure: Mapping[str, Any]) -> None:
    """Start workers of other groups than the first; what fails stops the cluster.

    Raises:
        ParameterError: an option, or a range of workers.
    """
    others = {name: one for name, one in groups.items() if name}
    if not others:
        return
    try:
        for name, one in others.items():
            check_names(kind, one.options, OPTIONS)
            options = {
                "nthreads": one.threads or 1,
                "memory_limit": one.memory or "auto",
                "host": "127.0.0.1",
                "preload": [__name__],
                "resources": read_resources(one.options.get("resources")),
                "env": one.options.get("environment", {}),
                "silence_logs": logging.WARNING,
                **secure,
            }
            spec = {"cls": Nanny, "options": options}
            client.cluster.worker_spec |= {f"{name}-{at}": spec for at in range(one.fixed_workers(kind) or 1)}
        client.cluster.sync(client.cluster._correct_state)
        client.wait_for_workers(len(client.cluster.worker_spec))
    except BaseException:
        client.close()
        raise


def dask_setup(worker: Worker) -> None:  # noqa: ARG001
    """Make a worker process leave Ctrl-C, which the terminal sends to all, to the driver.

    Dask looks for this function by its name, in the modules that are preloaded.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def protection() -> dict[str, Any]:
    """Return options that let only processes of the cluster in, where these can be."""
    if importlib.util.find_spec("cryptography"):
        return {"security": Security.temporary(), "protocol": "tls://"}
    _say_unprotected()
    return {}


@functools.cache
def _say_unprotected() -> None:
    _log.warning(
        "other users of this machine can connect to the local cluster: pip install 'daskflow[secure]' encrypts it,"
        " and lets no one else in"
    )


class _PatientCluster(LocalCluster):  # type: ignore[misc]
    """A cluster whose workers may die again and again.

    `LocalCluster` looks 15 seconds after a worker has died whether its successor is there. When that one has just died
    as well, and the next is on its way, it would give the place up for good.
    """

    def _update_worker_status(self, op: str, msg: Any) -> None:
        with dask.config.set({"distributed.deploy.lost-worker-timeout": "1000 days"}):
            super()._update_worker_status(op, msg)


def _forked() -> dict[str, str]:
    """Have workers forked from one small process that imported what they need, which starts them several times faster.

    Nothing where another way was configured, and on other systems than Linux.
    """
    if sys.platform != "linux" or dask.config.get(_START_METHOD) != "spawn":
        return {}
    with dask.config.set({_START_METHOD: "forkserver"}):
        get_mp_context().set_forkserver_preload(list(_FORKED_AFTER))
    return {_START_METHOD: "forkserver"}
