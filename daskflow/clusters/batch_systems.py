"""What differs between batch systems."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class System:
    """What differs between batch systems.

    Attributes:
        cluster: the class of dask-jobqueue.
        plain: seconds that a number alone counts as a walltime; 0 if there is no walltime.
        pair: seconds that the first of two numbers with a colon counts.
        scratch: where a job finds a disk of its node, as its shell writes it.
        nodes: a command that lists addresses of nodes.
        queue: a command that lists id, state and reason of the jobs whose ids follow, comma-separated.
        look: what people type to see their jobs.
    """

    cluster: str
    look: str
    plain: int = 1
    pair: int = 60
    scratch: str = "${TMPDIR:-/tmp}"
    nodes: tuple[str, ...] = ()
    queue: tuple[str, ...] = ()

    def cluster_class(self) -> Any:
        """Import the class."""
        return getattr(importlib.import_module("dask_jobqueue"), self.cluster)


SYSTEMS = {
    "slurm": System(
        "SLURMCluster",
        "squeue --me",
        plain=60,
        scratch="${SLURM_TMPDIR:-${TMPDIR:-/tmp}}",
        nodes=("sinfo", "--noheader", "--format=%o"),
        queue=("squeue", "--noheader", "--format=%i %T (%r)", "--jobs"),
    ),
    "pbs": System("PBSCluster", "qstat -u $USER"),
    "lsf": System("LSFCluster", "bjobs", plain=60, pair=3600),
    "sge": System("SGECluster", "qstat"),
    "htcondor": System("HTCondorCluster", "condor_q", plain=0, scratch="${_CONDOR_SCRATCH_DIR:-/tmp}"),
}
