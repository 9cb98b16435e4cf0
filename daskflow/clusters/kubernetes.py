"""Workers, and the scheduler, as pods of Kubernetes, by the operator of Dask."""

from __future__ import annotations

import getpass
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
from distributed import Client

from daskflow.clusters.owning import OwningClient, exit_on_signals
from daskflow.clusters.request import SIZES, Request, check_names, declaring, read_resources
from daskflow.clusters.workers import GPU, Size, Workers, expected
from daskflow.errors import JobError, ParameterError

_log = logging.getLogger(__name__)
_OPTIONS = ("image", "name", "namespace", "environment", "resources", "groups")
_IN_A_POD = "/var/run/secrets/kubernetes.io/serviceaccount/token"


def start(kind: str, request: Request) -> Client:
    """Create a DaskCluster, and return a client; closing it deletes the cluster.

    Raises:
        ParameterError: an unknown option, or no image.
        JobError: Kubernetes, or the operator in it, does not answer as it should.
    """
    groups = request.groups()
    first, others = groups.pop(""), {name: _workers_of(kind, one) for name, one in groups.items()}
    specification = describe(kind, first)
    check_configuration(kind)
    least, most = first.workers or (1, 1)
    from dask_kubernetes.operator import KubeCluster

    exit_on_signals()
    try:
        with dask.config.set({"distributed.adaptive.target-duration": "100ms"}):
            cluster = KubeCluster(
                namespace=first.options.get("namespace"), custom_cluster_spec=specification, quiet=True
            )
            for name, specified in others.items():
                cluster.add_worker_group(name, custom_spec=specified)
    except Exception as error:  # kr8s, httpx and kubernetes raise what they like
        raise JobError(
            f"{kind} does not start the cluster: {type(error).__name__}: {error}\n"
            "see that `kubectl get daskclusters` works, which wants Dask's operator in the cluster:"
            " helm install --repo https://helm.dask.org --generate-name dask-kubernetes-operator"
        ) from error
    client = OwningClient(cluster)
    if least != most:
        if any(read_resources(one.options.get("resources")) for one in groups.values()):
            _log.warning(
                "%s: its autoscaler also counts blocks that only another group runs, e.g. those for GPUs, and may keep"
                " more of these %d to %d workers than have work; a fixed number avoids that",
                kind,
                least,
                most,
            )
        cluster.adapt(minimum=least, maximum=most)
    return client


def planned(kind: str, request: Request) -> Workers:
    """Return what plans are made for without creating a pod."""
    sizes = []
    for one in request.groups().values():
        describe(kind, one)
        threads = one.threads or 1
        resources = read_resources(one.options.get("resources"))
        sizes.append(Size(*(one.workers or (1, 1)), threads, one.memory_of(threads), resources))
    return expected(sizes)


def describe(kind: str, request: Request) -> dict[str, Any]:
    """Return the DaskCluster that is asked of Kubernetes.

    Raises:
        ParameterError: an unknown option, or no image.
    """
    from dask_kubernetes.operator import make_cluster_spec

    options: Mapping[str, Any] = request.options
    check_names(kind, options, (*SIZES, *_OPTIONS))
    resources = read_resources(options.get("resources"))
    declared = declaring(resources)
    image = options.get("image")
    if not image:
        raise ParameterError(f"{kind} needs the option image: a container image with daskflow and what its lines use")
    threads = request.threads or 1
    memory = request.memory_of(threads)
    least, _ = request.workers or (1, 1)
    specification: dict[str, Any] = make_cluster_spec(
        name=options.get("name") or _own_name(),
        image=image,
        n_workers=least,
        env=dict(options.get("environment", {})),
        worker_command=["dask", "worker", "--nthreads", str(threads), "--memory-limit", str(memory), *declared],
    )
    amounts = {"cpu": str(threads), "memory": str(memory)}
    limits = {"memory": str(memory)}
    if resources.get(GPU):
        limits["nvidia.com/gpu"] = f"{resources[GPU]:g}"
    _container(specification, "worker")["resources"] = {"requests": amounts, "limits": limits}
    # The operator's own are commands that Dask does not install any more.
    _container(specification, "scheduler")["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]  # noqa: S104
    return specification


def _workers_of(kind: str, request: Request) -> dict[str, Any]:
    """Return the workers of another group than the first, whose number the operator does not change."""
    request.fixed_workers(kind)
    workers: dict[str, Any] = describe(kind, request)["spec"]["worker"]
    return workers


def check_configuration(kind: str) -> None:
    """Raise JobError where nothing says how to reach a Kubernetes."""
    named = os.environ.get("KUBECONFIG", str(Path.home() / ".kube" / "config"))
    if not any(Path(path).is_file() for path in (*named.split(os.pathsep), _IN_A_POD)):
        raise JobError(f"{kind} needs kubectl's configuration, and there is no {named}; name one by KUBECONFIG")


def _container(specification: dict[str, Any], role: str) -> dict[str, Any]:
    container: dict[str, Any] = specification["spec"][role]["spec"]["containers"][0]
    return container


def _own_name() -> str:
    user = re.sub(r"[^a-z0-9]+", "-", getpass.getuser().lower()).strip("-")
    return f"daskflow-{user}-{os.getpid()}"
