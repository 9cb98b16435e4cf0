import dataclasses
import time

import numpy as np
import pytest
import zarr
from blockfiles import WriteFiles, grid, job
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from daskflow.errors import JobError, StoreError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.ledger import DONE, EMPTY, FAILED, PENDING, STATES, Journal, Ledger
from daskflow.jobs.report import Failure
from daskflow.stores import kvstore
from daskflow.volume.stage import Stage

grids = st.builds(
    lambda start, shape, block: BlockGrid(BoundingBox.from_size(start, shape), block),
    st.tuples(*[st.integers(-20, 20)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 4)] * 3),
)


@st.composite
def ledgers(draw):
    grid = draw(grids)
    return Ledger(grid, draw(hnp.arrays(np.uint8, len(grid), elements=st.integers(0, 3))))


@given(ledgers())
def test_ledger_comes_back_as_it_was_saved(ledger):
    url = "memory://ledger/any"
    kvstore.delete_tree(url)
    ledger.save(url)
    back = Ledger.load(url, ledger.grid)
    assert [back.state(i) for i in range(len(back))] == [ledger.state(i) for i in range(len(ledger))]
    assert [back.count(s) for s in range(4)] == [ledger.count(s) for s in range(4)]


@given(ledgers(), st.data())
def test_counts_follow_every_mark(ledger, data):
    for _ in range(3):
        blocks = data.draw(st.lists(st.integers(0, len(ledger) - 1), unique=True, min_size=1))
        states = bytes(data.draw(st.lists(st.integers(0, 3), min_size=len(blocks), max_size=len(blocks))))
        ledger.mark(blocks, states)
        assert [ledger.state(i) for i in blocks] == list(states)
    now = [ledger.state(i) for i in range(len(ledger))]
    assert [ledger.count(s) for s in range(4)] == [now.count(s) for s in range(4)]
    assert ledger.finished == (set(now) <= {DONE, EMPTY})


@given(ledgers(), st.sets(st.integers(0, 3), min_size=1))
def test_blocks_yields_exactly_those_in_the_states(ledger, states):
    found = [int(b) for part in ledger.blocks(*states) for b in part]
    assert found == [i for i in range(len(ledger)) if ledger.state(i) in states]


@given(ledgers(), st.sets(st.integers(0, 3), min_size=1))
def test_reset_leaves_the_other_states(ledger, states):
    before = [ledger.state(i) for i in range(len(ledger))]
    assert ledger.reset(*states) == sum(s in states for s in before)
    assert [ledger.state(i) for i in range(len(ledger))] == [PENDING if s in states else s for s in before]
    assert ledger.count(PENDING) == sum(s in states or s == PENDING for s in before)


def test_stored_ledger_is_a_coarse_volume(tmp_path):
    grid = BlockGrid(BoundingBox((-8, 0, 4), (8, 10, 12)), (8, 5, 4))
    ledger = Ledger(grid)
    ledger.mark([grid.index((1, 0, 1))], FAILED)
    ledger.save(str(tmp_path / "ledger"))
    array = zarr.open_array(tmp_path / "ledger", mode="r")
    assert array.shape == (2, 2, 2)
    assert array[:].tolist() == [[[0, 0], [0, 0]], [[0, FAILED], [0, 0]]]
    assert array.attrs["voxel_size"] == [8, 5, 4]
    assert array.attrs["voxel_offset"] == [0, 0, 0]
    assert array.attrs["states"] == list(STATES)


def test_ledger_never_saved_is_all_pending(tmp_path):
    ledger = Ledger.load(str(tmp_path / "nothing"), BlockGrid(BoundingBox((0, 0, 0), (4, 4, 4)), (2, 2, 2)))
    assert ledger.count(PENDING) == len(ledger) == 8


@pytest.mark.parametrize("data", [b"", b"torn", b"\x1f\x8b\x08"])
def test_damaged_ledger_is_refused(data, tmp_path):
    grid = BlockGrid(BoundingBox((0, 0, 0), (4, 4, 4)), (2, 2, 2))
    url = str(tmp_path / "ledger")
    kvstore.write_bytes(kvstore.join(url, "c/0/0/0"), data)
    with pytest.raises(JobError, match=r"damaged|is not one of 8 blocks"):
        Ledger.load(url, grid)


def test_ledger_of_another_grid_is_refused(tmp_path):
    url = str(tmp_path / "ledger")
    Ledger(BlockGrid(BoundingBox((0, 0, 0), (4, 4, 4)), (2, 2, 2))).save(url)
    with pytest.raises(JobError, match="is not one of 64 blocks"):
        Ledger.load(url, BlockGrid(BoundingBox((0, 0, 0), (4, 4, 4)), (1, 1, 1)))


def test_empty_grid_is_finished():
    assert Ledger(BlockGrid(BoundingBox((0, 0, 0), (0, 4, 4)), (2, 2, 2))).finished


def test_copy_keeps_its_states():
    ledger = Ledger(BlockGrid(BoundingBox((0, 0, 0), (4, 4, 4)), (2, 2, 2)))
    copy = ledger.copy()
    ledger.mark([0, 1], DONE)
    assert copy.count(DONE) == 0
    assert ledger.count(DONE) == 2


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


def test_counts_of_a_stage_are_saved_with_its_ledger_and_not_with_that_of_another(home, stage):
    other = dataclasses.replace(stage, name="others")
    journal = Journal(home, [stage, other])
    for name in ("files", "others"):
        journal.ledgers[name].mark([0], DONE)
        journal.counts[name]["missing_chunks"] = 4
        journal.save(name)
        journal.ledgers[name].mark([1], DONE)
        journal.counts[name]["missing_chunks"] = 5
    journal.save("others")
    back = Journal(home, [stage, other])
    assert {name: ledger.count(DONE) for name, ledger in back.ledgers.items()} == {"files": 1, "others": 2}
    assert back.counts == {"files": {"missing_chunks": 4}, "others": {"missing_chunks": 5}}


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
    monkeypatch.setattr("daskflow.jobs.ledger._EVERY", 0.01)
    with pytest.raises(JobError, match="cannot save the ledger: no space left for the ledger"):
        files.run(threads, progress=False)
    monkeypatch.undo()
    assert files.run(threads, progress=False).ok
