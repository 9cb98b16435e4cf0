"""What workers are asked before anything runs: whether they see what the driver sees, and have the same packages."""

from __future__ import annotations

import logging
import pickle
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import daskflow
from daskflow.clusters import Threads
from daskflow.clusters.workers import Workers
from daskflow.config import format_bytes
from daskflow.errors import DaskflowError, PlanError
from daskflow.jobs.batch import PickledStage, process_name
from daskflow.jobs.space import folder_of

if TYPE_CHECKING:
    from distributed import Client

    from daskflow.jobs.job import Job

_MOST = 8  # workers that are asked, each on a machine of its own
_LITTLE_SPACE = 10**9  # bytes on a worker's own disk, for files that are decoded and what memory does not hold
_PATIENCE = 30.0  # seconds, after which they have other things to do
_PACKAGES = ("numpy", "tensorstore", "dask", "distributed", "cloudpickle")  # and torch where a network runs
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """What a worker found.

    Attributes:
        process: its host and process.
        unseen: what it does not see.
        versions: of packages, by name.
        scratch: its own folder on a disk, and the bytes that are free there.
    """

    process: str
    unseen: tuple[str, ...]
    versions: Mapping[str, str]
    scratch: tuple[str, int]


def look(stages: Sequence[bytes], folders: Sequence[str], packages: Sequence[str]) -> Seen:
    """Return what of some pickled stages, local folders and packages is there where this runs."""
    from distributed import get_worker

    unseen = [f"{folder} is not there" for folder in folders if not Path(folder).is_dir()]
    for data in stages:
        try:
            pickle.loads(data).task.describe()
        except (DaskflowError, OSError, ImportError, AttributeError) as error:
            unseen.append(str(error))
    scratch = get_worker().local_directory
    free = shutil.disk_usage(scratch).free
    return Seen(process_name(), tuple(dict.fromkeys(unseen)), _versions(packages), (scratch, free))


def check_workers(job: Job, client: Client | Threads | Workers) -> None:
    """Raise where no worker of other machines could run the job; say what is doubtful of some.

    Raises:
        PlanError: none sees what the job reads, or the folders in which it writes, or has this version of daskflow.
    """
    if isinstance(client, Threads | Workers):
        return
    from distributed import LocalCluster

    if isinstance(client.cluster, LocalCluster):
        return
    packages = [*_PACKAGES, *(["torch"] if any(stage.task.gpu for stage in job.stages) else [])]
    found = _ask(client, ([PickledStage.of(stage).data for stage in job.stages], _folders(job), packages))
    own = _versions(packages)
    wrong = {process: problems for process, problems in _wrong(found, own).items() if problems}
    if found and len(wrong) == len(found):
        process, problems = next(iter(wrong.items()))
        reason = f"{process}: {'; '.join(problems)}"
        raise PlanError(
            f"no worker of {client.scheduler.address} sees what this process sees; on {reason}. "
            "Paths must lie on a disk that all of them share, buckets need credentials there, too, and packages must "
            "be the same"
        )
    for process, problems in wrong.items():
        _log.warning("the worker %s would be sent away: %s", process, "; ".join(problems))
    for seen in found:
        if isinstance(seen, Seen) and seen.scratch[1] < _LITTLE_SPACE:
            place, free = seen.scratch
            _log.warning("the worker %s has only %s free in its folder %s", seen.process, format_bytes(free), place)
    others = {seen.process: _differing(seen.versions, own) for seen in found if isinstance(seen, Seen)}
    for process, told in others.items():
        if told and process not in wrong:
            _log.warning("the worker %s has other packages: %s", process, told)


def _ask(client: Client, question: tuple[Any, ...]) -> list[Seen | BaseException]:
    """Return the answers of a worker on each of a few machines, as far as they come in time."""
    from distributed import wait

    hosts = {worker["host"]: address for address, worker in client.scheduler_info(n_workers=-1)["workers"].items()}
    futures = [
        client.submit(look, *question, workers=[address], pure=False, priority=1)
        for address in list(hosts.values())[:_MOST]
    ]
    if not futures:
        return []
    try:
        wait(futures, timeout=_PATIENCE)
    except TimeoutError:
        _log.warning("workers did not say within %g s what they see: they are busy", _PATIENCE)
    done = [future for future in futures if future.done() and not future.cancelled()]
    return [future.exception() or future.result() for future in done]


def _wrong(found: Sequence[Seen | BaseException], own: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what keeps each worker from running the job."""
    wrong = {}
    for number, seen in enumerate(found):
        if isinstance(seen, BaseException):
            wrong[f"worker {number}"] = [f"{type(seen).__name__}: {seen}"]
            continue
        must = {name: own[name] for name in ("python", "daskflow")}
        differing = _differing(seen.versions, must)
        wrong[seen.process] = [*seen.unseen, *([differing] if differing else [])]
    return wrong


def _differing(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Return in words what has another version there."""
    pairs = ((name, there.get(name, "none"), version) for name, version in here.items())
    return ", ".join(f"{name} is {other}, and here {version}" for name, other, version in pairs if other != version)


def _versions(packages: Sequence[str]) -> dict[str, str]:
    import importlib.metadata

    versions = {"python": ".".join(platform.python_version_tuple()[:2]), "daskflow": daskflow.__version__}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "none"
    return versions


def _folders(job: Job) -> list[str]:
    """Return the folders on disks in which the job writes, as far as they are there already."""
    urls = [*(one.url for one in job.outputs), *([] if job.directory is None else [job.directory])]
    folders = (folder for url in urls if (folder := folder_of(url)) is not None)
    return list(dict.fromkeys(map(str, folders)))
