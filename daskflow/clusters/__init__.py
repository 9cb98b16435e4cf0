"""A name or an address in, a Dask client out: from what people type after ``--cluster`` to what runs blocks."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from daskflow.clusters.threads import Threads
from daskflow.config import parse_bytes
from daskflow.errors import JobError, ParameterError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Threads", "connect", "script_is_guarded"]

_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx|ucxx|inproc)://.+")


def connect(
    target: str = "local",
    *,
    workers: int | None = None,
    threads: int | None = None,
    memory: str | int | None = None,
    timeout: float = 10.0,
) -> Client | Threads:
    """Start or reach what runs blocks; a context manager that gives it back when done.

    Args:
        target: "local" for worker processes on this machine, "threads" for this process alone, the name of another
            module in `daskflow.clusters`, or the address of a Dask scheduler (``tcp://host:8786``).
        workers: number of worker processes; each core gets one unless said.
        threads: threads per worker.
        memory: limit of each worker, in bytes or like "4GB".
        timeout: seconds to wait for the scheduler at an address.

    Raises:
        ParameterError: an unknown target, or sizes below 1.
        JobError: no scheduler answers at the address, or it wants certificates that are not configured.
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise ParameterError(f"{name} {value} must be at least 1")
    if _ADDRESS.fullmatch(target):
        given = {"workers": workers, "threads": threads, "memory": memory}
        if any(value is not None for value in given.values()):
            names = ", ".join(name for name, value in given.items() if value is not None)
            raise ParameterError(f"{names} cannot be chosen for {target}: its workers are running already")
        return _reach(target, timeout)
    if target not in targets():
        raise ParameterError(f"{target!r} is no cluster; use {', '.join(targets())} or an address like tcp://host:8786")
    module = importlib.import_module(f"daskflow.clusters.{target}")
    limit = None if memory is None else parse_bytes(memory)
    started: Client | Threads = module.start(workers=workers, threads=threads, memory=limit)
    return started


def targets() -> list[str]:
    """Return the names that `connect` takes: the modules of this package that start something."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


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


def _reach(address: str, timeout: float) -> Client:
    import dask
    from distributed import Client

    if address.startswith("tls:") and not dask.config.get("distributed.comm.tls.ca-file"):
        raise JobError(
            f"{address} wants certificates, and Dask's configuration names none: set distributed.comm.tls.ca-file,"
            " distributed.comm.tls.client.cert and distributed.comm.tls.client.key"
        )
    try:
        return Client(address, timeout=timeout)
    except OSError as error:
        raise JobError(
            f"no Dask scheduler answers at {address} within {timeout:g} s; "
            "start one with `dask scheduler`, or use another --cluster"
        ) from error
