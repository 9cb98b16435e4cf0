"""One worker process per GPU of this machine, by dask-cuda."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

import dask
from distributed import Client

from daskflow.clusters.local import add_groups, protection
from daskflow.clusters.owning import ONE_AT_A_TIME, OwningClient
from daskflow.clusters.request import SIZES, Request, check_names
from daskflow.errors import JobError

_THREADS = 2  # one block is in the GPU while another is read or written


def start(kind: str, request: Request) -> Client:
    """Start a worker process for each GPU, or for as many as `workers` says; closing the client stops them.

    Workers of other groups see no GPU.

    Raises:
        JobError: there are fewer GPUs, or none.
        ParameterError: an option, or a range of workers.
    """
    groups = request.groups()
    request = groups[""]
    check_names(kind, request.options, SIZES)
    gpus = _count_gpus()
    count = request.fixed_workers(kind) or gpus
    if count > gpus:
        raise JobError(f"{kind} starts one worker per GPU, and this machine has {gpus}: --workers {count} is too many")
    import dask_cuda

    options: dict[str, Any] = {
        "n_workers": count,
        "threads_per_worker": request.threads or _THREADS,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "resources": {"GPU": 1},
    }
    if request.memory is not None:
        options["memory_limit"] = request.memory
    secure = protection()
    others = {
        name: replace(one, options={"environment": {"CUDA_VISIBLE_DEVICES": ""}, **one.options})
        for name, one in groups.items()
    }
    with dask.config.set(ONE_AT_A_TIME):
        client = OwningClient(dask_cuda.LocalCUDACluster(**options, **secure))
        add_groups(client, kind, others, secure)
    return client


def _count_gpus() -> int:
    """Return how many GPUs nvidia-smi lists.

    Raises:
        JobError: none, or their driver does not answer.
    """
    done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    gpus = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    if not gpus:
        told = (done.stderr or done.stdout).strip() or "it lists none"
        raise JobError(f"cuda needs a GPU on this machine; nvidia-smi says: {told}")
    return gpus
