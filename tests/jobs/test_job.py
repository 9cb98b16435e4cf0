import dataclasses
import errno
import json
import logging
import shutil

import pytest
from blockfiles import WriteFiles, grid, job
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskflow.clusters import Threads
from daskflow.errors import ChangedJobError, JobError, LockedJobError, ParameterError, PlanError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs import Job, status
from daskflow.jobs.fingerprint import describe_stages
from daskflow.jobs.lock import Lease
from daskflow.jobs.report import Finish
from daskflow.stores import kvstore
from daskflow.volume.stage import Estimate, Stage, Task

BOXES = [str(box) for box in grid(8)]


def expected(value=1, boxes=BOXES):
    return {box: f"{value} {box}".encode() for box in boxes}


def test_job_runs_every_block_once(tmp_path, threads):
    files, task = job(tmp_path)
    report = files.run(threads, progress=False)
    assert report.ok
    assert task.outputs() == expected()
    assert task.calls() == 8
    (stage,) = report.stages
    assert (stage.blocks, stage.done, stage.failed, stage.pending, stage.skipped) == (8, 8, 0, 0, 0)
    assert report.counts == {"missing_chunks": 8}
    assert stage.voxels == grid(8).box.size
    assert stage.bytes_written == grid(8).box.size


def test_empty_blocks_are_told_apart(tmp_path, threads):
    report = job(tmp_path, empty=frozenset(BOXES[:3]))[0].run(threads, progress=False)
    assert (report.stages[0].done, report.stages[0].empty) == (5, 3)
    assert report.ok


def test_finished_job_runs_nothing_again(tmp_path, threads):
    files, task = job(tmp_path)
    first = files.run(threads, progress=False)
    again = files.run(threads, progress=False)
    assert again.already_done
    assert again.ok
    assert "already done" in str(again)
    assert again.counts == first.counts
    assert task.calls() == 8


def test_job_resumes_where_it_stopped(tmp_path, threads):
    files, task = job(tmp_path, raises={BOXES[0]: -1})
    assert files.run(threads, progress=False, fail_fast=True, retries=0).state in ("stopped", "failed")
    done = status(files.directory).stages[0].done
    before = task.calls()
    healed, task = job(tmp_path)
    report = healed.run(threads, progress=False, retry_failed=True)
    assert report.ok
    assert report.stages[0].skipped == done
    assert task.calls() == before + 8 - done
    assert task.outputs() == expected()
    assert report.counts == {"missing_chunks": 8}


def test_failed_block_is_recorded_and_the_others_finish(tmp_path, threads):
    files, task = job(tmp_path, raises={BOXES[2]: -1})
    report = files.run(threads, progress=False)
    assert (report.state, report.ok) == ("failed", False)
    assert task.outputs() == expected(boxes=[box for box in BOXES if box != BOXES[2]])
    assert task.calls("raised", BOXES[2]) == 3
    (failure,) = report.failures
    assert (failure.index, failure.box, failure.exception, failure.attempts) == (2, BOXES[2], "ValueError", 3)
    assert "Traceback" in failure.traceback
    assert report.stages[0].retries == 2
    assert "1 block of files failed: ValueError: no luck" in str(report)
    assert f"daskflow retry {files.directory}" in str(report)


def test_plain_run_leaves_failed_blocks_and_says_so(tmp_path, threads):
    files, task = job(tmp_path, raises={BOXES[2]: -1})
    files.run(threads, progress=False, retries=0)
    before = task.calls()
    again = files.run(threads, progress=False)
    assert task.calls() == before
    assert not again.ok
    assert [failure.index for failure in again.failures] == [2]
    assert "daskflow retry" in str(again)


def test_retry_runs_the_failed_blocks_only(tmp_path, threads):
    files, task = job(tmp_path, raises={BOXES[2]: 1, BOXES[5]: 1})
    files.run(threads, progress=False, retries=0)
    before = task.calls()
    report = files.run(threads, progress=False, retry_failed=True)
    assert report.ok
    assert report.failures == ()
    assert task.calls() == before + 2
    assert task.outputs() == expected()


def test_block_that_raises_once_is_retried(tmp_path, threads):
    files, task = job(tmp_path, raises={BOXES[2]: 1})
    report = files.run(threads, progress=False)
    assert report.ok
    assert report.stages[0].retries == 1
    assert task.outputs() == expected()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(BOXES), st.integers(1, 2), max_size=4),
    st.sets(st.sampled_from(BOXES), max_size=3),
    st.integers(1, 3),
)
def test_any_faults_that_permit_progress_end_in_the_same_bytes(tmp_path_factory, raises, empty, count):
    files, task = job(tmp_path_factory.mktemp("faults"), raises=raises, empty=frozenset(empty))
    with Threads(count) as pool:
        for _ in range(3):
            try:
                report = files.run(pool, progress=False, retries=1, retry_failed=True)
            except JobError:  # both blocks of the rehearsal failed, twice
                continue
            if report.ok:
                break
    assert report.ok
    assert task.outputs() == expected()
    for box in BOXES:
        assert task.calls("read", box) == 1 + raises.get(box, 0)
    assert report.stages[0].empty == len(empty)


def test_operator_that_fails_everywhere_stops_after_the_rehearsal(tmp_path, threads):
    files, task = job(tmp_path, blocks=100, raises=dict.fromkeys([str(box) for box in grid(100)], -1))
    with pytest.raises(JobError, match=r"(?s)first two blocks.*both raised ValueError: no luck.*run the same again"):
        files.run(threads, progress=False)
    assert task.calls() == 4
    assert status(files.directory).stages[0].failed == 0


def test_poison_at_the_corner_does_not_stop_the_job(tmp_path, threads):
    files, _ = job(tmp_path, raises={BOXES[-1]: -1})
    report = files.run(threads, progress=False)
    assert [failure.index for failure in report.failures] == [7]
    assert report.stages[0].done == 7


def test_hopeless_job_is_given_up(tmp_path, threads):
    boxes = [str(box) for box in grid(400)]
    files, task = job(tmp_path, blocks=400, raises=dict.fromkeys(boxes[:-1], -1))
    with pytest.raises(JobError, match="100 blocks of files in a row failed"):
        files.run(threads, progress=False, retries=0)
    assert task.calls() < 300


@dataclasses.dataclass(frozen=True)
class FullDisk(WriteFiles):
    room: int = 4

    def write(self, box, outputs):
        if len(self.outputs()) >= self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(box, outputs)


def test_full_disk_stops_the_job_and_fails_no_block(tmp_path, threads):
    task = FullDisk(tmp_path / "out", seconds=0.01)
    files = Job((Stage("files", grid(40), task),), str(tmp_path / "out.daskflow"), name="files")
    with pytest.raises(JobError, match="the storage refuses"):
        files.run(threads, progress=False)
    assert status(files.directory).stages[0].failed == 0
    roomy = Job((Stage("files", grid(40), dataclasses.replace(task, room=99)),), files.directory, name="files")
    assert roomy.run(threads, progress=False).ok
    assert len(task.outputs()) == 40


def test_changed_parameters_are_refused_by_name(tmp_path, threads):
    job(tmp_path)[0].run(threads, progress=False)
    with pytest.raises(ChangedJobError, match=r"files\.value: 1 -> 2") as error:
        job(tmp_path, value=2)[0].run(threads, progress=False)
    assert "start over with --overwrite" in str(error.value)


def test_a_job_of_which_every_block_failed_gives_way_to_another(tmp_path, threads):
    wrong, _ = job(tmp_path, raises=dict.fromkeys(BOXES, -1))
    with pytest.raises(JobError, match="both raised"):
        wrong.run(threads, progress=False)
    assert job(tmp_path, value=2)[0].run(threads, progress=False).ok


def test_changed_grid_is_refused_by_name(tmp_path, threads):
    job(tmp_path)[0].run(threads, progress=False)
    with pytest.raises(ChangedJobError, match=r"files\.grid\.box"):
        job(tmp_path, blocks=9)[0].run(threads, progress=False)


def test_changed_parameters_pass_where_nothing_was_done(tmp_path, threads):
    files, _ = job(tmp_path, memory=10**18)
    with pytest.raises(PlanError):
        files.run(threads, progress=False)
    failing = Job((Stage("files", grid(8), Refusing(tmp_path / "out")),), files.directory, name="files")
    with pytest.raises(ParameterError, match="refused"):
        failing.run(threads, progress=False)
    assert job(tmp_path, value=2)[0].run(threads, progress=False).ok


@dataclasses.dataclass(frozen=True)
class Refusing(WriteFiles):
    def check(self):
        raise ParameterError("refused while planning")


def test_nothing_runs_when_a_check_of_a_later_stage_refuses(tmp_path, threads):
    first = WriteFiles(tmp_path / "one")
    stages = (Stage("one", grid(4), first), Stage("two", grid(4), Refusing(tmp_path / "two")))
    with pytest.raises(ParameterError, match="refused while planning"):
        Job(stages, str(tmp_path / "job"), name="two").run(threads, progress=False)
    assert first.calls() == 0


def test_start_over_forgets_what_was_done(tmp_path, threads):
    job(tmp_path)[0].run(threads, progress=False)
    files, task = job(tmp_path, value=2)
    assert files.run(threads, progress=False, overwrite=True).ok
    assert task.outputs() == expected(2)
    assert status(files.directory).state == "finished"


def test_job_of_another_driver_is_refused(tmp_path, threads):
    files, task = job(tmp_path)
    with Lease(files.home.lock), pytest.raises(LockedJobError):
        files.run(threads, progress=False)
    assert not task.folder.exists()
    assert files.run(threads, progress=False).ok


def test_memory_that_workers_lack_is_refused_before_anything_runs(tmp_path):
    files, task = job(tmp_path, memory=10**6)
    with Threads(2, memory=10**5) as pool, pytest.raises(PlanError, match="needs 2 MB per worker"):
        files.run(pool, progress=False)
    assert not task.folder.exists()


def test_empty_grid_has_nothing_to_do(tmp_path, threads):
    nothing = BlockGrid(BoundingBox((0, 0, 0), (0, 4, 4)), (4, 4, 4))
    empty = Job((Stage("files", nothing, WriteFiles(tmp_path / "out")),), str(tmp_path / "job"), name="none")
    report = empty.run(threads, progress=False)
    assert report.ok
    assert report.stages[0].blocks == 0


def two_stages(folder, raises=(), intact=True):
    """The second stage reads in scratch what the first wrote there."""

    @dataclasses.dataclass(frozen=True)
    class First(WriteFiles):
        def write(self, box, outputs):
            kvstore.write_bytes(kvstore.join(self.scratch, str(box)), outputs)
            return super().write(box, outputs)

    @dataclasses.dataclass(frozen=True)
    class Second(WriteFiles):
        def compute(self, box, inputs):
            super().compute(box, inputs)
            return kvstore.read_bytes(kvstore.join(self.scratch, str(box))) + b"!"

        def intact(self):
            return intact

    first = First(folder / "first", raises=dict.fromkeys(raises, -1))
    second = Second(folder / "second")
    return (
        Job((Stage("first", grid(8), first), Stage("second", grid(8), second)), str(folder / "job"), name="two"),
        first,
        second,
    )


def test_stages_run_in_order_and_scratch_is_deleted_at_the_end(tmp_path, threads):
    both, _, second = two_stages(tmp_path)
    assert both.run(threads, progress=False).ok
    assert second.outputs() == {box: f"1 {box}!".encode() for box in BOXES}
    assert not (tmp_path / "job" / "scratch").exists()


def test_stage_waits_for_every_block_of_the_one_before(tmp_path, threads):
    both, first, second = two_stages(tmp_path, raises=[BOXES[1]])
    report = both.run(threads, progress=False, retries=0)
    assert report.state == "failed"
    assert second.calls() == 0
    assert (tmp_path / "job" / "scratch").exists()
    healed, first, second = two_stages(tmp_path)
    assert healed.run(threads, progress=False, retry_failed=True).ok
    assert first.calls() == 9
    assert len(second.outputs()) == 8


def test_output_that_vanished_is_made_again_with_what_it_was_made_from(tmp_path, threads):
    two_stages(tmp_path)[0].run(threads, progress=False)
    again, first, second = two_stages(tmp_path, intact=False)
    for path in second.folder.glob("*.out"):
        path.unlink()
    report = again.run(threads, progress=False)
    assert report.ok
    assert first.calls() == 16
    assert len(second.outputs()) == 8
    assert report.counts == {"missing_chunks": 16}


def test_output_that_vanished_is_not_taken_for_done_after_a_run_that_was_refused(tmp_path, threads):
    @dataclasses.dataclass(frozen=True)
    class Vanishing(WriteFiles):
        def intact(self):
            return self.folder.exists()

    def files(**options):
        stage = Stage("files", grid(8), Vanishing(tmp_path / "out", **options))
        return Job((stage,), str(tmp_path / "job"), name="files")

    files().run(threads, progress=False)
    shutil.rmtree(tmp_path / "out")
    later = Stage("later", grid(8), Refusing(tmp_path / "out"))
    refused = dataclasses.replace(files(), given=(*files().stages, later))
    refused.home.claim("files", describe_stages(refused.stages), None)
    with pytest.raises(ParameterError, match="refused while planning"):
        refused.run(threads, progress=False)
    assert (tmp_path / "out").exists()
    files().home.claim("files", describe_stages(files().stages), None)
    report = files().run(threads, progress=False)
    assert not report.already_done
    assert files().stages[0].task.outputs() == expected()


def test_finish_that_reads_scratch_finds_it_whenever_a_stage_runs_again(tmp_path, threads):
    class Count(Finish):
        reads_scratch = True

        def __call__(self, report, directory):
            report.results["found"] = len(kvstore.list_names(kvstore.join(directory, "scratch")))

    scratched = two_stages(tmp_path)[0].stages[0]
    stages = (Stage("output", grid(8), WriteFiles(tmp_path / "second")), scratched)
    both = Job(stages, str(tmp_path / "job"), name="both", finish=(Count(),))
    assert both.run(threads, progress=False).results == {"found": 8}
    (tmp_path / "second" / f"{BOXES[2]}.out").unlink()
    assert not both.verify(threads, progress=False).ok
    report = both.run(threads, progress=False)
    assert report.results == {"found": 8}
    assert not (tmp_path / "job" / "scratch").exists()


def test_scratch_that_a_killed_driver_left_is_deleted_by_the_next(tmp_path, threads):
    files, _ = job(tmp_path)
    files.run(threads, progress=False)
    kvstore.write_bytes(kvstore.join(files.home.scratch, "left"), b"over")
    assert files.run(threads, progress=False).already_done
    assert kvstore.list_names(files.home.scratch) == []


def test_start_over_that_was_cut_short_leaves_nothing_for_done(tmp_path, threads, monkeypatch):
    job(tmp_path)[0].run(threads, progress=False)
    other, task = job(tmp_path, value=2)
    with monkeypatch.context() as patch:
        patch.setattr("daskflow.jobs.ledger.Journal.__init__", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            other.run(threads, progress=False, overwrite=True)
    report = other.run(threads, progress=False)
    assert not report.already_done
    assert report.counts == {"missing_chunks": 8}
    assert task.outputs() == expected(2)


def test_finish_runs_once_and_its_results_are_kept(tmp_path, threads):
    calls = []

    def finish(report, directory):
        calls.append(directory)
        report.results["score"] = 0.5

    files, _ = job(tmp_path, raises={BOXES[3]: 1})
    files = dataclasses.replace(files, finish=(finish,))
    assert files.run(threads, progress=False, retries=0).results == {}
    assert calls == []
    assert files.run(threads, progress=False, retry_failed=True).results == {"score": 0.5}
    assert files.run(threads, progress=False).results == {"score": 0.5}
    assert calls == [files.directory]


def test_finish_that_fails_is_tried_by_the_next_run(tmp_path, threads):
    files, task = job(tmp_path)
    with pytest.raises(ZeroDivisionError):
        dataclasses.replace(files, finish=(lambda report, directory: 1 / 0,)).run(threads, progress=False)
    calls = []
    report = dataclasses.replace(files, finish=(lambda *_: calls.append(1),)).run(threads, progress=False)
    assert report.ok
    assert calls == [1]
    assert task.calls() == 8


def test_verify_sets_damaged_blocks_back_and_the_next_run_repairs_them(tmp_path, threads):
    files, task = job(tmp_path, empty=frozenset(BOXES[:2]))
    files.run(threads, progress=False)
    (task.folder / f"{BOXES[0]}.out").write_bytes(b"damaged")
    (task.folder / f"{BOXES[4]}.out").unlink()
    report = files.verify(threads, progress=False)
    assert not report.ok
    assert sorted(failure.index for failure in report.failures) == [0, 4]
    assert files.run(threads, progress=False).ok
    assert task.outputs() == expected()
    assert task.calls() == 10
    assert files.verify(threads, progress=False).ok


def test_job_without_verify_says_so(tmp_path, threads):
    class Plain(Task):
        def describe(self):
            return {}

    with pytest.raises(JobError, match="can be verified"):
        Job((Stage("plain", grid(2), Plain()),), str(tmp_path), name="plain").verify(threads)


@pytest.mark.parametrize("names", [(), ("a/b",), ("..",)])
def test_names_of_stages_are_safe(names, tmp_path):
    stages = tuple(Stage(name, grid(2), WriteFiles(tmp_path)) for name in names)
    with pytest.raises(ParameterError):
        Job(stages, str(tmp_path), name="odd")


def test_stages_of_the_same_name_are_numbered(tmp_path):
    stages = tuple(Stage(name, grid(2), WriteFiles(tmp_path)) for name in ("a", "b", "a", "a"))
    numbered = Job(stages, str(tmp_path), name="numbered").stages
    assert [stage.name for stage in numbered] == ["a", "b", "a-2", "a-3"]


def test_without_a_client_a_small_job_runs_in_threads(tmp_path):
    files, task = job(tmp_path)
    assert isinstance(files.connect(), Threads)
    assert files.run(progress=False).ok
    assert task.outputs() == expected()


def test_without_a_client_a_job_that_keeps_the_lock_of_python_gets_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("daskflow.jobs.job.connect", lambda where: where)
    monkeypatch.setattr("daskflow.clusters.threads.cores", lambda: 2)
    monkeypatch.setattr(WriteFiles, "estimate", lambda self, box: Estimate(locked_seconds=1.0))
    assert job(tmp_path, blocks=8)[0].connect() == "threads"
    assert job(tmp_path, blocks=12)[0].connect() == "local"


def test_large_job_of_a_script_that_workers_would_run_again_stays_in_threads(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("daskflow.jobs.job.script_is_guarded", lambda: False)
    monkeypatch.setattr(WriteFiles, "estimate", lambda self, box: Estimate(bytes_read=10**10))
    monkeypatch.setattr(logging.getLogger("daskflow.jobs.job"), "disabled", False)  # by another library's set-up
    with caplog.at_level(logging.WARNING):
        assert isinstance(job(tmp_path)[0].connect(), Threads)
    assert "__main__" in caplog.text


def test_plan_runs_nothing(tmp_path):
    files, task = job(tmp_path)
    assert "files" in str(files.plan())
    assert not task.folder.exists()
    assert not (tmp_path / "out.daskflow").exists()


def test_job_directory_holds_no_pickles(tmp_path, threads):
    files, _ = job(tmp_path)
    files = dataclasses.replace(files, command=("daskflow", "save", "https://me:secret@host/x?sig=secret"))
    files.run(threads, progress=False)
    for path in (tmp_path / "out.daskflow").rglob("*"):
        if path.is_file() and path.name != "0":
            assert "secret" not in json.dumps(json.loads(path.read_text()))


def test_ledger_is_saved_while_the_job_runs(tmp_path, monkeypatch, threads):
    monkeypatch.setattr("daskflow.jobs.ledger._EVERY", 0.01)
    files, _ = job(tmp_path, seconds=0.02, blocks=40)
    seen = []

    class Watch:
        def update(self, snapshot):
            seen.append((snapshot.done, sum(s.done for s in status(files.directory).stages)))

        def say(self, line):
            pass

        def close(self):
            pass

    files.run(threads, progress=Watch())
    assert all(saved <= done for done, saved in seen)
    assert any(0 < saved < 40 for _, saved in seen)
