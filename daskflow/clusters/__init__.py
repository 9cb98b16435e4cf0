"""A name, an address or a file in, a Dask client out: from what people type after ``--cluster`` to what runs blocks."""

from __future__ import annotations

import difflib
import functools
import logging
import os
import re
import sys
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskflow.clusters.cluster_file import read_cluster_file
from daskflow.clusters.kinds import KINDS, Kind
from daskflow.clusters.request import Request
from daskflow.clusters.threads import Threads
from daskflow.clusters.workers import Workers
from daskflow.errors import JobError, ParameterError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Threads", "check_words", "connect", "resolve", "script_is_guarded", "stand_in"]

_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx|ucxx|inproc)://.+")
_IMPORTING = ("local", "cuda")  # kinds whose worker processes are spawned by this one
_PATIENCE = 2.0  # seconds without a word
_log = logging.getLogger(__name__)


def connect(
    target: str | os.PathLike[str] = "local",
    *,
    workers: int | str | None = None,
    threads: int | None = None,
    memory: str | int | None = None,
    timeout: float = 10.0,
    **options: Any,
) -> Client | Threads:
    """Start or reach what runs blocks; a context manager that gives it back when done.

    Args:
        target: a kind of cluster: "local" for worker processes on this machine, "threads" for this process alone,
            "slurm", "pbs", "lsf", "sge" or "htcondor" for jobs of a batch system, and those that `daskflow clusters`
            lists; or the address of a Dask scheduler (``tcp://host:8786``), a file with one (``scheduler.json``), or a
            YAML file that names a kind and its options.
        workers: number of worker processes, or like "2:50" for as many as there is work for.
        threads: threads per worker.
        memory: limit of each worker, in bytes or like "4GB".
        timeout: seconds to wait for the scheduler at an address.
        options: those of the kind, e.g. ``walltime`` and ``queue``; its file may have them, too.

    Raises:
        ParameterError: an unknown target or option, or sizes below 1.
        JobError: no scheduler answers at the address, or it wants certificates that are not configured; a batch
            system is not here, or refuses the jobs; worker processes would run the script that runs, once more.
        MissingDependencyError: what the kind needs is not installed.
    """
    where = os.fspath(target)
    options = {"workers": workers, "threads": threads, "memory": memory, **options}
    if _runs_already(where):
        said = Request.of(options).said
        if said:
            raise ParameterError(f"{', '.join(said)} cannot be chosen for {where}: its workers are running already")
        client = _reach(where, timeout)
    else:
        kind, request = resolve(where, options)
        if kind.module in _IMPORTING and not script_is_guarded():
            script = getattr(sys.modules["__main__"], "__file__", "the script")
            raise JobError(
                f"worker processes import {script}, and would run it again: put what it does below"
                ' `if __name__ == "__main__":`, or run in threads: connect("threads")'
            )
        client = kind.start(request)
    if link := getattr(client, "dashboard_link", None):
        _log.info("dashboard: %s", link)
    return client


def check_words(target: str, options: dict[str, Any]) -> None:
    """Raise where the words that name a cluster, and its size, cannot be.

    Raises:
        ParameterError: an unknown kind, or sizes that cannot be read or are below 1.
    """
    if _runs_already(target):
        Request.of(options)
    else:
        resolve(target, options)


def stand_in(target: str, options: dict[str, Any]) -> Workers | None:
    """Return what there would be to run on where connecting would submit jobs, or None elsewhere."""
    if _runs_already(target):
        return None
    kind, request = resolve(target, options)
    if not kind.elsewhere:
        return None
    kind.check()
    stands: Workers = kind.load().planned(kind.name, request)
    return stands


def resolve(target: str, options: dict[str, Any]) -> tuple[Kind, Request]:
    """Return the kind of cluster that is named, or that a file names, and what is asked of it.

    Raises:
        ParameterError: there is no such kind, or sizes are below 1.
    """
    if Path(target).suffix in (".yaml", ".yml"):
        said = read_cluster_file(Path(target))
        given = {name: value for name, value in options.items() if value is not None}
        return resolve(said.pop("kind"), {**said, **given})
    if target not in KINDS:
        near = difflib.get_close_matches(target, KINDS, n=1)
        meant = f"did you mean {near[0]}? Known: " if near else "use "
        raise ParameterError(
            f"unknown cluster {target!r}; {meant}{', '.join(KINDS)}, an address like tcp://host:8786,"
            " or a .yaml or scheduler.json file"
        )
    return KINDS[target], Request.of(options)


def script_is_guarded() -> bool:
    """Return whether worker processes may import the script that runs, as they must, without running it again.

    A module, a notebook or a prompt has nothing to run again; a script may if it looks at ``__name__``; what comes from
    standard input cannot be imported.
    """
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None:
        return True
    try:
        return b"__name__" in Path(path).read_bytes()
    except OSError:
        return False


def _runs_already(where: str) -> bool:
    return bool(_ADDRESS.fullmatch(where)) or where.endswith(".json")


def _reach(where: str, timeout: float) -> Client:
    import dask
    from distributed import Client

    if where.startswith("tls:") and not dask.config.get("distributed.comm.tls.ca-file"):
        raise JobError(
            f"{where} wants certificates, and Dask's configuration names none: set distributed.comm.tls.ca-file,"
            " distributed.comm.tls.client.cert and distributed.comm.tls.client.key"
        )
    is_file = where.endswith(".json")
    if is_file and not Path(where).is_file():
        raise JobError(f"there is no {where}; `dask scheduler --scheduler-file {where}` writes it")
    options = {"scheduler_file": where} if is_file else {"address": where}
    with Threads(1) as pool:
        starting = pool.submit(functools.partial(Client, **options, timeout=timeout))  # it may wait longer than that
    if not wait([starting], min(_PATIENCE, timeout)).done:
        _log.warning("waiting for the Dask scheduler at %s, for %g s at most", where, timeout)
    try:
        client: Client = starting.result(max(0, timeout - _PATIENCE))
    except (OSError, MemoryError) as error:  # another server's answer may be read as an enormous message
        raise JobError(
            f"no Dask scheduler answers at {where} within {timeout:g} s; "
            "start one with `dask scheduler`, or use another --cluster"
        ) from error
    return client
