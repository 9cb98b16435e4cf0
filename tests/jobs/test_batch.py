import asyncio
import contextvars
import dataclasses
import errno
import json
import threading
import time

import numpy as np
import pytest
from blockfiles import WriteFiles, grid
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import StoreAccessError
from daskflow.jobs.batch import Batch, PickledStage, run_batch
from daskflow.jobs.ledger import DONE, EMPTY, FAILED
from daskflow.jobs.report import Failure
from daskflow.jobs.shapes import from_json
from daskflow.volume.stage import BlockResult, Stage

place = contextvars.ContextVar("place", default=None)


class Recorder:
    """Notes when each step of each block begins and ends; raises where it is told to."""

    def __init__(self, raises=(), error=None, seconds=0.0):
        self.raises, self.error, self.seconds = raises, error, seconds
        self.events = []

    def _step(self, step, box):
        self.events.append((step, box.start[2] // 4, "begins", threading.get_ident()))
        time.sleep(self.seconds)
        self.events.append((step, box.start[2] // 4, "ends", threading.get_ident()))
        if (step, box.start[2] // 4) in self.raises:
            raise self.error or ValueError(f"{step} failed")

    def read(self, box):
        self._step("read", box)
        place.set(box)
        return box.start[2]

    def compute(self, box, inputs):
        self._step("compute", box)
        assert place.get() == box
        return inputs + 1

    def write(self, box, outputs):
        self._step("write", box)
        assert outputs == box.start[2] + 1
        assert place.get() == box
        return BlockResult(empty=box.start[2] == 4, counts={"seen": 1})

    def when(self, step, block, event):
        return next(i for i, e in enumerate(self.events) if e[:3] == (step, block, event))


def run(task, blocks, seconds=60.0, **options):
    return run_batch(Batch(blocks, seconds), stage=Stage("stage", grid(8), task), **options)


@given(
    st.lists(st.integers(0, 7), min_size=1, unique=True),
    st.sets(st.tuples(st.sampled_from(["read", "compute", "write"]), st.integers(0, 7))),
    st.booleans(),
)
def test_every_block_is_done_or_failed_by_itself(blocks, raises, overlap):
    result = run(Recorder(raises), np.array(blocks), overlap=overlap)
    bad = {block for _, block in raises} & set(blocks)
    assert list(result.states) == [FAILED if b in bad else EMPTY if b == 1 else DONE for b in blocks]
    assert {failure.index for failure in result.failures} == bad
    assert result.counts == ({"seen": len(blocks) - len(bad)} if len(bad) < len(blocks) else {})
    assert result.voxels == sum(grid(8)[b].size for b in set(blocks) - bad)


def test_next_block_is_read_while_one_is_computed_and_the_last_written():
    task = Recorder(seconds=0.03)
    run(task, [0, 1, 2])
    assert task.when("read", 1, "begins") < task.when("compute", 0, "ends")
    assert task.when("compute", 1, "begins") < task.when("write", 0, "ends")
    assert task.when("read", 2, "begins") < task.when("write", 0, "ends")


def test_without_overlap_one_block_ends_before_the_next_begins():
    task = Recorder()
    run(task, [0, 1], overlap=False)
    assert [e[:2] for e in task.events[::2]] == [(s, b) for b in (0, 1) for s in ("read", "compute", "write")]


@pytest.mark.parametrize("overlap", [True, False])
def test_batch_out_of_time_leaves_the_rest(overlap):
    task = Recorder(seconds=0.02)
    result = run(task, list(range(8)), seconds=0.05, overlap=overlap)
    assert 1 <= len(result.states) < 8
    assert sum(e[0] == "write" and e[2] == "ends" for e in task.events) == len(result.states)
    assert {e[1] for e in task.events} == set(range(len(result.states)))


def test_failure_says_where_why_and_on_which_process():
    (failure,) = run(Recorder({("compute", 3)}), [3]).failures
    assert (failure.stage, failure.index, failure.box) == ("stage", 3, "0-4_0-4_12-16")
    assert (failure.exception, failure.message) == ("ValueError", "compute failed")
    assert "in _step" in failure.traceback
    assert failure.worker.endswith(f":{__import__('os').getpid()}")
    assert from_json(Failure, dataclasses.asdict(failure)) == failure


class PanicException(BaseException):
    """Derived as the panics of libraries in Rust are."""


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize("step", ["read", "compute", "write"])
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        *(SystemExit(3), KeyboardInterrupt(), GeneratorExit(), PanicException("panicked"), asyncio.CancelledError()),
        *(MuteError(), StopIteration(), BaseExceptionGroup("two", [SystemExit(), ValueError()])),
    ],
    ids=lambda error: type(error).__name__ if isinstance(error, BaseException) else None,
)
def test_whatever_a_block_raises_fails_that_block_only(step, error, overlap):
    result = run(Recorder({(step, 0)}, error), [0, 1], overlap=overlap)
    assert list(result.states) == [FAILED, EMPTY]
    assert result.failures[0].exception == type(error).__name__
    assert from_json(Failure, json.loads(json.dumps(dataclasses.asdict(result.failures[0])))) == result.failures[0]


@pytest.mark.parametrize(
    ("step", "error", "systemic"),
    [
        ("write", OSError(errno.ENOSPC, "full"), True),
        ("write", StoreAccessError("403"), True),
        ("write", ValueError("RESOURCE_EXHAUSTED: No space left on device"), True),
        ("write", OSError(errno.ENOENT, "gone"), False),
        ("write", ValueError("no"), False),
        ("read", StoreAccessError("one chunk cannot be read"), False),
        ("read", PermissionError(errno.EACCES, "one chunk cannot be read"), False),
        ("compute", StoreAccessError("of the operator"), False),
        ("compute", OSError(errno.ENOSPC, "full"), True),
    ],
)
@pytest.mark.parametrize("overlap", [False, True])
def test_storage_that_is_full_or_refuses_writes_is_systemic(step, error, systemic, overlap):
    (failure,) = run(Recorder({(step, 0)}, error), [0, 1], overlap=overlap).failures
    assert failure.systemic == systemic
    assert failure.exception == type(error).__qualname__
    assert failure.message == str(error)


def test_worker_unpickles_a_stage_once(tmp_path):
    task = WriteFiles(tmp_path)
    task.check()
    pickled = PickledStage.of(Stage("stage", grid(2), task))
    copy = PickledStage(pickled.token, b"never looked at")
    assert run_batch(Batch([0]), stage=pickled).states == bytes([DONE])
    assert run_batch(Batch([1]), stage=copy).states == bytes([DONE])
    assert len(task.outputs()) == 2
