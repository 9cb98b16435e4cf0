"""The driver itself as a job of a batch system, which is queued again when its walltime ends before the work does."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from daskflow.clusters import resolve
from daskflow.clusters.batch_options import configured, writable_folder
from daskflow.clusters.batch_systems import SYSTEMS
from daskflow.clusters.driver_script import SCRIPTS, Driver
from daskflow.clusters.kinds import Kind
from daskflow.clusters.walltime import parse_walltime
from daskflow.config import parse_bytes
from daskflow.errors import JobError, ParameterError

_SAYING_THE_NUMBER = {"slurm": ["--parsable"], "htcondor": ["-terse"]}


@dataclass(frozen=True)
class DriverJob:
    """A driver's job before it is submitted.

    Attributes:
        kind: the batch system.
        driver: what the job runs.
    """

    kind: Kind
    driver: Driver

    @classmethod
    def of(cls, command: Sequence[str], cluster: str, *, walltime: str, memory: str, queue: str | None) -> Self:
        """Return the job that runs a command in the working directory.

        Args:
            command: the words.
            cluster: a batch system, or a file that names it.
            walltime: of the job; it is queued again as often as is needed.
            memory: of the job.
            queue: or partition of the job.

        Raises:
            ParameterError: no batch system, or a size that cannot be.
            MissingDependencyError: dask-jobqueue is not installed.
        """
        kind, request = resolve(cluster, {})
        if kind.name not in SCRIPTS:
            raise ParameterError(
                f"drivers can be submitted to {', '.join(SCRIPTS)}, not to {kind.name}: start the command line where it"
                " can go on; it resumes where it stopped when it runs again"
            )
        kind.check_package()
        system = SYSTEMS[kind.name]
        seconds = parse_walltime(walltime, plain=system.plain or 60, pair=system.pair)
        section = str(request.options.get("config_name", kind.name))
        said = {**configured(kind.name, section), **request.options}
        accounts = {name: str(said[name]) for name in ("account", "project") if said.get(name)}
        name = f"driver-{uuid.uuid4().hex[:8]}"
        logs, words = writable_folder(), tuple(command)
        return cls(kind, Driver(name, words, Path.cwd(), logs, seconds, parse_bytes(memory), queue, accounts, section))

    @property
    def script(self) -> str:
        """What the batch system is given."""
        return SCRIPTS[self.kind.name].text(self.driver)

    @property
    def ending(self) -> str:
        """What becomes of the job when its walltime ends, as a sentence."""
        return SCRIPTS[self.kind.name].ending

    def submit(self) -> tuple[str, Path]:
        """Submit the job; return its number in the queue, and the file that it prints to.

        Raises:
            JobError: the commands of the batch system are not here, or it refuses the job.
        """
        self.kind.check()
        self.driver.logs.mkdir(exist_ok=True)
        script = self.script
        if self.kind.name == "pbs":
            self.driver.copy.write_text(script)  # which the job submits again
        command = [self.kind.commands[0], *_SAYING_THE_NUMBER.get(self.kind.name, ())]
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
        number = re.search(r"\d+", done.stdout)
        if done.returncode or number is None:
            raise JobError(f"{self.kind.name} refuses the driver's job: {(done.stderr or done.stdout).strip()}")
        log = self.driver.logs / f"driver-{number[0]}.out" if self.kind.name == "slurm" else self.driver.log
        return number[0], log
