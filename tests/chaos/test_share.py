"""Several drivers on one job: some die, some are stopped and go on late, and the result is that of one."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from blockfiles import WriteFiles, grid, job
from processes import kill, start, stored, until

from daskflow.clusters import Threads
from daskflow.errors import ChangedJobError, LockedJobError, ParameterError
from daskflow.jobs import Job, keeper, stage_run, status
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.ledger import DONE, PENDING
from daskflow.jobs.lock import Holder
from daskflow.jobs.parts import blocks_of, load_parts, recorded
from daskflow.stores import kvstore
from daskflow.volume.stage import Stage

BLOCKS = 64
BOXES = [str(box) for box in grid(BLOCKS)]
EXPECTED = {box: f"1 {box}".encode() for box in BOXES}


def parts_of(files, blocks=BLOCKS):
    """Return the parts that are stored, and of how many blocks each is."""
    cut = files.home.read("parts.json")
    if cut is None:
        return {}, 1
    size = cut["sizes"]["files"]
    return load_parts(files.home.parts(cut["run"], "files"), size, blocks), size


def held_by(files, driver):
    """Return the pending blocks of the parts that a driver holds."""
    parts, size = parts_of(files)
    mine = [n for n, part in parts.items() if part.holder is not None and part.holder.pid == driver.pid]
    return {
        BOXES[block]
        for n in mine
        for block, state in zip(blocks_of(n, size, BLOCKS), parts[n].unpacked(), strict=True)
        if state == PENDING
    }


def busy(files, drivers):
    """Return whether each driver has recorded a block and holds a part with blocks that are pending."""
    done = recorded(files.home).work.get("files", {}) if files.home.read("job.json") else {}
    pids = {name.rpartition(" ")[2] for name, work in done.items() if work.blocks}
    return {str(driver.pid) for driver in drivers} <= pids and all(held_by(files, driver) for driver in drivers)


def recorded_boxes(files):
    ledger = recorded(files.home).ledgers["files"]
    return {box for index, box in enumerate(BOXES) if ledger.state(index) == DONE}


def test_one_killed_and_one_stopped_and_continued_late_leave_the_result_of_one(tmp_path):
    files, task = job(tmp_path, blocks=BLOCKS)
    words = ("--share", "--cluster", "local", "--blocks", str(BLOCKS), "--seconds", "0.3", "--together", "3")
    killed, stopped, living = drivers = [start(tmp_path, *words) for _ in range(3)]
    try:
        until(lambda: busy(files, drivers), 120)
        os.killpg(stopped.pid, signal.SIGSTOP)
        kill(killed)
        done = recorded_boxes(files)
        assert len(done) < BLOCKS
        calls = {box: task.calls("read", box) for box in done}
        unfinished = held_by(files, killed) | held_by(files, stopped)
        until(lambda: not held_by(files, stopped), 120)
        os.killpg(stopped.pid, signal.SIGCONT)
        told = [driver.communicate(timeout=120)[0] for driver in (stopped, living)]
    finally:
        for driver in drivers:
            if driver.poll() is None:
                kill(driver)
    assert [driver.returncode for driver in drivers] == [-signal.SIGKILL, 0, 0]
    assert task.outputs() == EXPECTED
    assert {box: task.calls("read", box) for box in done} == calls
    assert {box for box in BOXES if task.calls("read", box) > 1} <= unfinished
    report = files.home.load_report()
    assert (report.stages[0].done, report.stages[0].skipped, report.counts) == (BLOCKS, 0, {"missing_chunks": BLOCKS})
    assert sum(report.drivers.values()) == BLOCKS
    assert {name.rpartition(" ")[2] for name in report.drivers} == {str(driver.pid) for driver in drivers}
    assert all("3 drivers took part:" in one for one in told)
    assert told[0].strip() == told[1].strip()
    assert not {path.name for path in Path(tmp_path, "out.daskflow").iterdir()} & {"parts", "parts.json", "lock"}


@pytest.fixture
def quick(monkeypatch):
    """Drivers of this process that save at once and take few blocks at a time."""
    monkeypatch.setattr(keeper, "_SAVE_EVERY", 0.02)
    monkeypatch.setattr(stage_run, "_TASK_SECONDS", 0.01)


def run_together(jobs, **options):
    """Run jobs at the same time, each in its own threads; return what came of each."""
    came = [None] * len(jobs)

    def run(number):
        with Threads(1) as pool:
            try:
                came[number] = jobs[number].run(pool, progress=False, share=True, **options)
            except Exception as error:  # noqa: BLE001
                came[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return came


def test_all_drivers_return_the_report_of_the_whole_job(tmp_path, quick):
    files, task = job(tmp_path, blocks=BLOCKS, seconds=0.02)
    reports = run_together([files, job(tmp_path, blocks=BLOCKS)[0], job(tmp_path, blocks=BLOCKS)[0]])
    assert reports[0] == reports[1] == reports[2] == files.home.load_report()
    assert task.calls() == BLOCKS
    assert task.outputs() == EXPECTED
    assert status(files.directory).state == "finished"
    assert files.run(progress=False).already_done
    assert files.run(progress=False, share=True).already_done


def test_blocks_that_fail_are_reported_by_all_and_retried_by_one(tmp_path, quick):
    bad = {BOXES[5]: 2, BOXES[40]: 2}
    files, task = job(tmp_path, blocks=BLOCKS, seconds=0.02, raises=bad)
    reports = run_together([files, files], retries=0)
    assert reports[0] == reports[1]
    assert (reports[0].state, reports[0].stages[0].failed) == ("failed", 2)
    assert {one.box for one in reports[0].failures} == bad.keys()
    assert status(files.directory).state == "failed"
    with Threads(1) as pool:
        assert files.run(pool, progress=False, retry_failed=True).ok
    assert task.outputs() == EXPECTED


def test_only_drivers_of_the_same_line_that_share_may_join(tmp_path):
    words = ("--blocks", str(BLOCKS), "--seconds", "0.4")
    files, _ = job(tmp_path, blocks=BLOCKS)
    sharing = start(tmp_path, "--share", *words)
    try:
        until(lambda: files.home.read("parts.json") is not None)
        with pytest.raises(LockedJobError, match="others join with --share"):
            files.run(progress=False)
        with pytest.raises(ChangedJobError, match="Other drivers are running it"):
            job(tmp_path, blocks=BLOCKS, value=2)[0].run(progress=False, share=True)
        assert status(files.directory).state == "running"
    finally:
        kill(sharing)
    alone = start(tmp_path, *words)
    try:
        until(lambda: (files.home.read("parts.json"), status(files.directory).state) == (None, "running"))
        with pytest.raises(LockedJobError, match="not shared"):
            files.run(progress=False, share=True)
    finally:
        kill(alone)


@pytest.mark.parametrize("share", [False, True])
def test_job_whose_drivers_all_died_goes_on_with_what_is_recorded(tmp_path, share):
    files, task = job(tmp_path, blocks=BLOCKS)
    drivers = [
        start(tmp_path, "--share", "--blocks", str(BLOCKS), "--seconds", "0.2", "--together", "2") for _ in range(2)
    ]
    until(lambda: busy(files, drivers))
    for driver in drivers:
        kill(driver)
    done = recorded_boxes(files)
    calls = {box: task.calls("read", box) for box in done}
    left = status(files.directory)
    assert (left.state, left.stages[0].done) == ("unfinished", len(done))
    assert left.stages[0].counts == {"missing_chunks": len(done)}
    with Threads(2) as pool:
        report = job(tmp_path, blocks=BLOCKS)[0].run(pool, progress=False, share=share)
    assert report.ok
    assert (report.stages[0].skipped, report.counts) == (len(done), {"missing_chunks": BLOCKS})
    assert {box: task.calls("read", box) for box in done} == calls
    assert task.outputs() == EXPECTED


def test_interrupted_driver_leaves_its_parts_to_the_others(tmp_path):
    files, task = job(tmp_path, blocks=BLOCKS)
    words = ("--share", "--blocks", str(BLOCKS), "--seconds", "0.1", "--together", "2")
    first, second = drivers = [start(tmp_path, *words) for _ in range(2)]
    until(lambda: busy(files, drivers))
    first.send_signal(signal.SIGTERM)
    assert "run the same again" in first.communicate(timeout=60)[0]
    assert first.returncode == 130
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert "2 drivers took part:" in out
    assert task.calls() == BLOCKS
    assert task.outputs() == EXPECTED


@dataclasses.dataclass(frozen=True)
class Robbed(WriteFiles):
    """Writes files; at the third or so, another driver takes all parts, and does nothing."""

    home: str = ""

    def compute(self, box, inputs):
        if self.calls() >= 3 and not self.calls("robbed"):
            cut = JobDirectory(self.home).read("parts.json")
            url = JobDirectory(self.home).parts(cut["run"], "files")
            thief = dataclasses.replace(Holder.here(), host="thief")
            for number, part in load_parts(url, cut["sizes"]["files"], BLOCKS).items():
                kvstore.write_bytes(f"{url}/{number}", dataclasses.replace(part, holder=thief).encoded())
            self.count("robbed", box)
        return super().compute(box, inputs)


def test_driver_leaves_what_another_has_taken_until_that_stands_still(tmp_path, quick, monkeypatch):
    monkeypatch.setitem(keeper.Keeper.__init__.__kwdefaults__, "interval", 0.5)
    home = str(tmp_path / "out.daskflow")
    task = Robbed(tmp_path / "out", seconds=0.05, home=home)
    with Threads(1) as pool:
        report = Job((Stage("files", grid(BLOCKS), task),), home, name="files").run(pool, progress=False, share=True)
    assert report.ok
    assert task.calls("robbed") == 1
    assert report.counts == {"missing_chunks": BLOCKS}
    assert sum(report.drivers.values()) == BLOCKS
    assert task.outputs() == EXPECTED


def test_job_that_keeps_no_directory_cannot_be_shared(tmp_path):
    files, _ = job(tmp_path)
    with pytest.raises(ParameterError, match="keeps no directory"):
        dataclasses.replace(files, directory=None).run(progress=False, share=True)


@pytest.mark.emulator
def test_store_without_conditional_writes_is_named(gcs, tmp_path, caplog):
    files, task = job(tmp_path)
    placed = dataclasses.replace(files, directory=f"{gcs}/shared.daskflow")
    with Threads(1) as pool:
        assert placed.run(pool, progress=False, share=True).ok
    assert f"{gcs}/shared.daskflow does not refuse writes" in caplog.text
    assert task.calls() == 8


LINE = """
open {image} gaussian-filter -s 1 2 2 -o smooth connected-components -i smooth -t 130 -o labels
save -i labels {out}/labels -c 16 16 16 -b 16 16 16 voxel-counts -i labels --output {out}/counts.csv
save-h5 -i smooth -f {out}/smooth.h5
"""


def start_line(line, *options):
    command = [sys.executable, "-m", "daskflow", "--cluster", "threads", "--threads", "1", *options]
    return subprocess.Popen(
        [*command, *line.split()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


@pytest.mark.slow
def test_line_with_tables_and_files_ends_in_the_same_bytes(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 96)).astype(np.uint8)
    np.save(tmp_path / "image.npy", image)
    lines = [LINE.format(image=tmp_path / "image.npy", out=tmp_path / name) for name in ("clean", "shared")]
    whole = start_line(lines[0])
    told = whole.communicate(timeout=120)[0]
    assert whole.returncode == 0, told
    drivers = [start_line(lines[1], "--share") for _ in range(3)]
    until(lambda: (tmp_path / "shared" / "labels.daskflow" / "parts.json").exists(), 120)
    time.sleep(0.5)
    os.killpg(drivers[0].pid, signal.SIGKILL)
    for driver in drivers[1:]:
        told = driver.communicate(timeout=120)[0]
        assert driver.returncode == 0, told
    drivers[0].communicate()
    clean, shared = (stored(tmp_path / name) for name in ("clean", "shared"))
    assert clean == shared
    assert len(clean) > 100
    assert (tmp_path / "clean" / "counts.csv").read_bytes() == (tmp_path / "shared" / "counts.csv").read_bytes()
    assert not list((tmp_path / "shared" / "labels.daskflow").rglob("scratch/*"))


@pytest.mark.emulator
def test_two_drivers_share_a_job_in_a_bucket(s3, tmp_path):
    np.save(tmp_path / "image.npy", np.random.default_rng(0).integers(0, 255, (64, 64, 64)).astype(np.uint8))
    line = "open {image} gaussian-filter -s 1 2 2 save {out} -c 16 16 16 -b 16 16 16"
    places = (f"file://{tmp_path}/clean", f"{s3}/shared")
    whole = start_line(line.format(image=tmp_path / "image.npy", out=places[0]))
    told = whole.communicate(timeout=120)[0]
    assert whole.returncode == 0, told
    drivers = [start_line(line.format(image=tmp_path / "image.npy", out=places[1]), "--share") for _ in range(2)]
    told = [driver.communicate(timeout=120)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], told
    assert all("took part" in one for one in told)
    clean, shared = (
        {name: kvstore.read_bytes(f"{place}/{name}") for name in kvstore.list_names(place) if name != "provenance"}
        for place in places
    )
    assert clean == shared
    assert kvstore.list_names(f"{s3}/shared.daskflow", "parts") == []
