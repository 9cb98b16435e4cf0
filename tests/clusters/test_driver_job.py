"""Drivers in jobs of a real SLURM."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from daskflow.clusters.driver_job import DriverJob
from daskflow.errors import JobError

pytestmark = pytest.mark.slurm


def submitted(*command, **options):
    job = DriverJob.of(command, "slurm", **{"walltime": "1h", "memory": "500MB", "queue": None, **options})
    number, log = job.submit()
    return SimpleNamespace(number=number, log=log)


def test_driver_whose_walltime_ends_is_queued_again_until_it_is_done(slurm, tmp_path):
    script = tmp_path / "recipe.py"
    script.write_text(
        "import pathlib, sys, time\n"
        "runs = pathlib.Path('runs')\n"
        "runs.write_text(runs.read_text() + sys.argv[1] if runs.exists() else '')\n"
        "print('run', flush=True)\n"
        "time.sleep(0 if runs.read_text() else 100)\n"
    )
    job = submitted(sys.executable, str(script), "two words")
    slurm.until(lambda: job.log.exists() and "run" in job.log.read_text())
    subprocess.run(["scancel", "--batch", "--signal=USR1", job.number], check=True)  # as SLURM does before the end
    slurm.until(lambda: "queued again" in job.log.read_text())
    slurm.until(lambda: job.log.read_text().count("run\n") == 2)  # once its credential has expired
    slurm.until(lambda: not slurm.jobs())
    assert (tmp_path / "runs").read_text() == "two words"


def test_driver_that_fails_is_not_queued_again(slurm):
    job = submitted(sys.executable, "-c", "import sys; print('once'); sys.exit(2)")
    slurm.until(lambda: not slurm.jobs())
    assert job.log.read_text() == "once\n"


def test_line_is_submitted_with_the_options_before_it(slurm, tmp_path):
    command = [sys.executable, "-m", "daskflow", "--yes", "--retries", "1", "submit", "--memory", "500MB"]
    told = subprocess.run([*command, "create-chunk", "--help"], capture_output=True, text=True, timeout=60, check=True)
    number = told.stdout.split()[1]
    shown = slurm.say("scontrol", "write", "batch_script", number, "-")
    assert "-m daskflow --cluster slurm --retries 1 --yes create-chunk --help &" in shown
    slurm.until(lambda: not slurm.jobs())
    assert "Usage: " in (tmp_path / "daskflow-logs" / f"driver-{number}.out").read_text()


def test_refused_driver_is_told_in_the_words_of_slurm(slurm):
    with pytest.raises(JobError, match=r"slurm refuses the driver's job: .*nowhere"):
        submitted("true", queue="nowhere")


def test_worker_started_by_hand_joins_a_scheduler(tmp_path):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=0, processes=False, protocol="tcp://", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        (tmp_path / "scheduler.json").write_text(f'{{"address": "{cluster.scheduler_address}"}}')
        command = [sys.executable, "-m", "daskflow", "worker", "--workers", "1", "--threads", "2", "--memory", "1GB"]
        command += [str(tmp_path / "scheduler.json"), "--name", "mine", "--local-directory", str(tmp_path)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ) as process:
            client.wait_for_workers(1, timeout=100)
            (worker,) = client.scheduler_info(n_workers=-1)["workers"].values()
            process.terminate()
    assert (worker["name"], worker["nthreads"], worker["memory_limit"]) == ("mine", 2, 10**9)
