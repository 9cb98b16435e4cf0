"""Disks that are full: of the output, of the job's records, and where Dask keeps its own files."""

import contextlib
import os
import subprocess
import sys
import threading

import dask
import numpy as np
import pytest
from blockfiles import grid, job
from processes import stored, until

import daskflow
from daskflow.clusters import Threads, connect
from daskflow.errors import JobError
from daskflow.jobs import Job, status
from daskflow.volume.stage import Stage


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root on Linux")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk, left=0):
    """Fill a disk up to some bytes."""
    room = os.statvfs(disk)
    with contextlib.suppress(OSError):  # others write meanwhile
        (disk / "ballast").write_bytes(bytes(room.f_bavail * room.f_frsize - left))


@pytest.fixture
def threads():
    """Two threads of this process."""
    with Threads(2) as pool:
        yield pool


IMAGE = np.random.default_rng(0).integers(0, 255, (64, 128, 128)).astype(np.uint8)


def save(folder):
    smooth = daskflow.gaussian_filter(daskflow.open(IMAGE), sigma=1)
    return daskflow.save(smooth, folder / "smooth", encoding="raw", chunk=(16, 32, 32), block=(16, 32, 32))


def test_output_that_does_not_fit_stops_the_job_and_is_completed_once_there_is_room(disk, tmp_path, threads):
    assert save(tmp_path / "clean").run(threads, progress=False).ok
    fill(disk, left=400_000)
    saving = save(disk)
    with pytest.raises(JobError, match="No space left on device"):
        saving.run(threads, progress=False)
    (stage,) = status(saving.directory).stages
    assert (stage.failed, stage.done < stage.blocks) == (0, True)
    (disk / "ballast").unlink()
    assert save(disk).run(threads, progress=False).ok
    assert stored(disk) == stored(tmp_path / "clean")
    assert not [path for path in (disk / "smooth").rglob("*") if path.name.endswith((".partial", ".__lock"))]


def test_full_disk_of_the_records_stops_the_job_and_they_stay_readable(disk, tmp_path, threads, monkeypatch):
    monkeypatch.setattr("daskflow.jobs.ledger._EVERY", 0.01)
    _, task = job(tmp_path, blocks=200, seconds=0.01)
    files = Job((Stage("files", grid(200), task),), str(disk / "out.daskflow"), name="files")
    fills = threading.Thread(target=lambda: (until(task.outputs), fill(disk)))
    task.check()
    fills.start()
    with pytest.raises(JobError, match=r"cannot save the ledger: .*No space left on device"):
        files.run(threads, progress=False)
    fills.join()
    (stage,) = status(files.directory).stages
    assert (stage.failed, stage.done <= len(task.outputs()) < 200) == (0, True)
    (disk / "ballast").unlink()
    report = files.run(threads, progress=False)
    assert report.ok
    assert len(task.outputs()) == 200
    assert task.calls("read") <= 200 + 200 - report.stages[0].skipped


@pytest.mark.slow
def test_full_disk_of_the_scheduler_and_the_workers_does_not_matter(disk, tmp_path):
    files, task = job(tmp_path, blocks=12)
    fill(disk)
    with dask.config.set({"temporary-directory": str(disk)}), connect("local", workers=2, threads=1) as client:
        assert files.run(client, progress=False, retries=0).ok
    assert task.outputs() == {str(box): f"1 {box}".encode() for box in grid(12)}
