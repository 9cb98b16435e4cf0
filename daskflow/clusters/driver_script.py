"""What each batch system is given to run a driver, and how its job comes back when its walltime ends."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskflow.clusters.batch_systems import SYSTEMS

_NOTICE = 120  # seconds before the end of the walltime at which the driver is signalled to finish what runs

# A driver is told once: the second signal would end it at once. 130 and 143 are its statuses after one.
_SCRIPT = """#!/bin/bash
{header}{opening}
{command} &
driver=$!
trap 'told=yes; ending=yes; kill -TERM $driver 2>/dev/null' USR1
trap 'told=yes{forward}' TERM
{clock}told=yes
while [ -n "$told" ]; do told=; wait $driver; status=$?; done
{stop_clock}if [ -n "$ending" ] && {{ [ $status = 130 ] || [ $status = 143 ]; }}; then
  echo "walltime ends: the driver's job is queued again"
  {again}
fi
exit $status
"""
_CLOCK = "(trap 'kill $! 2>/dev/null' EXIT; sleep {seconds} & wait $! && kill -USR1 $$) &\nclock=$!\n"


@dataclass(frozen=True)
class Driver:
    """What the job of a driver runs.

    Attributes:
        name: tells its files from those of other drivers.
        command: the words.
        folder: in which it runs.
        logs: folder of what jobs print.
        walltime: seconds.
        memory: bytes.
        queue: or partition, if one was said.
        accounts: account and project, where the cluster's options or Dask's configuration name one.
        section: of that configuration, below jobqueue.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    logs: Path
    walltime: int
    memory: int
    queue: str | None
    accounts: Mapping[str, str]
    section: str

    @property
    def log(self) -> Path:
        """The file that it prints to, in one job after another."""
        return self.logs / f"{self.name}.out"

    @property
    def copy(self) -> Path:
        """The file with the script, where the job itself submits the next one."""
        return self.logs / f"{self.name}.sh"

    @property
    def notice(self) -> int:
        """Seconds before the end of the walltime at which it is told."""
        return min(_NOTICE, self.walltime // 3)


@dataclass(frozen=True)
class Script:
    """How a batch system runs drivers: the text it is given, and what becomes of the job when its walltime ends."""

    text: Callable[[Driver], str]
    ending: str


def _slurm(driver: Driver) -> str:
    directives = [
        "--job-name=daskflow-driver",
        f"--output={driver.logs}/driver-%j.out",
        "--open-mode=append",
        "--requeue",
        "--ntasks=1",
        f"--time={-(-driver.walltime // 60)}",
        f"--mem={-(-driver.memory // 2**20)}M",
        f"--signal=B:USR1@{driver.notice}",
        *(f"--account={account}" for name, account in driver.accounts.items() if name == "account"),
        *([] if driver.queue is None else [f"--partition={driver.queue}"]),
    ]
    return _SCRIPT.format(
        header="\n".join(f"#SBATCH {one}" for one in directives),
        opening="",
        command=shlex.join(driver.command),
        forward="; kill -TERM $driver 2>/dev/null",  # SLURM tells the shell alone
        clock="",
        stop_clock="",
        again="scontrol requeue $SLURM_JOB_ID\n  sleep 60",
    )


def _pbs(driver: Driver) -> str:
    memory = importlib.import_module("dask_jobqueue.pbs").pbs_format_bytes_ceil(driver.memory)
    options = {"walltime": _clock(driver.walltime), "resource_spec": f"select=1:ncpus=1:mem={memory}"}
    again = f"qsub {shlex.quote(str(driver.copy))} && exit 0"
    return _timed("pbs", driver, options, ["-j oe", "-r y", "-V", "-S /bin/bash"], again)


def _lsf(driver: Driver) -> str:
    hours, minutes = divmod(-(-driver.walltime // 60), 60)
    return _timed("lsf", driver, {"walltime": f"{hours:02}:{minutes:02}"}, ["-r", '-Q "99"'], "exit 99")


def _sge(driver: Driver) -> str:
    return _timed("sge", driver, {"walltime": _clock(driver.walltime)}, ["-r y", "-V", "-S /bin/bash"], "exit 99")


def _timed(kind: str, driver: Driver, options: Mapping[str, str], directives: list[str], again: str) -> str:
    """Return a script that tells the driver itself when the walltime ends, below the directives of dask-jobqueue."""
    job_class: Any = SYSTEMS[kind].cluster_class().job_cls
    logs_exist = driver.logs.exists()
    account = "project" if kind in ("lsf", "sge") else "account"
    job = job_class(
        "SCHEDULER",
        name="driver",
        job_name="daskflow-driver",
        cores=1,
        processes=1,
        memory=driver.memory,
        queue=driver.queue,
        log_directory=str(driver.logs),
        job_extra_directives=directives,
        config_name=driver.section,
        **{account: driver.accounts.get(account)},
        **options,
    )
    if not logs_exist:
        driver.logs.rmdir()  # which the job has made, though it may only be shown
    return _SCRIPT.format(
        header=job.job_header,
        opening=f"\ncd {shlex.quote(str(driver.folder))}\nexec >> {shlex.quote(str(driver.log))} 2>&1",
        command=shlex.join(driver.command),
        forward="",  # these systems tell all processes of a job
        clock=_CLOCK.format(seconds=driver.walltime - driver.notice),
        stop_clock="kill $clock 2>/dev/null\n",
        again=again,
    )


def _htcondor(driver: Driver) -> str:
    quote = importlib.import_module("dask_jobqueue.htcondor").quote_arguments
    told = f"cd {shlex.quote(str(driver.folder))} && exec {shlex.join(driver.command)}"
    lines = {
        "Universe": "local",
        "Executable": "/bin/sh",
        "Arguments": f'"{quote(["-c", told])}"',
        "Batch_Name": "daskflow-driver",
        "GetEnv": "True",
        "Request_Cpus": "1",
        "Request_Memory": str(-(-driver.memory // 2**20)),
        "Output": str(driver.log),
        "Error": str(driver.log),
        "Log": str(driver.logs / f"{driver.name}.log"),
        **({} if "account" not in driver.accounts else {"Accounting_Group": driver.accounts["account"]}),
    }
    return "\n".join(f"{name} = {value}" for name, value in lines.items()) + "\nQueue\n"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


SCRIPTS = {
    "slurm": Script(_slurm, "when its walltime ends before the work does, the job is queued again"),
    "pbs": Script(_pbs, "when its walltime ends before the work does, the job submits the next one by qsub"),
    "lsf": Script(_lsf, "when its walltime ends before the work does, the job is queued again"),
    "sge": Script(
        _sge,
        "when its walltime ends before the work does, the job is queued again; it asks for memory only by resource-spec"
        " of Dask's configuration (jobqueue.sge), as each Grid Engine names it differently",
    ),
    "htcondor": Script(_htcondor, "it runs on this machine, and has no walltime"),
}
