import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.jobs.report import Failure
from daskflow.jobs.stage_run import Retries


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def failure(index):
    return Failure("stage", index, "0-1_0-1_0-1", "ValueError", "no")


@given(st.integers(0, 5), st.lists(st.integers(0, 9), min_size=1, unique=True))
def test_block_is_tried_once_more_than_retries_then_failed(allowed, blocks):
    clock = Clock()
    retries = Retries(allowed, clock)
    finals = {}
    tried = dict.fromkeys(blocks, 0)
    waiting = list(blocks)
    while waiting:
        for block in waiting:
            tried[block] += 1
            final = retries.failed(failure(block))
            if final is not None:
                finals[block] = final
        assert retries.due(100) == []
        clock.now += 100
        waiting = retries.due(100)
    assert tried == dict.fromkeys(blocks, allowed + 1)
    assert {index: final.attempts for index, final in finals.items()} == tried
    assert not retries.waiting
    assert not retries.suspects
    assert retries.count == allowed * len(blocks)


def test_waits_grow():
    clock = Clock()
    retries = Retries(3, clock)
    waits = []
    for _ in range(3):
        retries.failed(failure(1))
        began = clock.now
        while not retries.due(1):
            clock.now += 0.05
        waits.append(clock.now - began)
    assert waits == sorted(waits)
    assert waits[-1] > 4 * waits[0]


def test_due_gives_no_more_than_asked_for():
    clock = Clock()
    retries = Retries(1, clock)
    for block in range(5):
        retries.failed(failure(block))
    clock.now = 10
    assert len(retries.due(3)) == 3
    assert len(retries.due(3)) == 2


@pytest.mark.parametrize(("allowed", "deaths", "alone"), [(2, 1, 3), (2, 4, 1), (0, 1, 1), (2, 2, 2)])
def test_suspect_is_blamed_once_its_deaths_exceed_the_retries(allowed, deaths, alone):
    retries = Retries(allowed, Clock())
    retries.suspects.extend([7])
    for _ in range(alone - 1):
        assert retries.suspects.popleft() == 7
        assert retries.died_alone(7, deaths) is None
    assert retries.suspects.popleft() == 7
    assert retries.died_alone(7, deaths) == deaths * alone
    assert not retries.suspects


def test_suspects_that_live_are_not_asked_again():
    retries = Retries(2, Clock())
    retries.suspects.extend([1, 2])
    assert [retries.suspects.popleft(), retries.suspects.popleft()] == [1, 2]
    assert not retries.waiting
    assert not retries.suspects
