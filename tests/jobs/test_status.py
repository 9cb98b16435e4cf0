import dataclasses
import json
import shutil

import pytest
from blockfiles import grid, job

from daskflow.errors import JobError, StoreNotFoundError
from daskflow.jobs import status
from daskflow.jobs.lock import Lease
from daskflow.jobs.status import find_all, own_command

BOXES = [str(box) for box in grid(8)]


def test_finished_job(tmp_path, threads):
    files, _ = job(tmp_path)
    files = dataclasses.replace(files, finish=(lambda report, _: report.results.update(score=0.5),))
    files.run(threads, progress=False)
    now = status(files.directory)
    assert now.state == "finished"
    assert now.stages[0].done == 8
    text = str(now)
    assert "100.0%" in text
    assert "8 missing chunks" in text
    assert "score: 0.5" in text
    assert "nothing is left to do" in text


def test_failed_job_groups_causes_and_says_what_to_type(tmp_path, threads):
    files, _ = job(tmp_path, raises=dict.fromkeys(BOXES[1:4], -1))
    files.run(threads, progress=False, retries=0)
    now = status(files.directory)
    assert now.state == "failed"
    text = str(now)
    assert "3 blocks of files failed: ValueError: no luck" in text
    assert f"daskflow retry {files.directory}" in text
    assert len(text.splitlines()) < 25
    assert max(map(len, text.splitlines())) < 400


def test_stopped_job_says_how_to_go_on(tmp_path, threads):
    files, _ = job(tmp_path, raises={BOXES[0]: -1})
    files = dataclasses.replace(files, command=("daskflow", "save", "my file.zarr"))
    files.run(threads, progress=False, retries=0)
    ledger = tmp_path / "out.daskflow" / "ledger" / "files" / "c" / "0" / "0" / "0"
    ledger.unlink()
    now = status(files.directory)
    assert now.state == "unfinished"
    assert now.next_step == "to go on: daskflow save 'my file.zarr'"
    assert now.stages[0].pending == 8


def test_running_job_names_its_driver(tmp_path, threads):
    files, _ = job(tmp_path)
    files.run(threads, progress=False)
    with Lease(files.home.lock):
        now = status(files.directory)
    assert now.state == "running"
    assert "being run by" in str(now)


def test_output_finds_the_job_beside_it(tmp_path, threads):
    files, _ = job(tmp_path)
    files.run(threads, progress=False)
    assert status(str(tmp_path / "out")).directory == files.directory


def test_place_without_a_job_is_named(tmp_path):
    with pytest.raises(StoreNotFoundError, match="no job was run in"):
        status(str(tmp_path))


def test_job_found_damaged_is_not_finished(tmp_path, threads):
    files, task = job(tmp_path)
    files.run(threads, progress=False)
    (task.folder / f"{BOXES[4]}.out").unlink()
    files.verify(threads, progress=False)
    assert status(files.directory).state == "unfinished"
    files.run(threads, progress=False)
    assert status(files.directory).state == "finished"


def test_html_says_the_same(tmp_path, threads):
    files, _ = job(tmp_path, raises={BOXES[1]: -1})
    files.run(threads, progress=False, retries=0)
    page = status(files.directory)._repr_html_()
    assert "<table>" in page
    assert "no luck" in page


def test_saved_command_is_that_of_the_command_line(tmp_path, threads):
    files, _ = job(tmp_path)
    dataclasses.replace(files, command=("daskflow", "save")).run(threads, progress=False)
    assert own_command(str(tmp_path / "out")) == ["daskflow", "save"]


def test_job_made_in_python_has_no_command(tmp_path, threads):
    files, _ = job(tmp_path)
    files.run(threads, progress=False)
    with pytest.raises(JobError, match="made in Python"):
        own_command(files.directory)


def test_damaged_description_is_named(tmp_path, threads):
    files, _ = job(tmp_path)
    files.run(threads, progress=False)
    path = tmp_path / "out.daskflow" / "job.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(JobError, match=r"job\.json is damaged"):
        status(files.directory)
    assert json.loads((tmp_path / "out.daskflow" / "report.json").read_text())["state"] == "finished"


def test_jobs_that_made_parts_of_an_output_are_found(tmp_path, threads):
    for part in ("out.mip1-2.daskflow", "out/mesh_mip_0.daskflow"):
        dataclasses.replace(job(tmp_path)[0], directory=str(tmp_path / part)).run(threads, progress=False)
    homes = [f"file://{tmp_path}/out.mip1-2.daskflow", f"file://{tmp_path}/out/mesh_mip_0.daskflow"]
    assert [home.url for home in find_all(str(tmp_path / "out"))] == homes
    with pytest.raises(JobError, match=r"several jobs[\s\S]*out\.mip1-2\.daskflow"):
        status(str(tmp_path / "out"))
    shutil.rmtree(tmp_path / "out.mip1-2.daskflow")
    assert status(str(tmp_path / "out")).directory == homes[1]
