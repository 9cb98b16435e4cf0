"""Room on the disk that a job writes to."""

from types import SimpleNamespace

import numpy as np
import pytest

import daskflow
from daskflow.clusters import Threads
from daskflow.errors import PlanError
from daskflow.jobs import Job, space
from daskflow.volume import Volume


@pytest.fixture
def job(tmp_path):
    volume = Volume.from_array(np.ones((16, 64, 64), np.uint8), voxel_size=(1, 1, 1)).with_block((16, 32, 64))
    return daskflow.save(volume, tmp_path / "out", chunk=(16, 32, 32))


def free(monkeypatch, size):
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: SimpleNamespace(free=size))


def run(job):
    with Threads(1) as pool:
        return job.run(pool, progress=False)


def test_disk_that_may_be_too_small_is_told_with_what_is_free_and_left(job, tmp_path, monkeypatch, caplog):
    free(monkeypatch, 50_000)
    job.check()
    told = f"the disk of {tmp_path} has 50 kB free, and save-out has 65.5 kB of voxels left to write: if it fills up"
    assert told in caplog.text
    caplog.clear()
    free(monkeypatch, 65_536)
    assert run(job).ok
    free(monkeypatch, 0)
    run(job)
    job.check()
    assert not caplog.messages


@pytest.mark.parametrize("does", [Job.check, run])
def test_full_disk_is_refused_before_anything_is_stored(job, tmp_path, monkeypatch, does):
    free(monkeypatch, 6)
    with pytest.raises(PlanError, match=r"has 6 B free, .* left to write, which cannot be enough"):
        does(job)
    assert not (tmp_path / "out").exists()
