import dataclasses
import time

import numpy as np
import pytest
from blockfiles import grid, job

from daskflow.errors import JobError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs import keeper
from daskflow.jobs.keeper import Shelf
from daskflow.jobs.ledger import DONE, EMPTY, FAILED, PENDING, Journal, Ledger
from daskflow.jobs.lock import Holder
from daskflow.jobs.parts import Part, Work, blocks_of, cut, fold, packed, recorded, settle
from daskflow.jobs.report import Failure
from daskflow.stores import kvstore
from daskflow.volume.stage import Stage

BLOCKS = 64
INTERVAL = 0.01
ELSEWHERE = {"host": "elsewhere"}


@pytest.fixture
def home(tmp_path, threads):
    """The directory of a job of which two blocks were done, one of them empty, before it was cut."""
    files, _ = job(tmp_path, blocks=BLOCKS, empty=frozenset([str(grid(BLOCKS)[0])]))
    files.run(threads, progress=False)
    ledger = Ledger(grid(BLOCKS))
    ledger.mark([0, 1], bytes([EMPTY, DONE]))
    ledger.save(files.home.ledger("files"))
    files.home.write("totals.json", {"files": {"missing_chunks": 2}})
    cut(files.home, Journal(files.home, files.stages), files.stages)
    return files.home


def shelf(home, **where):
    ledger = Ledger.load(home.ledger("files"), grid(BLOCKS))
    me = dataclasses.replace(Holder.here(), **where)
    return Shelf(home, home.read("parts.json"), "files", ledger, home.load_failures(), me)


def look(one, wanted, times=1):
    """Look some times, whatever the pauses, and return the events."""
    for _ in range(times):
        one._next = 0.0
        one.ask(wanted)
        one.look(INTERVAL)
    events = []
    while not one.events.empty():
        events.append(one.events.get())
    return events


def store(one, number, states, counts, **options):
    """Store what became of a part, as its driver does."""
    work = {one._me.host: Work(int(np.count_nonzero(states != PENDING)))}
    part = Part(**packed(states), counts=counts, work=work)
    one.put(number, part)
    one.store(number, part, release=False, **options)


def test_parts_are_of_several_blocks_and_no_more_than_256(tmp_path):
    for blocks, size in ((0, 1), (1, 1), (31, 1), (64, 2), (256, 8), (2048, 8), (10**6, 3907)):
        box = BoundingBox((0, 0, 0), (1, 1, blocks))
        files, _ = job(tmp_path)
        stage = Stage("files", BlockGrid(box, (1, 1, 1)), files.stages[0].task)
        cut(files.home, Journal(files.home, [stage]), [stage])
        assert files.home.read("parts.json")["sizes"] == {"files": size}
        assert [*blocks_of(0, size, blocks)] == [*range(min(size, blocks))]


def test_of_two_drivers_each_part_is_held_by_one_and_free_ones_are_claimed_as_far_as_asked(home):
    one, other = shelf(home), shelf(home)
    first = [number for how, number, _ in look(one, 10) if how == "claimed"]
    second = [number for how, number, _ in look(other, 1000) if how == "claimed"]
    assert len(first) == 5
    assert len({*first, *second}) == len(first) + len(second) == 31  # all but the part of which both blocks were done
    assert not [event for event in look(one, 1000) if event[0] == "claimed"]


@pytest.mark.parametrize(("where", "looks"), [({"pid": 2**22 + 1}, 1), (ELSEWHERE, 3)])
def test_part_is_taken_over_from_a_dead_driver_at_once_and_from_others_when_it_stands_still(home, where, looks):
    dead, living = shelf(home, **where), shelf(home)
    (number,) = (number for how, number, _ in look(dead, 1) if how == "claimed")
    store(dead, number, np.array([DONE, PENDING], np.uint8), {"missing_chunks": 1})
    assert number not in [event[1] for event in look(living, 1000, looks - 1)]
    for _ in range(100):  # it stands still for as long as looks see it, which may be less than they take
        taken = [list(part.unpacked()) for _, one, part in look(living, 1000) if one == number]
        if taken:
            break
        time.sleep(INTERVAL)
    assert taken == [[DONE, PENDING]]


def test_part_that_is_renewed_is_not_taken_over(home):
    one, other = shelf(home, **ELSEWHERE), shelf(home)
    (number,) = (number for how, number, _ in look(one, 1) if how == "claimed")
    look(other, 1000)
    for _ in range(8):
        one.store(number, one._kept[number].latest, release=False)
        assert look(other, 1000) == []


def test_driver_that_goes_on_late_loses_what_was_taken_over_and_changes_nothing(home):
    late, other = shelf(home, pid=2**22 + 1), shelf(home)
    numbers = [number for how, number, _ in look(late, 4) if how == "claimed"]
    look(other, 1000)
    both, one = np.array([DONE, DONE], np.uint8), np.array([DONE, PENDING], np.uint8)
    for number in numbers:
        store(other, number, both, {"missing_chunks": 2})
        store(late, number, one, {"missing_chunks": 1})
    lost = [number for how, number, _ in look(late, 0) if how == "lost"]
    assert lost == numbers
    records = fold(home)
    assert records.ledgers["files"].count(DONE) == 1 + 2 * len(numbers)
    assert records.totals == {"files": {"missing_chunks": 2 + 2 * len(numbers)}}


def test_driver_that_goes_on_after_the_end_claims_nothing(home):
    late = shelf(home)
    settle(home)
    assert {how for how, *_ in look(late, 1000)} == {"complete"}
    assert not kvstore.list_names(kvstore.join(home.url, "parts"))


def test_driver_without_workers_gives_back_its_parts(home):
    one, other = shelf(home), shelf(home)
    (number,) = (number for how, number, _ in look(one, 1) if how == "claimed")
    one.leaving = True
    for held, part in one.due(1000, release=False):
        one.store(held, part, release=False)
    assert [event[:2] for event in look(one, 0)][:1] == [("lost", number)]
    assert number in [event[1] for event in look(other, 1000)]


def test_folding_twice_is_folding_once(home):
    one = shelf(home)
    failed = Failure("files", 8, str(grid(BLOCKS)[8]), "ValueError", "no luck")
    states = np.array([FAILED, DONE], np.uint8)
    look(one, 1000)
    part = Part(**packed(states), counts={"missing_chunks": 1}, failures=[failed], work={"me": Work(1, 16)})
    one.put(4, part)
    one.store(4, part, release=False)
    now = recorded(home)
    assert Ledger.load(home.ledger("files"), grid(BLOCKS)).count(DONE) == 1
    for _ in range(2):
        records = fold(home)
        assert records.failures == now.failures == [failed] == home.load_failures()
        assert records.totals == now.totals == home.read("totals.json") == {"files": {"missing_chunks": 3}}
        assert records.work == {"files": {"me": Work(1, 16)}}
    settle(home)
    assert home.read("parts.json") is None
    assert Ledger.load(home.ledger("files"), grid(BLOCKS)).state(9) == DONE


@pytest.mark.parametrize("data", [b"torn", b"{}", Part.of(np.zeros(3, np.uint8)).encoded()])
def test_damaged_part_is_named(home, data):
    one = shelf(home)
    url = one._part(7)
    kvstore.write_bytes(url, data)
    with pytest.raises(JobError, match=r"parts/.*/files/7 is damaged; delete it"):
        look(one, 1)
    with pytest.raises(JobError, match="is damaged"):
        recorded(home)


def test_keeper_says_what_has_ended_it(home, monkeypatch):
    monkeypatch.setattr(keeper, "_ROUND", 0.01)
    one = shelf(home)
    kvstore.write_bytes(one._part(7), b"torn")
    with keeper.Keeper([one], []) as kept:
        one.ask(1)
        kept._thread.join(60)
        with pytest.raises(JobError, match=r"cannot keep parts of the job: .*/7 is damaged"):
            kept.check()
