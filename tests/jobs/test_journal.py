import time

import pytest
from blockfiles import WriteFiles, grid, job

from daskflow.errors import JobError, StoreError
from daskflow.jobs.batch import Failure
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.journal import Journal
from daskflow.jobs.ledger import DONE, EMPTY, FAILED, PENDING
from daskflow.stores import kvstore
from daskflow.volume.stage import Stage


@pytest.fixture
def home(tmp_path):
    return JobDirectory(kvstore.normalise(str(tmp_path / "job")))


@pytest.fixture
def stage(tmp_path):
    return Stage("files", grid(8), WriteFiles(tmp_path))


def failure(index, stage="files"):
    return Failure(stage, index, "0-1_0-1_0-1", "ValueError", "no", "Traceback")


def test_journal_comes_back_as_it_was_saved(home, stage):
    journal = Journal(home, [stage])
    journal.ledgers["files"].mark([0, 1, 2], bytes([DONE, EMPTY, FAILED]))
    journal.add_failures([failure(2)])
    journal.counts["files"]["missing_chunks"] = 4
    journal.save("files")
    back = Journal(home, [stage])
    assert [back.ledgers["files"].state(i) for i in range(4)] == [DONE, EMPTY, FAILED, PENDING]
    assert back.failures == [failure(2)]
    assert back.counts["files"] == {"missing_chunks": 4}
    assert not back.finished


def test_failure_that_the_ledger_does_not_know_is_dropped(home, stage):
    journal = Journal(home, [stage])
    journal.ledgers["files"].mark([2], FAILED)
    journal.add_failures([failure(2)])
    journal.save("files")
    home.save_failures([failure(2), failure(3), failure(2, stage="gone")])
    assert Journal(home, [stage]).failures == [failure(2)]


def test_forgotten_blocks_lose_their_failures_and_counts(home, stage):
    journal = Journal(home, [stage])
    journal.ledgers["files"].mark([0, 2], bytes([DONE, FAILED]))
    journal.add_failures([failure(2)])
    journal.counts["files"]["missing_chunks"] = 4
    journal.forget("files", FAILED)
    assert journal.failures == []
    assert journal.counts["files"] == {"missing_chunks": 4}
    journal.forget("files", DONE, EMPTY, FAILED)
    assert journal.counts["files"] == {}
    assert journal.ledgers["files"].count(PENDING) == 8


def test_counts_of_blocks_that_were_set_back_are_not_counted_again(home, stage):
    journal = Journal(home, [stage])
    journal.ledgers["files"].mark([0], DONE)
    journal.counts["files"]["missing_chunks"] = 4
    journal.save("files")
    assert journal.forget("files", DONE)
    assert not journal.forget("files", DONE)
    journal.ledgers["files"].save(home.ledger("files"))
    assert Journal(home, [stage]).counts["files"] == {}


def test_many_failures_stay_small(home, stage):
    journal = Journal(home, [stage])
    journal.add_failures(failure(index) for index in range(20_000))
    assert len(journal.failures) == 10_000
    assert sum(bool(one.traceback) for one in journal.failures) == 100


def test_ledger_that_cannot_be_saved_stops_the_job(tmp_path, monkeypatch, threads):
    files, _ = job(tmp_path, blocks=400, seconds=0.01)
    write = kvstore.write_bytes

    def full(url, data):
        if "/ledger/" in url and end < time.monotonic():
            raise StoreError("no space left for the ledger")
        write(url, data)

    end = time.monotonic()
    monkeypatch.setattr("daskflow.jobs.ledger.kvstore.write_bytes", full)
    monkeypatch.setattr("daskflow.jobs.journal._EVERY", 0.01)
    with pytest.raises(JobError, match="cannot save the ledger: no space left for the ledger"):
        files.run(threads, progress=False)
    monkeypatch.undo()
    assert files.run(threads, progress=False).ok
