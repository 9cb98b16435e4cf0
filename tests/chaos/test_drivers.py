"""Drivers that die or are interrupted, and what the next one makes of it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from blockfiles import WriteFiles, grid, job
from processes import kill, start, until

from daskflow.clusters import Threads
from daskflow.errors import JobError, LockedJobError
from daskflow.jobs import status
from daskflow.jobs.ledger import DONE, Ledger

BLOCKS = 60


@pytest.mark.slow
def test_driver_killed_at_ten_random_points_leaves_nothing_wrong(tmp_path):
    dice = random.Random(7)
    files, task = job(tmp_path, blocks=BLOCKS)
    boxes = [str(box) for box in grid(BLOCKS)]
    recorded = {}
    for _ in range(10):
        finished = len(task.outputs())
        driver = start(tmp_path)
        until(lambda driver=driver, done=finished: len(task.outputs()) > done or driver.poll() is not None)
        time.sleep(dice.uniform(0, 0.12))
        kill(driver)
        ledger = Ledger.load(files.home.ledger("files"), grid(BLOCKS))
        for index, box in enumerate(boxes):
            if box in recorded:
                assert task.calls("read", box) == recorded[box]
            if ledger.state(index) == DONE:
                recorded[box] = task.calls("read", box)
        assert set(recorded) <= set(task.outputs())
    assert 0 < len(recorded) < BLOCKS
    with Threads(2) as pool:
        report = files.run(pool, progress=False)
    assert report.ok
    assert report.stages[0].skipped == len(recorded)
    assert task.outputs() == {box: f"1 {box}".encode() for box in boxes}
    assert all(task.calls("read", box) == calls for box, calls in recorded.items())


def test_second_driver_is_refused_until_the_first_is_killed(tmp_path):
    files, task = job(tmp_path, blocks=BLOCKS)
    driver = start(tmp_path, "--seconds", "0.2")
    until(lambda: len(task.outputs()) > 2)
    with Threads(2) as pool:
        with pytest.raises(LockedJobError, match=f"process {driver.pid}"):
            files.run(pool, progress=False)
        assert status(files.directory).state == "running"
        kill(driver)
        assert status(files.directory).state == "unfinished"
        assert files.run(pool, progress=False).ok


@pytest.mark.parametrize(("cluster", "number"), [("local", signal.SIGINT), ("threads", signal.SIGTERM)])
def test_first_interrupt_finishes_what_runs_and_says_how_to_go_on(tmp_path, cluster, number):
    _, task = job(tmp_path)
    driver = start(tmp_path, "--cluster", cluster, "--seconds", "0.1")
    until(lambda: len(task.outputs()) > 3)
    if number == signal.SIGINT:
        os.killpg(driver.pid, number)  # the terminal sends it to all, workers included
    else:
        driver.send_signal(number)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, err
    assert "run the same again" in out
    files, _ = job(tmp_path, blocks=BLOCKS)
    done = status(files.directory)
    assert done.state == "unfinished"
    assert done.stages[0].done == len(task.outputs()) < BLOCKS
    assert task.calls() <= done.stages[0].done + 1  # a block may have been read ahead
    with Threads(2) as pool:
        report = files.run(pool, progress=False)
    assert report.ok
    assert report.stages[0].skipped == done.stages[0].done


def test_second_interrupt_stops_at_once(tmp_path):
    _, task = job(tmp_path)
    driver = start(tmp_path, "--seconds", "60")
    until(lambda: task.folder.exists() and task.calls() > 0)
    driver.send_signal(signal.SIGINT)
    assert any("interrupt again to stop at once" in line for line in driver.stderr)
    assert driver.poll() is None
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=55)  # a block takes 60 seconds
    assert driver.returncode == 130, err
    assert "run the same again" in out
    assert not task.outputs()
    assert status(str(tmp_path / "out")).state == "unfinished"


def test_lost_scheduler_ends_the_run_and_the_next_goes_on(tmp_path):
    from distributed import Client

    cluster = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "scheduler.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    files, task = job(tmp_path, blocks=BLOCKS, seconds=0.05)

    class Killer:
        def update(self, snapshot):
            if snapshot.done > 3:
                cluster.kill()

        def say(self, line):
            pass

        def close(self):
            pass

    client = Client(cluster.stdout.readline().strip(), timeout=60)
    try:
        with pytest.raises(JobError, match=r"(?s)lost the Dask scheduler.*run the same again"):
            files.run(client, progress=Killer())
    finally:
        client.close(timeout=1)
        os.killpg(cluster.pid, signal.SIGKILL)
        cluster.communicate(timeout=30)
    done = status(files.directory)
    assert done.state == "unfinished"
    assert done.stages[0].done > 3
    healthy = WriteFiles(task.folder)
    with Threads(2) as pool:
        report = job(tmp_path, blocks=BLOCKS)[0].run(pool, progress=False)
    assert report.ok
    assert report.stages[0].skipped == done.stages[0].done
    assert len(healthy.outputs()) == BLOCKS


def test_block_that_kills_the_driver_is_found_by_the_next_run_and_the_others_are_done(tmp_path):
    files, task = job(tmp_path, blocks=12)
    boxes = [str(box) for box in grid(12)]
    words = ("--cluster", "auto", "--blocks", "12", "--poison", boxes[3])
    first = start(tmp_path, *words)
    first.communicate(timeout=120)
    assert first.returncode == -signal.SIGSEGV
    second = start(tmp_path, *words)
    _, told = second.communicate(timeout=200)
    assert second.returncode == 2, told
    assert "worker processes run them now" in told
    (failure,) = files.home.load_failures()
    assert (failure.box, failure.exception) == (boxes[3], "KilledWorker")
    assert task.outputs().keys() == set(boxes) - {boxes[3]}
    assert files.run(Threads(1), progress=False, retry_failed=True).ok
    assert not files.home.died_in_process
