"""Clients that end the cluster they were started with, also when their process receives SIGTERM."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from distributed import Client

from daskflow.clusters.workers import Workers

# A worker that holds no block it does not run drags no innocent one along when it dies.
ONE_AT_A_TIME = {"distributed.scheduler.worker-saturation": 1.0}


class OwningClient(Client):  # type: ignore[misc]
    """A client that stops its cluster when it is closed.

    Attributes:
        expected: what there will be to run on, where workers come and go.
    """

    expected: Workers | None = None

    def close(self, *args: Any, **kwargs: Any) -> None:
        cluster = self.cluster
        super().close(*args, **kwargs)
        if cluster is not None:
            cluster.close()


def exit_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into an exit, at which Dask closes what still runs, where they would end the process.

    Workers of other machines would stay. Handlers that are there already, and other threads than the main one, are
    left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise SystemExit(128 + number)
