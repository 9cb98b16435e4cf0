"""Stages that do not depend on each other run at the same time, the others one after another."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from blockfiles import WriteFiles, grid

from daskflow.jobs import Job, status
from daskflow.volume.stage import Stage

BOXES = [str(box) for box in grid(8)]


@dataclass(frozen=True)
class Meet(WriteFiles):
    """Writes the file of its last block once another stage has written one."""

    other: Path = Path()

    def compute(self, box, inputs):
        end = time.monotonic() + 20
        while str(box) == BOXES[-1] and not list(self.other.glob("*.out")):
            if time.monotonic() > end:
                raise TimeoutError("nothing of the other stage was run meanwhile")
            time.sleep(0.01)
        return super().compute(box, inputs)


@dataclass(frozen=True)
class Follow(WriteFiles):
    """Writes files once another stage has written all that it is to write."""

    other: Path = Path()

    def read(self, box):
        assert len(list(self.other.glob("*.out"))) == len(BOXES)
        return super().read(box)


@pytest.fixture(params=["threads", "distributed"])
def cluster(request):
    return request.getfixturevalue({"threads": "threads", "distributed": "client"}[request.param])


def forked(folder, **meet):
    """Return a job of a stage, two that come after it, and one that comes after the first of the two."""
    first = Stage("first", grid(1), WriteFiles(folder / "first"))
    left = Stage("left", grid(8), Meet(folder / "left", other=folder / "right", **meet), after=(first,))
    below = Stage("below", grid(8), Follow(folder / "below", other=folder / "left"), after=(left,))
    right = Stage("right", grid(8), WriteFiles(folder / "right"), after=(first,))
    return Job((first, left, below, right), str(folder / "job.daskflow"), name="forked")


def test_a_stage_runs_beside_the_last_block_of_one_that_it_need_not_wait_for(tmp_path, cluster):
    seen = []
    report = forked(tmp_path).run(cluster, progress=Shown(seen))
    assert report.ok, report
    assert {"left", "right"} <= set(seen)
    assert seen.index("below") > max(seen.index("left"), seen.index("right"))
    assert report.seconds < sum(stage.seconds for stage in report.stages)


def test_what_does_not_come_after_a_failed_stage_is_finished_and_the_rest_named(tmp_path, cluster):
    report = forked(tmp_path, raises={BOXES[2]: 1}).run(cluster, progress=False, retries=0)
    assert report.state == "failed"
    assert {stage.name: stage.done for stage in report.stages} == {"first": 1, "left": 7, "below": 0, "right": 8}
    assert "not run, because what it comes after failed: below" in str(report)
    assert [stage.pending for stage in status(report.directory).stages] == [0, 0, 8, 0]
    again = forked(tmp_path).run(cluster, progress=False, retry_failed=True)
    assert again.ok
    assert {stage.name: stage.skipped for stage in again.stages} == {"first": 1, "left": 7, "below": 0, "right": 8}


def test_a_stage_waits_for_all_before_it_when_one_of_them_runs_again(tmp_path, threads):
    job = forked(tmp_path)
    assert job.run(threads, progress=False).ok
    (tmp_path / "left" / f"{BOXES[3]}.out").write_text("damaged")
    assert not job.verify(threads, progress=False).ok
    calls = len(list((tmp_path / "right" / "calls").iterdir()))
    assert job.run(threads, progress=False).ok
    assert len(list((tmp_path / "right" / "calls").iterdir())) == calls


class Shown:
    """Keeps the names of the stages in the order in which they were shown first."""

    def __init__(self, seen):
        self.seen = seen

    def update(self, snapshot):
        if snapshot.stage not in self.seen:
            self.seen.append(snapshot.stage)

    def say(self, line):
        pass

    def close(self):
        pass
