"""Jobs on a real SLURM of two nodes: the bytes of a local run, whatever befalls its workers, and an empty queue."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import numpy as np
import pytest

from daskflow.clusters import Threads, arrival, connect
from daskflow.errors import JobError

pytest.importorskip("dask_jobqueue", reason="pip install 'daskflow[slurm]'")
pytestmark = pytest.mark.slurm

JOBS = Path(__file__).parents[1] / "jobs"


@pytest.fixture
def blockfiles(monkeypatch):
    monkeypatch.syspath_prepend(str(JOBS))
    import blockfiles

    return blockfiles


@pytest.fixture
def environment():
    """What workers need to import `blockfiles`."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(JOBS), os.environ.get("PYTHONPATH")]))}


def daskflow(*words, **options):
    command = [sys.executable, "-m", "daskflow", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, **options)


def files_below(folder):
    """Bytes by path, provenance aside, which knows the cluster."""
    files = (path for path in folder.rglob("*") if path.is_file() and "provenance" not in path.name)
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_command_line_gives_the_bytes_of_a_local_run_and_leaves_no_job(slurm, tmp_path):
    np.save(tmp_path / "image.npy", np.random.default_rng(0).integers(0, 255, (64, 64, 64), np.uint8))
    line = ("open", "../image.npy", "--voxel-size", "8", "8", "8", "save", "out")
    line += ("--chunk", "32", "32", "32", "--block", "32", "64", "64", "--levels", "1")
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    here = daskflow("--cluster", "threads", *line, cwd=tmp_path / "here")
    assert here.returncode == 0, here.stderr
    there = daskflow("--cluster", "slurm", "--workers", "2", "--memory", "1GB", *line, cwd=tmp_path / "there")
    assert there.returncode == 0, there.stderr
    assert "slurm: 2 workers of 1 thread and 1 GB each, jobs of 01:00:00; their logs go to" in there.stderr
    assert "dashboard: http://127.0.0.1:" in there.stderr
    assert there.stdout.startswith("save-out: finished, 2 of 2 blocks done")
    written = files_below(tmp_path / "there" / "out")
    assert Path("info") in written
    assert written == files_below(tmp_path / "here" / "out")
    assert slurm.jobs() == []


class Canceller:
    """Progress that cancels the first worker's job when some blocks are done."""

    def __init__(self, slurm):
        self.slurm = slurm
        self.cancelled = None

    def update(self, snapshot):
        if snapshot.done > 3 and self.cancelled is None:
            self.cancelled = self.slurm.jobs("RUNNING")[0]
            subprocess.run(["scancel", str(self.cancelled)], check=True)

    def say(self, line):
        pass

    def close(self):
        pass


@pytest.fixture
def at_once():
    """Workers that are gone are replaced without waiting whether their nanny restarts them."""
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}):
        yield


def test_cancelled_worker_is_replaced_and_nothing_is_lost(slurm, at_once, tmp_path, blockfiles, environment):
    files, task = blockfiles.job(tmp_path / "there", blocks=30, seconds=0.5)
    progress = Canceller(slurm)
    with connect("slurm", workers=2, memory="500MB", environment=environment) as client:
        report = files.run(client, progress=progress)
        slurm.until(lambda: len(slurm.jobs()) == 2)
        assert progress.cancelled not in slurm.jobs()
    assert report.ok
    assert (report.stages[0].done, report.stages[0].failed, report.stages[0].lost_workers) == (30, 0, 1)
    local, wanted = blockfiles.job(tmp_path / "here", blocks=30)
    with Threads(2) as pool:
        assert local.run(pool, progress=False).ok
    assert task.outputs() == wanted.outputs()


def test_retired_worker_is_replaced_and_nothing_is_lost(slurm, at_once, tmp_path, blockfiles, environment):
    files, task = blockfiles.job(tmp_path, blocks=32, seconds=0.6)
    options = {"environment": environment, "worker_extra_args": ["--lifetime", "9s"]}
    with connect("slurm", workers=2, memory="500MB", **options) as client:
        report = files.run(client, progress=False)
    assert report.ok
    assert report.stages[0].lost_workers >= 1
    assert len(task.outputs()) == 32
    assert task.calls("raised") == 0


def test_job_that_ends_before_its_worker_comes_is_replaced(slurm, monkeypatch, caplog):
    monkeypatch.setattr(arrival, "_WATCH", 0.5)
    with connect("slurm", workers=1, memory="500MB") as client:
        client.cluster._job_kwargs["python"] = "/bin/no-python"
        client.cluster.adapt(minimum=2, maximum=2)
        slurm.until(lambda: "no-python" in caplog.text)
        client.cluster._job_kwargs.pop("python")
        client.wait_for_workers(2, timeout=100)
    assert "ended before its worker came, and is replaced; the last lines of" in caplog.text


def test_workers_come_and_go_with_the_work_and_no_stranger_is_let_in(slurm):
    with connect("slurm", workers="1:3", memory="500MB", threads=2) as client:
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1")
        with pytest.raises(JobError, match="no Dask scheduler answers"):
            connect(address.replace("tls", "tcp"), timeout=0.5)
        workers = client.scheduler_info(n_workers=-1)["workers"]
        assert {name.rpartition(":")[0] for name in workers} == {"tls://127.0.0.1"}
        assert [worker["nthreads"] for worker in workers.values()] == [2]
        futures = client.map(time.sleep, [2 + at / 100 for at in range(20)])
        slurm.until(lambda: len(slurm.jobs()) == 3)
        client.gather(futures)


def test_job_of_several_workers_is_replaced_when_all_are_gone(slurm, at_once):
    with connect("slurm", workers=2, processes=2, memory="500MB") as client:
        client.wait_for_workers(2, timeout=60)
        (job,) = slurm.jobs()
        subprocess.run(["scancel", str(job)], check=True)
        slurm.until(lambda: slurm.jobs("RUNNING") not in ([], [job]))
        client.wait_for_workers(2, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_process_that_is_ended_leaves_no_job(slurm, tmp_path, number):
    (tmp_path / "driver.py").write_text(
        "import time\nfrom daskflow import connect\n"
        'client = connect("slurm", memory="500MB")\nprint("ready", flush=True)\ntime.sleep(100)\n'
    )
    driver = subprocess.Popen([sys.executable, "driver.py"], stdout=subprocess.PIPE, text=True)
    assert driver.stdout.readline() == "ready\n"
    driver.send_signal(number)
    driver.communicate(timeout=60)
    assert driver.returncode == (-number if number == signal.SIGKILL else 128 + number)
    slurm.until(lambda: not slurm.jobs(), 15)


def test_process_ended_while_its_jobs_are_queued_leaves_none(slurm):
    words = ("--cluster", "slurm", "--cluster-option", "job_extra_directives=[--hold]", "create-chunk", "save", "out")
    driver = subprocess.Popen([sys.executable, "-m", "daskflow", *words], stderr=subprocess.PIPE, text=True)
    assert any("waiting for the first worker of job" in line and "PENDING (" in line for line in driver.stderr)
    assert slurm.jobs("PENDING")
    driver.terminate()
    driver.communicate(timeout=60)
    assert driver.returncode == 128 + signal.SIGTERM


def test_refused_job_is_told_in_the_words_of_slurm(slurm):
    with pytest.raises(JobError, match=r"(?s)slurm refuses the job.*partition.*nowhere.*--show-script slurm"):
        connect("slurm", queue="nowhere")


def test_job_that_ends_before_its_worker_comes_shows_its_log(slurm, monkeypatch):
    monkeypatch.setattr(arrival, "_LOOK", 1.0)
    with pytest.raises(JobError, match=r"(?s)ended before a worker came; the last lines of .*no-python"):
        connect("slurm", python="/bin/no-python")
