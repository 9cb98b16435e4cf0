"""Clusters of dask-jobqueue that replace every job that is lost, and outlive one that is refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

_log = logging.getLogger(__name__)

_AGAIN = 60.0  # seconds after which a job that was refused is submitted again, e.g. when others have left the queue


def replacing(cluster_class: Any) -> Any:
    """Return a class of clusters that forget a job when the last of its workers has gone, so that another is submitted.

    Its parent forgets jobs of one worker only.
    """

    class Replacing(cluster_class):  # type: ignore[misc]
        job_cls = _patient(cluster_class.job_cls)

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._group_specs: dict[str, dict[str, Any]] = {"": self.new_spec}

        def add_group(self, group: str, options: Mapping[str, Any]) -> None:
            """Let there be jobs with other options than the first have, but for how all reach the scheduler."""
            shared = {name: self._job_kwargs[name] for name in ("config_name", "interface", "protocol", "security")}
            spec: dict[str, Any] = {"cls": self.job_cls, "options": {**shared, **options}}
            if options["processes"] > 1:
                spec["group"] = [f"-{number}" for number in range(options["processes"])]
            self._group_specs[group] = spec

        @property
        def jobs(self) -> dict[str, list[str]]:
            """The names of the jobs of each group that should be."""
            return {group: self.jobs_of(group) for group in self._group_specs}

        def jobs_of(self, group: str) -> list[str]:
            """Return the names of the jobs of a group that should be."""
            return [job for job, spec in self.worker_spec.items() if spec is self._group_specs[group]]

        def request(self, group: str, jobs: int) -> None:
            """Want so many jobs of a group, if there are fewer; they are submitted later."""
            for _ in range(jobs - len(self.jobs_of(group))):
                name = next(iter(self.new_worker_spec()))
                self.worker_spec[f"{name}-{group}" if group else name] = self._group_specs[group]
                self._i += 1

        async def submit(self, jobs: Mapping[str, int]) -> None:
            """Submit the first jobs of each group.

            Raises:
                RuntimeError: one is refused, for the reason in the text.
            """
            for group, number in jobs.items():
                self.request(group, number)
            await self._correct_state()
            for job in self.workers.values():
                if job.refusal:
                    raise RuntimeError(job.refusal)

        async def _correct_state_internal(self) -> None:
            before = set(self.workers)
            await super()._correct_state_internal()
            for name in self.workers.keys() - before:
                refusal = self.workers[name].refusal
                if refusal and self.status == Status.running and self._adaptive is not None:
                    _log.warning("%s; trying again in %g s", refusal, _AGAIN)
                    asyncio.get_running_loop().call_later(_AGAIN, self.forget, name)

        async def _close(self) -> None:
            await super()._close()
            for name in ("ca_file", "cert", "key"):
                if (key_file := getattr(self, f"_job_{name}", None)) is not None:
                    key_file.close()

        def _update_worker_status(self, op: str, msg: Any) -> None:
            if op != "remove":
                super()._update_worker_status(op, msg)
                return
            worker = self.scheduler_info["workers"].pop(msg)["name"]
            job = next((job for job in self.workers if worker in self.names_of(job)), None)
            delay = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
            asyncio.get_running_loop().call_later(delay, self._forget_lost, job)

        def names_of(self, job: Any) -> set[str]:
            """Return the names of the workers of a job."""
            return {f"{job}{suffix}" for suffix in self.worker_spec.get(job, {}).get("group", [""])}

        def _forget_lost(self, job: Any) -> None:
            there = {worker["name"] for worker in self.scheduler_info["workers"].values()}
            if there.isdisjoint(self.names_of(job)):
                self.forget(job)

        def awaited_jobs(self) -> dict[Any, str]:
            """Return the ids of the jobs of which no worker is there, by name."""
            there = {worker["name"] for worker in self.scheduler_info["workers"].values()}
            jobs = {name: job.job_id for name, job in self.workers.items() if there.isdisjoint(self.names_of(name))}
            return {name: str(number) for name, number in jobs.items() if number is not None}

        def forget(self, job: Any) -> None:
            """End a job, so that adaptive scaling submits another."""
            if job in self.workers:
                self._futures.add(asyncio.ensure_future(self.workers.pop(job).close()))
                self.worker_spec.pop(job, None)

    Replacing.__name__ = cluster_class.__name__
    return Replacing


def _patient(job_class: Any) -> Any:
    """Return a class of jobs that keep why they were refused: nobody hears what adaptive scaling raises."""

    class Patient(job_class):  # type: ignore[misc]
        refusal: str | None = None

        async def start(self) -> None:
            try:
                await super().start()
            except RuntimeError as error:
                told = str(error).partition("stderr:\n")[2].strip() or str(error)
                self.refusal = f"{self.config_name} refuses the job: {told}"
                await ProcessInterface.start(self)

        async def close(self) -> None:
            await super().close()
            await ProcessInterface.close(self)  # which its parent leaves out

    Patient.__name__ = job_class.__name__
    return Patient
