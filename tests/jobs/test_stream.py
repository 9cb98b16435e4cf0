import os
import signal
import threading
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.clusters.workers import Workers
from daskflow.errors import JobError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.batch import BatchResult
from daskflow.jobs.executor import Executor, Settled
from daskflow.jobs.ledger import DONE, EMPTY, FAILED, PENDING, Ledger
from daskflow.jobs.report import Failure
from daskflow.jobs.stage_run import KILLED, Policy, StageRun, rehearsal
from daskflow.jobs.stream import Interrupts, Stream
from daskflow.volume.stage import Estimate, Stage, Task


@dataclass(frozen=True)
class Costly(Task):
    gpu: bool = False

    def estimate(self, box):
        return Estimate(memory=box.size)


class Simulated(Executor):
    """Runs batches in no time and says they took `seconds` per block; some blocks raise or kill their worker."""

    def __init__(self, seconds=0.01, threads=2, raises=(), kills=(), deaths=2, tried=None, gpus=None):
        self.seconds, self.threads, self.raises, self.kills, self.deaths = seconds, threads, raises, kills, deaths
        self.tried, self.gpus = tried, gpus
        self.flying, self.most, self.sizes, self.runs, self.alone = deque(), 0, [], Counter(), Counter()

    def take_lost(self):
        return 0

    @property
    def workers(self):
        gpu = None if self.gpus is None else Workers(self.gpus, self.gpus, 1, 10**9)
        return Workers(self.threads, self.threads, 1, 10**9, gpu)

    def open(self, stage, *, overlap, verb):
        return self.submit

    def submit(self, batches):
        self.flying += batches
        self.most = max(self.most, len(self.flying))
        self.sizes += [len(batch.blocks) for batch in batches]

    def withdraw(self, *, running=False):
        taken, self.flying = list(self.flying), deque()
        return taken

    def collect(self, timeout):
        if not self.flying:
            return []
        batch = self.flying.popleft()
        blocks = [int(block) for block in batch.blocks]
        if set(blocks) & set(self.kills):
            self.alone.update(blocks if not self.flying and len(blocks) == 1 else ())
            return [Settled(batch, None, self.deaths)]
        blocks = blocks[: self.tried]
        self.runs.update(blocks)
        failures = tuple(Failure("stage", block, "", "ValueError", "no") for block in blocks if block in self.raises)
        states = bytes(FAILED if block in self.raises else DONE for block in blocks)
        return [Settled(batch, BatchResult(states, {"n": len(blocks)}, failures, len(blocks) * self.seconds, 0, 0, ""))]


def one_pass(blocks, name="stage", after=(), gpu=False, **policy):
    grid = BlockGrid(BoundingBox((0, 0, 0), (1, 1, blocks)), (1, 1, 1))
    return StageRun(Stage(name, grid, Costly(gpu)), Ledger(grid), Policy(**policy), Counter(), after)


def stream(executor, blocks, **policy):
    one = one_pass(blocks, **policy)
    return one, Stream(executor, [one])


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("daskflow.jobs.stage_run._FIRST_DELAY", 0.0)


@given(st.integers(0, 3000), st.floats(1e-5, 50), st.integers(1, 40), st.one_of(st.none(), st.integers(1, 5)))
def test_every_block_runs_once_through_a_bounded_window(blocks, seconds, threads, tried):
    executor = Simulated(seconds, threads, tried=tried)
    one, run = stream(executor, blocks)
    run.run()
    assert one.ledger.count(DONE) == one.ran == blocks
    assert executor.runs == Counter(range(blocks))
    assert one.counts["n"] == blocks
    assert executor.most <= max(32, 2 * threads + 2)


def test_what_asks_for_gpus_has_a_window_of_its_own():
    executor = Simulated(5.0, threads=40, gpus=3)
    Stream(executor, [one_pass(200, "network", gpu=True), one_pass(200, "other")]).run()
    assert executor.most == 2 * 3 + 2 * 40 + 2
    alone = Simulated(5.0, threads=40, gpus=3)
    Stream(alone, [one_pass(200, "network", gpu=True)]).run()
    assert alone.most == 2 * 3
    anywhere = Simulated(5.0, threads=40)
    Stream(anywhere, [one_pass(200, "network", gpu=True), one_pass(200, "other")]).run()
    assert anywhere.most == 2 * 40 + 2


@pytest.mark.parametrize(
    ("seconds", "size"), [(0.0001, 10_000), (0.001, 1000), (0.1, 10), (0.5, 4), (5.0, 4), (12.0, 2), (40.0, 1)]
)
def test_task_lasts_about_a_second_or_has_blocks_enough_to_overlap(seconds, size):
    executor = Simulated(seconds)
    stream(executor, 20 * 4 * size + 100)[1].run()
    usual = Counter(executor.sizes).most_common()
    assert max(executor.sizes) <= size
    assert any(abs(common - size) <= max(1, size // 20) for common, _ in usual[:3])


def test_without_room_for_overlap_slow_blocks_travel_alone():
    executor = Simulated(2.0)
    stream(executor, 200, overlap=False)[1].run()
    assert set(executor.sizes) == {1}


def test_few_blocks_still_travel_together_so_that_they_overlap():
    executor = Simulated(seconds=5, threads=1)
    stream(executor, 4, overlap=True)[1].run()
    assert executor.sizes == [1, 1, 2]


def test_last_blocks_are_spread_over_the_threads():
    executor = Simulated(0.001, threads=8)
    stream(executor, 10_000)[1].run()
    assert max(executor.sizes) <= 10_000 // 16
    assert executor.sizes[-1] == 1


@given(st.integers(2, 60), st.data())
def test_blame_falls_on_all_that_kill_their_worker_and_on_nobody_else(blocks, data):
    kills = data.draw(st.sets(st.integers(0, blocks - 1), max_size=4))
    raises = data.draw(st.sets(st.integers(0, blocks - 1), max_size=4)) - kills
    first = set(rehearsal(Ledger(BlockGrid(BoundingBox((0, 0, 0), (1, 1, blocks)), (1, 1, 1)))))
    executor = Simulated(0.001, kills=kills, raises=raises, deaths=data.draw(st.integers(1, 5)))
    one, run = stream(executor, blocks, retries=2)
    if first <= kills or first <= raises:
        with pytest.raises(JobError, match="first two blocks"):
            run.run()
        return
    run.run()
    assert {failure.index for failure in one.failures if failure.exception == KILLED} == kills
    assert {failure.index for failure in one.failures if failure.exception == "ValueError"} == raises
    assert all(one.ledger.state(block) == FAILED for block in kills | raises)
    assert one.ledger.count(DONE) == blocks - len(kills | raises)
    for failure in one.failures:
        if failure.exception == KILLED:
            assert failure.attempts > 2
            assert failure.attempts - executor.deaths <= 2


def test_nothing_is_submitted_after_a_stop():
    executor = Simulated(0.01)
    one = one_pass(10_000)
    run = Stream(executor, [one], tick=lambda passes: run.stop() if passes[0].ran > 50 else None)
    run.run()
    assert 50 < one.ran < 10_000
    assert one.ledger.count(PENDING) == 10_000 - one.ran
    submitted = sum(executor.sizes)
    run.stop()
    assert sum(executor.sizes) == submitted


def test_first_failure_stops_a_job_that_fails_fast():
    executor = Simulated(0.01, raises={3})
    one, run = stream(executor, 10_000, retries=0, fail_fast=True)
    run.run()
    assert [failure.index for failure in one.failures] == [3]
    assert one.ledger.count(PENDING) > 9000


def test_verify_reads_done_blocks_only_and_sets_damaged_ones_back():
    executor = Simulated(0.01, raises={1, 5})
    ledger = one_pass(10).ledger
    ledger.mark([0, 1, 2], DONE)
    ledger.mark([5, 6], EMPTY)
    Stream(executor, [StageRun(Stage("stage", ledger.grid, Costly()), ledger, Policy(verb="verify"), Counter())]).run()
    assert sorted(executor.runs) == [0, 1, 2, 5, 6]
    assert [ledger.state(block) for block in (0, 1, 5, 6)] == [DONE, PENDING, PENDING, EMPTY]


def test_done_and_failed_blocks_are_left_alone():
    executor = Simulated()
    ledger = one_pass(20).ledger
    ledger.mark(np.arange(5), DONE)
    ledger.mark([7], FAILED)
    Stream(executor, [StageRun(Stage("stage", ledger.grid, Costly()), ledger, Policy(), Counter())]).run()
    assert sorted(executor.runs) == [5, 6, *range(8, 20)]


def test_stages_share_the_window_and_those_that_wait_begin_when_all_before_them_are_finished():
    executor = Simulated(0.01)
    first, other = one_pass(500, "first"), one_pass(300, "other")
    last = one_pass(200, "last", after=(first, other))
    together, begun = 0, []

    def tick(passes):
        nonlocal together
        together += first in passes and other in passes and bool(first.flying) and bool(other.flying)
        if last in passes and not begun:
            begun.append(first.ledger.finished and other.ledger.finished)

    ended = []
    Stream(executor, [first, other, last], tick=tick, ended=ended.append).run()
    assert together
    assert begun == [True]
    assert ended == [first, other, last]
    assert [one.ran for one in ended] == [500, 300, 200]
    assert executor.most <= 32


def test_a_stage_that_fails_holds_up_only_what_comes_after_it():
    executor = Simulated(0.01, raises={3})
    first = one_pass(4, "first", retries=0)
    after, other = one_pass(3, "after", after=(first,)), one_pass(3, "other")
    Stream(executor, [first, after, other]).run()
    assert [one.ledger.count(DONE) for one in (first, after, other)] == [3, 0, 3]
    assert first.ledger.count(FAILED) == 1


def test_first_failure_of_one_stage_stops_the_others_too():
    passes = [one_pass(10_000, name, retries=0, fail_fast=True) for name in ("first", "other")]
    Stream(Simulated(0.01, raises={5}), passes).run()
    assert passes[0].ledger.count(FAILED) == 1
    assert all(one.ledger.count(PENDING) > 9000 for one in passes)


def test_what_may_kill_its_worker_is_tried_with_no_block_of_any_stage_beside_it():
    executor = Simulated(0.01, kills={7})
    passes = [one_pass(50, "first"), one_pass(40, "other")]
    Stream(executor, passes).run()
    assert [[failure.index for failure in one.failures] for one in passes] == [[7], [7]]
    assert executor.alone[7] == 4
    assert sum(one.ledger.count(DONE) for one in passes) == 88


@pytest.mark.parametrize(
    ("shape", "blocks"), [((3, 3, 3), [13, 26]), ((1, 1, 2), [0, 1]), ((1, 1, 1), []), ((1, 4, 1), [2, 3])]
)
def test_rehearsal_takes_an_inner_and_a_corner_block(shape, blocks):
    ledger = Ledger(BlockGrid(BoundingBox((0, 0, 0), shape), (1, 1, 1)))
    assert rehearsal(ledger) == blocks
    ledger.mark([0], DONE)
    assert rehearsal(ledger) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_noted_and_the_second_raises(number):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert not interrupts.requested
        os.kill(os.getpid(), number)
        assert interrupts.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_other_threads_leave_signals_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def enter():
        with Interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
