"""Blocks as workers have memory for them: chosen once, kept by what was begun, and without a trace in the result."""

from pathlib import Path

import numpy as np
import pytest

import daskflow
from daskflow.clusters import Threads
from daskflow.clusters.workers import Workers
from daskflow.errors import PlanError
from daskflow.volume import Volume

VOXELS = np.random.default_rng(0).integers(0, 200, (64, 128, 128), np.uint8)
VOXELS[0, 0, 64] = 250


def plus_one(array, gate):
    """Add 1; fail where a voxel is 250 until there is a file."""
    if array.max() == 250 and not Path(gate).exists():
        raise ValueError("not yet")
    return array + np.uint8(1)


@pytest.fixture
def gate(tmp_path):
    return tmp_path / "gate"


@pytest.fixture
def job(tmp_path, gate):
    volume = Volume.from_array(VOXELS, voxel_size=(8, 8, 8)).with_block((64, 128, 128))
    return lambda **options: daskflow.save(
        volume.map_blocks(plus_one, gate=str(gate)), tmp_path / "a", chunk=(16, 32, 32), **options
    )


def on(memory):
    return Workers(1, 1, 1, memory)


def run(job, memory):
    with Threads(1, memory=memory) as pool:
        return job.run(pool, progress=False, retries=0, retry_failed=True)


def test_block_too_large_for_workers_is_made_smaller_and_the_plan_says_so(job):
    wide, tight = job().plan(on(10**9)), job().plan(on(10**6))
    assert (wide.stages[0].grid.block, wide.notes) == ((64, 128, 128), ())
    tight.check()
    assert tight.stages[0].grid.block == (32, 64, 64)
    assert tight.notes == ("save-a: blocks of 32 64 64 zyx, as workers have 1 MB",)
    with pytest.raises(PlanError, match=r"needs .* per worker for blocks of \(64, 128, 128\)"):
        job(block=(64, 128, 128)).plan(on(10**6)).check()


@pytest.mark.parametrize(("first", "later"), [(10**6, 10**9), (10**9, 10**6)])
def test_job_keeps_the_blocks_it_was_begun_with_on_other_workers(job, gate, tmp_path, first, later):
    begun = run(job(levels=1), first)
    block = (32, 64, 64) if first < later else (64, 128, 128)
    assert begun.stages[0].failed
    gate.touch()
    plan = job(levels=1).plan(on(later))
    assert plan.stages[0].grid.block == block
    if first < later:
        assert plan.notes == ("save-a: blocks of 32 64 64 zyx, as it was begun",)
        report = run(job(levels=1), later)
        assert report.ok
        assert report.stages[0].skipped == 7
        assert np.array_equal(daskflow.open(tmp_path / "a").compute(), VOXELS + 1)
