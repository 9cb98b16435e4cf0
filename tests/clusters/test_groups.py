"""CPU and GPU workers in one cluster of a real SLURM, whose GPUs there are not."""

import subprocess

import dask
import pytest
from test_slurm import blockfiles, environment  # noqa: F401 (fixtures)

from daskflow.clusters import connect
from daskflow.jobs import Job
from daskflow.volume.stage import Stage, in_order

pytest.importorskip("dask_jobqueue", reason="pip install 'daskflow[slurm]'")
pytestmark = pytest.mark.slurm

GPU = {"workers": "0:2", "resources": {"GPU": 1}, "job_extra_directives": ["--gres=gpu:1"], "memory": "400MB"}


class Watch:
    """Progress that notes which stages run while there are jobs with GPUs, and cancels one of these in the middle."""

    def __init__(self, slurm):
        self.slurm, self.seen, self.gpus, self.cancelled = slurm, set(), set(), None

    def update(self, snapshot):
        jobs = with_gpus(self.slurm)
        self.gpus.update(jobs)
        if jobs:
            self.seen.add(snapshot.stage)
        if snapshot.stage == "network" and snapshot.done > 4 and self.cancelled is None:
            self.cancelled = jobs[0]
            subprocess.run(["scancel", self.cancelled], check=True)

    def say(self, line):
        pass

    def close(self):
        pass


def with_gpus(slurm):
    """Ids of the jobs that asked for GPUs, and were in the queue."""
    lines = [line.split() for line in slurm.say("squeue", "-h", "-o", "%i %b").splitlines()]
    return [job for job, asked in lines if "gpu" in asked]


def test_network_runs_on_the_gpu_group_alone_which_nothing_else_starts(slurm, tmp_path, blockfiles, environment):  # noqa: F811
    reading = blockfiles.WriteFiles(tmp_path / "read", seconds=0.3)
    network = blockfiles.WriteFilesOnGpu(tmp_path / "net", seconds=0.5)
    stages = in_order([Stage("reading", blockfiles.grid(12), reading), Stage("network", blockfiles.grid(20), network)])
    watch = Watch(slurm)
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}),
        connect("slurm", workers="1:2", memory="500MB", environment=environment, groups={"gpu": GPU}) as client,
    ):
        assert client.expected.gpu.memory == 400 * 10**6
        report = Job(stages, str(tmp_path / "job"), name="both").run(client, progress=watch)
    assert report.ok
    assert [stage.done for stage in report.stages] == [12, 20]
    assert watch.seen == {"network"}
    assert watch.gpus
    assert network.calls("within") == sum(network.calls("within", job) for job in watch.gpus)
    assert reading.calls("within") >= 12
    assert watch.cancelled is not None
    assert report.stages[1].lost_workers >= 1
