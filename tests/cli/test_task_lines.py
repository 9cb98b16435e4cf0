"""Lines that work on boxes: of a grid, of a file, of a queue that several lines empty while one of them dies."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import daskflow
from daskflow.cli import line_tasks
from daskflow.cli.app import app
from daskflow.geometry import BoundingBox
from daskflow.operators.tasks._sqs import TaskQueue

SHAPE = (32, 64, 64)
FILTER = "load-precomputed -v em gaussian-filter -s 1,2,2"


def line(words, *, code=0):
    result = CliRunner().invoke(app, words.split(), prog_name="daskflow")
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(autouse=True)
def em(tmp_path, monkeypatch):
    """A layer of noise that does not begin at 0."""
    monkeypatch.chdir(tmp_path)
    array = np.random.default_rng(0).integers(1, 255, SHAPE).astype(np.uint8)
    volume = daskflow.open(array, voxel_size=(40, 4, 4), voxel_offset=(16, -32, 0))
    volume.save("em", chunk=(16, 32, 32)).run(progress=False)
    return volume


@pytest.mark.parametrize("chunk", ["16 32 32", "16 64 32", "32 64 64"])
def test_the_boxes_of_tasks_change_nothing(em, chunk):
    line(f"--quiet generate-tasks -v em -c {chunk} {FILTER} save-precomputed -v out -b 16 32 32")
    layer = daskflow.open("out")
    assert layer.box == em.box
    np.testing.assert_array_equal(layer.read(), daskflow.gaussian_filter(em, sigma=(1, 2, 2)).read())


def test_a_job_of_tasks_goes_on_where_it_was_stopped(em):
    words = f"--quiet generate-tasks -v em -c 16 32 32 {FILTER} save-precomputed -v out -b 16 32 32"
    line(words)
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.is_file()}
    line(words)
    assert before == {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.is_file()}


@pytest.mark.parametrize("first", ["generate-tasks -v em -c 16 32 32", "fetch-task-from-file -f boxes.npy"])
def test_tasks_that_differ_by_their_boxes_alone_are_one_job(em, first):
    line("generate-tasks -v em -c 16 32 32 -f boxes.npy")
    assert line(f"{first} {FILTER} save-precomputed -v out -b 16 32 32").endswith("\n8 tasks done\n")
    assert [path.name for path in Path().glob("*out*.daskflow")] == ["out.daskflow"]
    np.testing.assert_array_equal(daskflow.open("out").read(), daskflow.gaussian_filter(em, sigma=(1, 2, 2)).read())


def test_many_tasks_of_their_own_are_few_jobs(monkeypatch):
    monkeypatch.setattr(line_tasks, "_TOGETHER", 1)
    monkeypatch.setattr(line_tasks, "_MOST_JOBS", 3)
    line("--quiet generate-tasks -v em -c 16 32 32 load-precomputed -v em save-precomputed -v out mark-complete -p m_")
    assert len(list(Path().glob("m_*"))) == 8
    assert len(list(Path().glob("out*.daskflow"))) == 3


def test_tasks_of_which_chunks_are_missing_are_done_again(em):
    words = (
        "--quiet generate-tasks -v em -c 16 32 64 skip-task-by-blocks-in-volume -v out load-precomputed -v em"
        " save-precomputed -v out -b 16 32 32"
    )
    line(words)
    chunks = sorted(path for path in Path("out").glob("*/*_*_*") if path.is_file())
    for gone in ((2,), (2,), (0, 5)):
        kept = [path for number, path in enumerate(chunks) if number not in gone]
        for number in gone:
            chunks[number].unlink()
        before = max(path.stat().st_mtime_ns for path in kept)
        line(words)
        np.testing.assert_array_equal(daskflow.open("out").read(), em.read())
        written = [path for path in chunks if path.stat().st_mtime_ns > before]
        assert len(written) == 2 * len(gone)  # chunks of the tasks
    daskflow.open(em.read() + 1, voxel_size=(40, 4, 4), voxel_offset=(16, -32, 0)).save("em", overwrite=True).run(
        progress=False
    )
    chunks[0].unlink()
    assert "already in what would be written" in line(words, code=1)  # it would be of another image


def test_a_layer_for_all_tasks_is_not_made_of_the_file_of_one():
    line("--quiet generate-tasks -v em -c 16 32 32 load-precomputed -v em save-h5 -f in_")
    words = "generate-tasks -v em -c 16 32 32 load-h5 -f in_ save-precomputed -v out -b 16 32 32"
    for options in ("", "--plan "):
        assert "create-info -v" in line(options + words, code=1)
        assert not list(Path().glob("out*"))
    line("create-info -v out -d uint8 -s 40 4 4 -z 32 64 64 -o 16 -32 0 -b 16 32 32")
    line(f"--quiet {words}")
    np.testing.assert_array_equal(daskflow.open("out").read(), daskflow.open("em").read())


def test_each_task_has_a_file_named_by_its_box(em):
    line("--quiet generate-tasks -v em -c 32 64 32 load-precomputed -v em threshold -t 99 save-h5 -f cut.h5")
    names = sorted(path.name for path in Path().glob("*.h5"))
    assert names == ["cut_16-48_-32-32_0-32.h5", "cut_16-48_-32-32_32-64.h5"]
    with h5py.File(names[1]) as file:
        assert file["voxel_offset"][:].tolist() == [16, -32, 32]
        np.testing.assert_array_equal(file["main"][:], em.read()[..., 32:] > 99)


@pytest.mark.parametrize("name", ["o{}.nii.gz", "o{}.nrrd", "o{}.h5:a", "o{}.tif"])
def test_tasks_never_share_a_file(em, name):
    line(f"--quiet generate-tasks -v em -c 32 64 32 load-precomputed -v em save {name.format('')}")
    for at, box in enumerate(("16-48_-32-32_0-32", "16-48_-32-32_32-64")):
        part = daskflow.open(name.format(f"_{box}"))
        np.testing.assert_array_equal(part.read(), em.read()[..., 32 * at : 32 * (at + 1)])


@pytest.mark.usefixtures("em")
def test_the_axes_of_what_is_written_may_be_turned():
    array = np.arange(1, 1 + 8 * 16 * 24, dtype=np.uint16).reshape(8, 16, 24)
    daskflow.open(array, voxel_size=(8, 8, 8)).save("cube").run(progress=False)
    line("--quiet create-bbox -s 0 0 0 -z 24 16 8 load-precomputed -v cube transpose save out")
    np.testing.assert_array_equal(daskflow.open("out").read(), array.T)


def test_files_of_tasks_are_read_and_those_that_are_missing_skipped(em):
    line("--quiet generate-tasks -v em -c 32 64 32 load-precomputed -v em save-h5 -f in_")
    Path("in_16-48_-32-32_0-32.h5").write_bytes(b"")
    words = "generate-tasks -v em -c 32 64 32 load-h5 -f in_ skip-none -p none_ threshold -t 99 save-h5 -f out_"
    assert "2 tasks done, 1 of them skipped" in line(words)
    assert [path.name for path in Path().glob("none_*")] == ["none_16-48_-32-32_0-32"]
    assert [path.name for path in Path().glob("out_*.h5")] == ["out_16-48_-32-32_32-64.h5"]
    np.testing.assert_array_equal(daskflow.open("out_16-48_-32-32_32-64.h5").read(), em.read()[..., 32:] > 99)


def test_files_of_tasks_that_reach_beyond_the_data_are_read_again(em):
    grid = "--quiet generate-tasks -v em -c 24 64 64"
    line(f"{grid} load-precomputed -v em save-h5 -f in_")
    line("create-info -v out -d uint8 -s 40 4 4 -z 32 64 64 -o 16 -32 0 -b 8 64 64")
    line(f"{grid} load-h5 -f in_ save-precomputed -v out")
    np.testing.assert_array_equal(daskflow.open("out").read(), em.read())
    Path("in_40-64_-32-32_0-64.h5").unlink()
    assert "skip-none -i chunk" in line(f"{grid} load-h5 -f in_ save-precomputed -v out", code=1)


def test_one_box_is_written_under_the_name_that_is_given(em):
    line("--quiet create-bbox -s 20 -8 10 -z 4 8 16 load-precomputed -v em save-h5 -f cut.h5")
    np.testing.assert_array_equal(daskflow.open("cut.h5").read(), em.read()[4:8, 24:32, 10:26])


def test_what_was_moved_is_written_where_it_is(em):
    line("--quiet create-bbox -s 0 0 0 -z 40 40 40 load-precomputed -v em translate -s -1 32 0 save-h5 -f cut.h5")
    moved = daskflow.open("cut.h5")
    assert moved.box == BoundingBox((15, 0, 0), (40, 40, 40))
    np.testing.assert_array_equal(moved.read(), em.read()[:25, :40, :40])


def test_what_needs_the_whole_volume_gets_the_region_of_all_tasks(em):
    line(
        "--quiet generate-tasks -s 16 -32 0 -z 32 64 32 -c 16 32 32 load-precomputed -v em threshold -t 250"
        " connected-components save-precomputed -v seg -b 16 32 32"
    )
    whole = daskflow.connected_components(daskflow.threshold(em, threshold=250).crop(daskflow.open("seg").box))
    np.testing.assert_array_equal(daskflow.open("seg").read() > 0, whole.read() > 0)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("load-precomputed -v em generate-tasks -v em -c 16 32 32 save a", "put it first"),
        ("generate-tasks -v em -c 16 32 32 create-bbox -s 0 0 0 -z 1 1 1 save a", "put it first"),
        ("generate-tasks -v em -c 16 32 32 -q a load-precomputed -v em save a", "other lines"),
        ("fetch-task-from-file -f two.txt load-precomputed -v em save a -c 8 32 32", "0-32 and 24-40_0-32_0-32"),
        ("create-bbox -s 0 0 0 -z 9 9 9 load-precomputed -v em save a", "lies outside"),
        ("load-precomputed -v em delete-task-in-queue", "there is no task"),
        (
            "generate-tasks -v em -c 16 32 32 load-precomputed -v em crop-margin -m 1 1 1 save-h5 -f a.h5",
            "--expand-margin-size",
        ),
    ],
)
def test_lines_that_mean_nothing_are_refused(words, complaint):
    Path("two.txt").write_text("16-32_0-32_0-32\n24-40_0-32_0-32\n")
    assert complaint in line(words, code=1)
    assert not Path("a").exists()


@pytest.fixture
def queue(s3):
    """A queue whose tasks come back soon, with all boxes of the layer."""
    client = boto3.client("sqs")
    name = f"tasks-{time.monotonic_ns()}"
    url = client.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "3"})["QueueUrl"]
    line(f"generate-tasks -v em -c 16 32 64 -q {name}")

    def left():
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(map(int, found.values()))

    assert left() == 4
    yield name, left, lambda body: client.send_message(QueueUrl=url, MessageBody=body)
    client.delete_queue(QueueUrl=url)


SLOW = """
import time
from daskflow import Volume, operator

@operator()
def slowly(volume: Volume) -> Volume:
    \"\"\"Take a while.\"\"\"
    return volume.map_blocks(late)

def late(array):
    open("begun", "w").close()
    time.sleep(0.7)
    return array
"""


def test_two_lines_empty_a_queue_while_one_is_killed(em, queue):
    name, left, _ = queue
    Path("slow.py").write_text(SLOW)
    words = (
        f"--quiet --plugin-file slow.py fetch-task-from-sqs -q {name} {FILTER} slowly"
        " save-precomputed -v out -b 16 32 32 delete-task-in-queue"
    ).split()
    command = [sys.executable, "-m", "daskflow", *words]
    first = subprocess.Popen(command)
    try:
        while not Path("begun").exists():
            time.sleep(0.05)
            assert first.poll() is None
        second = subprocess.Popen(command)
        time.sleep(0.3)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert second.wait(120) == 0
    assert left() == 0
    np.testing.assert_array_equal(daskflow.open("out").read(), daskflow.gaussian_filter(em, sigma=(1, 2, 2)).read())


@pytest.mark.usefixtures("s3")
def test_a_line_makes_fills_and_empties_its_queue_and_another_takes_what_is_there(em):
    name = f"blocks-{time.monotonic_ns()}"
    words = f"--queue sqs://{name} open em translate -s 0 0 -32 gaussian-filter -s 1,2,2"
    words = f"{words} save out -c 16 32 32 -b 16 32 64"
    assert "4 tasks" in line(f"--plan {words}")
    assert TaskQueue.find(name) is None
    assert not Path("out").exists()
    line(words)
    queue = TaskQueue.find(name)
    assert queue.left == 0
    right = daskflow.gaussian_filter(em, sigma=(1, 2, 2)).read()
    np.testing.assert_array_equal(daskflow.open("out").read(), right)

    shutil.rmtree("out")
    queue.client.send_message(QueueUrl=queue.url, MessageBody="16-32_-32-0_-32-32")
    line(words)
    assert queue.left == 0
    found = daskflow.open("out", fill_missing=True).read()
    assert np.array_equal(found[:16, :32], right[:16, :32])
    assert not found[16:].any()
    queue.client.delete_queue(QueueUrl=queue.url)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("open em threshold -t 9 connected-components save out", "blocks alone do not do what this line does"),
        ("open em downsample-volume -f 1 2 2 save out", "blocks alone do not do what this line does"),
        ("open em gaussian-filter", "the line writes nothing"),
        ("generate-tasks -v em -c 16 32 32 load-precomputed -v em save-precomputed -v out", "generate-tasks has -q"),
    ],
)
def test_a_line_that_no_queue_of_blocks_does_is_to_be_shared(words, complaint):
    output = line(f"--queue=q {words}", code=1)
    assert complaint in output
    assert ("--share" in output) == ("alone" in complaint)
    assert not Path("out").exists()


def test_a_task_stays_hidden_however_long_it_runs(queue):
    name, left, _ = queue
    windows = daskflow.fetch_task_from_sqs(queue_name=name, visibility_timeout=2).windows(lambda: 2)
    held = [str(task.box) for task in next(windows)]
    assert len(held) == 2
    time.sleep(3)
    others = daskflow.fetch_task_from_sqs(queue_name=name, num=8, retry_times=0).windows(lambda: 8)
    assert {str(task.box) for task in next(others)}.isdisjoint(held)
    others.close()
    windows.close()
    assert left() == 4
    again = daskflow.fetch_task_from_sqs(queue_name=name).windows(lambda: 4)
    assert len(next(again)) == 4  # a line that ends lets others see what it has not done
    again.close()


def test_a_task_that_was_seen_again_is_deleted_by_its_latest_handle(queue):
    name, left, _ = queue
    tasks = daskflow.fetch_task_from_sqs(queue_name=name, visibility_timeout=1)
    window, first = list(tasks._window(4, 0)), set(tasks.held.values())
    time.sleep(1.2)
    assert not list(tasks._window(4, 0))
    assert first.isdisjoint(tasks.held.values())
    for task in window:
        task.message.delete()
    assert left() == 0


def test_a_task_that_fails_stays_in_its_queue_and_the_others_are_done(em, queue):
    name, left, send = queue
    send("16-32_-32-0_1000-1032")
    send("__import__('os').system('touch evil')")
    output = line(
        f"--quiet fetch-task-from-sqs -q {name} -r 0 {FILTER} save-precomputed -v out -b 16 32 32 delete-task-in-queue",
        code=2,
    )
    assert "1 failed: 16-32_-32-0_1000-1032" in output
    assert left() == 2
    assert not Path("evil").exists()
    assert daskflow.open("out").box == em.box


def test_tasks_are_marked_and_skipped_and_their_logs_summed(em):
    words = (
        "--quiet generate-tasks -v em -c 16 64 64 skip-task-by-file -p done_ load-precomputed -v em threshold -t 99"
        " copy-var -t kept skip-none -i kept save-precomputed -i kept -v out -b 16 32 32 --upload-log"
        " mark-complete -p done_"
    )
    line(words)
    assert sorted(path.name for path in Path().glob("done_*")) == [
        "done_16-32_-32-32_0-64",
        "done_32-48_-32-32_0-64",
    ]
    assert sorted(path.name for path in Path("out/log").iterdir()) == [
        "16-32_-32-32_0-64.json",
        "32-48_-32-32_0-64.json",
    ]
    log = json.loads(Path("out/log/16-32_-32-32_0-64.json").read_text())
    assert list(log["timer"]) == ["save-out"]
    assert "2 tasks done, 2 of them skipped" in line(words.removeprefix("--quiet "))
    theirs = {"timer": {"load": 2.0}, "compute_device": "TITAN X"}
    Path("out/log/theirs.json").write_text(json.dumps(json.dumps(theirs)))
    output = line("log-summary -l out/log -s 10 1000 1000 --plot times.svg")
    assert re.search(r"TITAN X\s+load\s+1\s+2.0 s", output)
    assert "TITAN X: 5 million voxels per second and task" in output
    assert Path("times.svg").read_text().count("<rect") == 4
    assert "deleted 2 files" in line("cleanup --dir . --suffix 64 --mode empty --yes")
    assert not list(Path().glob("done_*"))


@pytest.mark.usefixtures("em")
def test_a_queue_without_a_region_of_aws_is_refused_in_a_line(em, monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    assert "AWS_DEFAULT_REGION" in line("generate-tasks -v em -c 16 16 16 -q tasks", code=1)


def test_stages_become_metrics(queue):
    name, left, _ = queue
    line(
        f"--quiet --mip 0 fetch-task -q {name} cutout -v em threshold -t 99 save-precomputed -v out -b 16 32 32"
        " cloud-watch --log-name lab delete-task-in-queue"
    )
    assert left() == 0
    metrics = boto3.client("cloudwatch").list_metrics(Namespace="lab")["Metrics"]
    assert {metric["MetricName"] for metric in metrics} == {"save-out"}


def test_what_is_forgotten_cannot_be_read(em):
    output = line("load-precomputed -v em -o a copy-var -f a -t b delete-var -v a save-h5 -i a -f a.h5", code=1)
    assert "no volume 'a'; there are: b" in output
