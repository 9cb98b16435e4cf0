"""Worker processes on this machine."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from daskflow.errors import JobError

if TYPE_CHECKING:
    from distributed import Client, Worker

# A local worker hardly ever dies but by its block, so a block is suspected after two deaths. A worker that holds no
# block it does not run (saturation 1.0) drags no innocent one along when it dies.
_CONFIG = {
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": 1,
}
_PRELOAD = ("distributed.nanny", "daskflow.volume.stage")


def start(*, workers: int | None, threads: int | None, memory: int | None) -> Client:
    """Start a scheduler and worker processes that listen on 127.0.0.1 only; closing the client stops them.

    Raises:
        JobError: called while a script is imported by one of its own worker processes.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise JobError(
            'worker processes import the script that starts them; put what it does below `if __name__ == "__main__":`'
        )
    import dask
    from distributed import Client

    cores = len(os.sched_getaffinity(0))
    threads = threads or 1
    options: dict[str, Any] = {
        "n_workers": workers or max(1, cores // threads),
        "threads_per_worker": threads,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0" if importlib.util.find_spec("bokeh") else None,
        "preload": [__name__],
    }
    if memory is not None:
        options["memory_limit"] = memory
    with dask.config.set({**_CONFIG, **_forked()}):
        return Client(**options)


def _forked() -> dict[str, str]:
    """Have workers forked from one small process that imported what they need, which starts them several times faster.

    Nothing where another way was configured, and on other systems than Linux.
    """
    import dask
    from distributed.utils import get_mp_context

    key = "distributed.worker.multiprocessing-method"
    if sys.platform != "linux" or dask.config.get(key) != "spawn":
        return {}
    with dask.config.set({key: "forkserver"}):
        get_mp_context().set_forkserver_preload(list(_PRELOAD))
    return {key: "forkserver"}


def dask_setup(worker: Worker) -> None:
    """Make a worker process leave Ctrl-C to the driver, and run no block before its nanny knows it.

    The terminal sends Ctrl-C to all. And a nanny whose worker dies before it has heard of it does not start another.
    Dask looks for this function by its name, in the modules that are preloaded.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    for _ in range(worker.state.nthreads):
        worker.executors["default"].submit(_wait_until_known, worker)


def _wait_until_known(worker: Worker) -> None:
    while worker.status.name in ("init", "starting", "undefined"):
        time.sleep(0.01)
    time.sleep(0.1)
