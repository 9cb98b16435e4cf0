"""The driver itself as a SLURM job, which is queued again when its walltime ends before the work does."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from daskflow.clusters import resolve
from daskflow.clusters.batch_options import writable_folder
from daskflow.clusters.walltime import parse_walltime
from daskflow.config import parse_bytes
from daskflow.errors import JobError, ParameterError

_NOTICE = 120  # seconds before the end of the walltime at which the driver is told to finish what runs

# SLURM tells the shell, not the driver, which so is told once; 130 and 143 are the driver's statuses after a signal.
_SCRIPT = """#!/bin/bash
{directives}
{command} &
driver=$!
trap 'told=yes; ending=yes; kill -TERM $driver 2>/dev/null' USR1
trap 'told=yes; kill -TERM $driver 2>/dev/null' TERM
told=yes
while [ -n "$told" ]; do told=; wait $driver; status=$?; done
if [ -n "$ending" ] && {{ [ $status = 130 ] || [ $status = 143 ]; }}; then
  echo "walltime ends: the driver's job is queued again"
  scontrol requeue $SLURM_JOB_ID
  sleep 60
fi
exit $status
"""


@dataclass(frozen=True)
class DriverJob:
    """A driver's job: its number in the queue, and the file that it prints to."""

    number: str
    log: Path


def submit(command: Sequence[str], cluster: str, *, walltime: str, memory: str, queue: str | None) -> DriverJob:
    """Submit a command as a job in the working directory.

    Args:
        command: the words.
        cluster: slurm, or a file that names it.
        walltime: of the job; it is queued again as often as is needed.
        memory: of the job.
        queue: partition of the job.

    Raises:
        ParameterError: not SLURM, or a size that cannot be.
        JobError: SLURM refuses the job.
    """
    kind, _ = resolve(cluster, {})
    if kind.name != "slurm":
        raise ParameterError(
            f"drivers can be submitted to slurm, not to {kind.name}: write a job script that runs the command line,"
            " which goes on where it stopped when it runs again"
        )
    kind.check()
    seconds = parse_walltime(walltime, plain=60, pair=60)
    logs = writable_folder()
    logs.mkdir(exist_ok=True)
    directives = [
        "--job-name=daskflow-driver",
        f"--output={logs}/driver-%j.out",
        "--open-mode=append",
        "--requeue",
        "--ntasks=1",
        f"--time={-(-seconds // 60)}",
        f"--mem={-(-parse_bytes(memory) // 2**20)}M",
        f"--signal=B:USR1@{min(_NOTICE, seconds // 3)}",
        *([] if queue is None else [f"--partition={queue}"]),
    ]
    script = _SCRIPT.format(directives="\n".join(f"#SBATCH {one}" for one in directives), command=shlex.join(command))
    done = subprocess.run(["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise JobError(f"slurm refuses the driver's job: {done.stderr.strip()}")
    number = done.stdout.strip().partition(";")[0]
    return DriverJob(number, logs / f"driver-{number}.out")
