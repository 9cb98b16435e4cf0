"""Workers that die: by chance, by their block, or by their block's fault but not that block's neighbours'."""

import dataclasses
import math
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from blockfiles import WriteFiles, grid, job
from distributed import Client

import daskflow
from daskflow.clusters import connect
from daskflow.errors import JobError
from daskflow.jobs import Job
from daskflow.jobs.batch import Batch, run_batch
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.executor import executor_of
from daskflow.jobs.ledger import DONE
from daskflow.volume.stage import Stage

BOXES = [str(box) for box in grid(12)]


def expected(boxes=BOXES):
    return {box: f"1 {box}".encode() for box in boxes}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_worker_that_dies_costs_nothing_but_time(client, tmp_path, number):
    files, task = job(tmp_path, blocks=12, kills={BOXES[6]: 1}, signal=number, seconds=0.02)
    report = files.run(client, progress=False, retries=0)
    assert report.ok
    assert task.outputs() == expected()
    assert task.calls("killed") == 1
    assert report.stages[0].lost_workers >= 1
    assert report.counts == {"missing_chunks": 12}


def test_block_that_is_recorded_is_not_run_again_when_its_worker_dies(client, tmp_path):
    task = WriteFiles(tmp_path / "out", seconds=0.5)
    task.check()
    executor = executor_of(client)
    submit = executor.open(Stage("files", grid(12), task), overlap=False, verb="run")
    submit([Batch([block]) for block in range(12)])
    settled = []
    while len(settled) < 6:
        settled += executor.collect(1.0)
    end = time.monotonic() + 10  # the scheduler is told what the driver has let go of
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) > 6 and time.monotonic() < end:
        time.sleep(0.05)
    for pid in client.run(os.getpid).values():
        os.kill(pid, signal.SIGKILL)
    while len(settled) < 12:
        settled += executor.collect(1.0)
    executor.close()
    recorded = [str(grid(12)[one.batch.blocks[0]]) for one in settled[:6]]
    assert [task.calls("read", box) for box in recorded] == [1] * 6
    assert task.outputs() == expected()


@pytest.fixture
def allowed_failures(request, client):
    """A scheduler that blames a task after so many deaths of its workers, as clusters of others may."""

    def allow(dask_scheduler, count):
        before, dask_scheduler.allowed_failures = dask_scheduler.allowed_failures, count
        return before

    before = client.run_on_scheduler(allow, count=request.param)
    yield request.param
    client.run_on_scheduler(allow, count=before)


@pytest.mark.parametrize("allowed_failures", [0, 1], indirect=True)
def test_block_that_kills_its_worker_is_blamed_and_its_neighbours_are_not(client, tmp_path, allowed_failures):
    poison = BOXES[3]
    files, task = job(tmp_path, blocks=12, kills={poison: -1}, signal=signal.SIGSEGV, seconds=0.02)
    report = files.run(client, progress=False, retries=1)
    (failure,) = report.failures
    assert (failure.box, failure.exception) == (poison, "KilledWorker")
    assert "estimated to need 1 kB" in failure.message
    assert task.outputs() == expected([box for box in BOXES if box != poison])
    shared, alone = allowed_failures + 1, 2
    assert task.calls("killed") == shared + alone
    assert "daskflow retry" in str(report)


@pytest.mark.parametrize("allowed_failures", [0], indirect=True)
def test_operator_that_kills_every_worker_stops_at_the_rehearsal(client, tmp_path, allowed_failures):
    files, _ = job(tmp_path, blocks=2, kills={str(box): -1 for box in grid(2)}, signal=signal.SIGSEGV)
    with pytest.raises(JobError, match=r"first two blocks.*KilledWorker"):
        files.run(client, progress=False)


@dataclasses.dataclass(frozen=True)
class Glutton(WriteFiles):
    def compute(self, box, inputs):
        if str(box) == BOXES[1]:
            hoard = np.ones(100_000_000)
            for _ in range(6000):  # until its worker is killed
                time.sleep(0.01)
            del hoard
        return super().compute(box, inputs)

    def estimate(self, box):
        return dataclasses.replace(super().estimate(box), memory=self.memory * box.size // 64)


@pytest.mark.slow
def test_block_that_outgrows_its_worker_is_told_from_the_others(tmp_path):
    task = Glutton(tmp_path / "out", memory=10**8)
    files = Job((Stage("files", grid(6), task),), str(tmp_path / "out.daskflow"), name="files")
    with connect("local", workers=1, memory="600MB") as client:
        report = files.run(client, progress=False, retries=0)
    (failure,) = report.failures
    assert (failure.box, failure.exception) == (BOXES[1], "KilledWorker")
    told = re.search(
        r"estimated to need 100 MB, its worker used (\d+) MB or more, and may use 600 MB; give workers more memory, "
        r"or use blocks of at most about \((\d), (\d), (\d)\) zyx$",
        failure.message,
    )
    peak, *block = map(int, told.groups())
    assert 570 <= peak < 1500
    assert math.prod(block) / 64 * peak <= 600
    assert report.stages[0].done == 5


def test_blocks_run_twice_at_once_leave_the_same_bytes(tmp_path):
    task = WriteFiles(tmp_path / "out", seconds=0.005)
    task.check()
    stage = Stage("files", grid(12), task)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run_batch(Batch(list(range(12))), stage=stage), range(4)))
    assert all(result.states == bytes([DONE]) * 12 for result in results)
    assert task.outputs() == expected()
    assert not list(task.folder.glob("*.tmp"))


class PanicException(BaseException):
    """Derived as the panics of libraries in Rust are."""


@dataclasses.dataclass(frozen=True)
class Panicking(WriteFiles):
    def compute(self, box, inputs):
        if str(box) == BOXES[1]:
            raise PanicException("no luck")
        return super().compute(box, inputs)


def test_block_that_panics_fails_alone_on_workers(client, tmp_path):
    task = Panicking(tmp_path / "out")
    files = Job((Stage("files", grid(6), task),), str(tmp_path / "out.daskflow"), name="files")
    (failure,) = files.run(client, progress=False, retries=0).failures
    assert (failure.box, failure.exception, failure.message) == (BOXES[1], "PanicException", "no luck")


@pytest.fixture
def reached():
    """A client of a cluster that somebody else has started, of two workers that may or may not see our disks."""
    with (
        connect("local", workers=2, threads=1) as owner,
        Client(owner.scheduler.address, security=owner.security) as client,
    ):
        yield client


def lose_sight():
    """Run on a worker: other files lie where the driver's job is."""
    JobDirectory.read = lambda self, name: None


def test_worker_that_does_not_see_the_job_is_sent_away_before_it_runs_a_block(reached, tmp_path, caplog):
    blind = next(iter(reached.scheduler_info()["workers"]))
    pid = reached.run(os.getpid, workers=[blind])[blind]
    reached.run(lose_sight, workers=[blind])
    files, task = job(tmp_path, blocks=12, seconds=0.05)
    report = files.run(reached, progress=False, retries=0)
    assert report.ok
    assert task.outputs() == expected()
    assert task.calls("read") == 12
    assert f":{pid}: file://" in caplog.text
    assert "is not there, or another of that name" in caplog.text


def test_workers_of_which_none_sees_the_job_end_it(reached, tmp_path):
    reached.run(lose_sight)
    files, task = job(tmp_path, blocks=12)
    with pytest.raises(JobError, match=r"no worker of .* sees what this process sees; .* is not there"):
        files.run(reached, progress=False)
    assert task.calls("read") == 0


def test_worker_that_does_not_see_what_a_stage_reads_is_told(reached, tmp_path):
    source = tmp_path / "source.npy"
    np.save(source, np.zeros((8, 8, 8), np.uint8))
    volume = daskflow.open(source, voxel_size=(1, 1, 1), axes="zyx")
    saving = daskflow.save(volume, tmp_path / "out")
    reached.run(hide, str(source))
    with pytest.raises(JobError, match=r"no worker of .*source\.npy"):
        saving.run(reached, progress=False)


def hide(path):
    """Run on a worker: nothing is at a path."""
    stat = Path.stat

    def elsewhere(self, **options):
        if str(self) == path:
            raise FileNotFoundError(2, "No such file or directory", path)
        return stat(self, **options)

    Path.stat = elsewhere
