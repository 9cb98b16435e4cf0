"""Options of jobs that run workers: what is said, then what Dask's configuration says, then defaults that work."""

from __future__ import annotations

import functools
import getpass
import importlib.util
import inspect
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed.security import Security

from daskflow.clusters.batch_systems import SYSTEMS, System
from daskflow.clusters.request import SIZES, Request, check_names, declaring, read_resources
from daskflow.clusters.walltime import lifetime, parse_walltime
from daskflow.clusters.workers import ALLOCATOR
from daskflow.config import parse_bytes
from daskflow.errors import ParameterError

_WALLTIME = "1h"
_OURS = ("environment", "resources", "groups")
_INSTEAD = {
    "cores": "threads and processes",
    "n_workers": "workers",
    "extra": "worker_extra_args",
    "env_extra": "job_script_prologue",
    "header_skip": "job_directives_skip",
    "job_extra": "job_extra_directives",
}


@dataclass(frozen=True)
class BatchOptions:
    """What dask-jobqueue is given.

    Attributes:
        values: by the names of dask-jobqueue.
        logs: folder of what jobs print.
        walltime: seconds that a job may run, None without a limit.
        processes: workers of a job.
        threads: threads of a worker.
        memory: bytes of a worker.
        resources: what each worker declares.
    """

    values: Mapping[str, Any]
    logs: Path
    walltime: int | None
    processes: int
    threads: int
    memory: int
    resources: Mapping[str, float]

    @classmethod
    def of(cls, kind: str, request: Request) -> BatchOptions:
        """Complete what was said.

        Raises:
            ParameterError: an option that neither daskflow nor dask-jobqueue knows, or a value that cannot be.
        """
        system = SYSTEMS[kind]
        said = dict(request.options)
        environment = ALLOCATOR | said.pop("environment", {})
        resources = read_resources(said.pop("resources", {}))
        taken = option_names(system)
        check_names(kind, said, {*SIZES, *_OURS, *taken}, instead=_INSTEAD)
        values = {**configured(kind, said.get("config_name", kind)), **said}
        values.setdefault("job_name", values.pop("name", "daskflow"))
        processes = int(values.setdefault("processes", 1))
        if request.threads is not None or "cores" not in values:
            values["cores"] = (request.threads or 1) * processes
        threads = max(1, int(values["cores"]) // processes)
        if request.memory is not None or "memory" not in values:
            values["memory"] = request.memory_of(threads) * processes
        values.setdefault("log_directory", str(writable_folder()))
        values.setdefault("local_directory", f"{system.scratch}/daskflow-{getpass.getuser()}")
        if "disk" in taken:
            values.setdefault("disk", "10GB")
        values["job_script_prologue"] = [
            *(f"export {name}={shlex.quote(str(value))}" for name, value in environment.items()),
            *values.get("job_script_prologue", ()),
        ]
        walltime = _settle_walltime(values, system)
        values["worker_extra_args"] = _worker_arguments(values.get("worker_extra_args", ()), walltime, resources)
        memory = parse_bytes(values["memory"]) // processes
        return cls(values, Path(values["log_directory"]), walltime, processes, threads, memory, resources)

    def secured(self) -> dict[str, Any]:
        """Return the values, and what lets in only workers of this cluster where nothing else was said."""
        values = dict(self.values)
        if "security" not in values and importlib.util.find_spec("cryptography"):
            values["security"] = Security.temporary()
            values.setdefault("shared_temp_directory", str(self.logs))
        # Said without "://", it makes workers announce their address in the network of the scheduler.
        values.setdefault("protocol", "tls" if values.get("security") else "tcp")
        return values


def option_names(system: System) -> set[str]:
    """Return the options that dask-jobqueue takes for a batch system."""
    cluster = system.cluster_class()
    classes = (*cluster.__mro__, *cluster.job_cls.__mro__)
    parameters = {name for one in classes if one is not object for name in inspect.signature(one).parameters}
    ours = {"self", "scheduler", "name", "loop", "job_cls", "scheduler_cls", "args", "kwargs", "worker", "workers"}
    return {name for name in parameters - ours - set(_INSTEAD) if not name.endswith("_kwargs")}


def configured(kind: str, section: str) -> dict[str, Any]:
    """Return what the user's, or the machine's, configuration of Dask says of ``jobqueue.<section>``.

    Raises:
        ParameterError: there is no such section.
    """
    defaults = _defaults()[kind]
    said = dask.config.get(f"jobqueue.{section}", None)
    if said is None:
        there = ", ".join(sorted(dask.config.get("jobqueue")))
        raise ParameterError(f"config_name {section!r}: Dask's configuration has no jobqueue.{section}, but {there}")
    return {
        name.replace("-", "_"): value
        for name, value in said.items()
        if value is not None and value != defaults.get(name.replace("_", "-"))
    }


@functools.cache
def _defaults() -> dict[str, dict[str, Any]]:
    import dask_jobqueue
    import yaml

    text = Path(dask_jobqueue.__file__).with_name("jobqueue.yaml").read_text()
    defaults: dict[str, dict[str, Any]] = yaml.safe_load(text)["jobqueue"]
    return defaults


def writable_folder() -> Path:
    """Return where logs go: nodes see the working directory and the home, mostly."""
    place = Path.cwd() if os.access(Path.cwd(), os.W_OK) else Path.home()
    return place / "daskflow-logs"


def _settle_walltime(values: dict[str, Any], system: System) -> int | None:
    if not system.plain:
        return None
    walltime = parse_walltime(values.get("walltime", _WALLTIME), plain=system.plain, pair=system.pair)
    hours, rest = divmod(walltime, 3600)
    clock = (hours, rest // 60) if system.pair == 3600 else (hours, rest // 60, rest % 60)
    values["walltime"] = ":".join(f"{part:02}" for part in clock)
    return walltime


def _worker_arguments(said: Iterable[str], walltime: int | None, resources: Mapping[str, float]) -> list[str]:
    arguments = [*said, *declaring(resources)]
    names = {argument.partition("=")[0] for argument in arguments}
    if walltime is not None and "--lifetime" not in names:
        after, stagger = lifetime(walltime)
        arguments += ["--lifetime", f"{after}s", "--lifetime-stagger", f"{stagger}s"]
    if names.isdisjoint(("--dashboard-address", "--no-dashboard")):
        arguments += ["--dashboard-address", "127.0.0.1:0"]
    return arguments
