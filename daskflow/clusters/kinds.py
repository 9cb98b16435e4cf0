"""The kinds of cluster that can be started, and what each needs."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daskflow.clusters.request import Request
from daskflow.config import format_bytes
from daskflow.errors import JobError, MissingDependencyError, ParameterError

if TYPE_CHECKING:
    from distributed import Client

    from daskflow.clusters.threads import Threads

_LEAST_MEMORY = 150 * 10**6


@dataclass(frozen=True)
class Kind:
    """A kind of cluster.

    Attributes:
        name: what people type.
        summary: what runs the blocks, in a few words.
        module: the module of this package that starts it.
        package: what that imports beside Dask.
        extra: what installs it.
        commands: programs that must be on the PATH.
    """

    name: str
    summary: str
    module: str
    package: str | None = None
    extra: str = ""
    commands: tuple[str, ...] = ()

    @property
    def elsewhere(self) -> bool:
        """Whether its workers are started on other machines, which takes long and may cost money."""
        return self.module in ("batch", "kubernetes")

    def start(self, request: Request) -> Client | Threads:
        """Start a cluster.

        Raises:
            MissingDependencyError: a package is not installed.
            JobError: a program is not there, or the cluster cannot be started.
            ParameterError: an option that this kind does not know, or less memory than a process takes.
        """
        self.check()
        if self.module != "threads" and request.memory is not None and request.memory < _LEAST_MEMORY:
            raise ParameterError(
                f"memory {format_bytes(request.memory)} is less than a worker process takes before it runs a block;"
                f" say {format_bytes(_LEAST_MEMORY)} or more"
            )
        started: Client | Threads = self.load().start(self.name, request)
        return started

    def load(self) -> Any:
        """Import the module that starts it."""
        return importlib.import_module(f"daskflow.clusters.{self.module}")

    def check(self) -> None:
        """Raise where it cannot be started on this machine."""
        self.check_package()
        if absent := self.absent_commands():
            raise JobError(
                f"{self.name} needs the command{'s' * (len(absent) != 1)} {' and '.join(absent)}, not found on the PATH"
                " of this machine: go to a login node, or load the module that provides them"
            )

    def check_package(self) -> None:
        """Raise where its package is not installed."""
        if self.package is not None and importlib.util.find_spec(self.package) is None:
            missing = MissingDependencyError.of(self.package.replace("_", "-"), self.extra)
            raise MissingDependencyError(f"{self.name} {missing}")

    def absent_commands(self) -> list[str]:
        """Return the programs that are not on the PATH."""
        return [command for command in self.commands if shutil.which(command) is None]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("local", "worker processes on this machine", "local"),
        Kind("threads", "threads of this process", "threads"),
        Kind("cuda", "a worker per GPU of this machine", "cuda", "dask_cuda", "cuda", ("nvidia-smi",)),
        Kind("slurm", "SLURM jobs", "batch", "dask_jobqueue", "slurm", ("sbatch", "scancel")),
        Kind("pbs", "PBS jobs", "batch", "dask_jobqueue", "slurm", ("qsub", "qdel")),
        Kind("lsf", "LSF jobs", "batch", "dask_jobqueue", "slurm", ("bsub", "bkill")),
        Kind("sge", "Grid Engine jobs", "batch", "dask_jobqueue", "slurm", ("qsub", "qdel")),
        Kind("htcondor", "HTCondor jobs", "batch", "dask_jobqueue", "slurm", ("condor_submit", "condor_rm")),
        Kind("kubernetes", "pods, by the operator of Dask", "kubernetes", "dask_kubernetes", "kubernetes"),
    )
}
