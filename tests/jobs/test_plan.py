import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.clusters import Threads
from daskflow.errors import PlanError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.executor import Workers
from daskflow.jobs.plan import Plan, StagePlan, kinds_of_blocks, outgrown
from daskflow.volume.stage import Estimate, Stage

ONE = Workers(1, 1, 1, None)


class Halo:
    """Reads a halo of `depth`, clipped to a volume."""

    def __init__(self, box, depth=0, calls=None):
        self.box, self.depth, self.calls = box, depth, calls if calls is not None else []

    def estimate(self, box):
        self.calls.append(box)
        read = box.grow(self.depth).clip(self.box).size
        return Estimate(bytes_read=read, bytes_written=box.size, memory=10 * box.size, voxels_read=read)


boxes = st.builds(BoundingBox.from_size, st.tuples(*[st.integers(-9, 9)] * 3), st.tuples(*[st.integers(1, 12)] * 3))


@given(boxes, st.tuples(*[st.integers(1, 8)] * 3), st.integers(0, 3))
def test_totals_equal_those_of_every_block(box, block, depth):
    depth = min(depth, *block)
    sizes = [s % b or b for s, b in zip(box.shape, block, strict=True)]
    depth = min(depth, *sizes)  # a halo beyond the cut last block reaches a second row of blocks
    grid, task = BlockGrid(box, block), Halo(box, depth)
    plan = StagePlan.of(Stage("any", grid, task), ONE)
    assert plan.blocks == len(grid)
    assert plan.bytes_written == box.size
    assert plan.bytes_read == sum(task.estimate(b).bytes_read for b in grid)
    assert plan.block_memory == max(task.estimate(b).memory for b in grid)
    assert plan.recompute == pytest.approx(plan.bytes_read / box.size)


def test_a_grid_of_something_else_than_voxels_has_no_voxels_read_again():
    box = BoundingBox((0, 0, 0), (8, 1, 1))
    stage = Stage("any", BlockGrid(box, (1, 1, 1)), Halo(box), numbered=True)
    assert StagePlan.of(stage, ONE).recompute is None
    assert str(Plan.of("job", "somewhere", [stage], ONE)).splitlines()[2].endswith(" -")


@given(boxes, st.tuples(*[st.integers(1, 8)] * 3))
def test_kinds_stand_for_every_block(box, block):
    grid = BlockGrid(box, block)
    kinds = kinds_of_blocks(grid)
    assert sum(count for _, count in kinds) == len(grid)
    assert len({index for index, _ in kinds}) == len(kinds) <= 27


def test_planning_ten_million_blocks_estimates_a_handful():
    box = BoundingBox((0, 0, 0), (16384, 16384, 16384))
    calls = []
    plan = StagePlan.of(Stage("any", BlockGrid(box, (64, 64, 96)), Halo(box, 8, calls)), ONE)
    assert plan.blocks > 10**7
    assert len(calls) <= 27


def test_empty_grid_costs_nothing():
    box = BoundingBox((0, 0, 0), (0, 5, 5))
    plan = StagePlan.of(Stage("any", BlockGrid(box, (2, 2, 2)), Halo(box)), ONE)
    assert (plan.blocks, plan.bytes_read, plan.block_memory) == (0, 0, 0)


@pytest.mark.parametrize("size", [10**5, 10**15])
def test_more_blocks_than_a_ledger_holds_are_refused(size):
    box = BoundingBox((0, 0, 0), (size, size, size))
    with pytest.raises(PlanError, match="use larger blocks"):
        StagePlan.of(Stage("huge", BlockGrid(box, (1, 1, 1)), Halo(box)), ONE)


def plan_for(workers, block=(16, 16, 16)):
    box = BoundingBox((0, 0, 0), (64, 64, 64))
    return Plan.of("job", "memory://plan/job", [Stage("stage", BlockGrid(box, block), Halo(box))], workers)


def test_too_much_memory_is_refused_with_both_numbers_and_a_smaller_block():
    plan = plan_for(Workers(1, 2, 2, 50_000))
    with pytest.raises(PlanError) as error:
        plan.check()
    text = str(error.value)
    assert "needs 81.9 kB per worker (2 threads, 41 kB each)" in text
    assert "may use 50 kB" in text
    smaller = plan.stages[0].smaller
    assert str(smaller) in text
    plan_for(Workers(1, 2, 2, 50_000), smaller).check()


def test_memory_that_no_block_fits_is_refused_without_advice_on_blocks():
    with pytest.raises(PlanError, match="give workers more memory"):
        plan_for(Workers(1, 1, 1, 5)).check()


def test_enough_memory_passes():
    plan_for(Workers(1, 2, 2, 82_000)).check()
    plan_for(Workers(1, 2, 2, None)).check()


def test_blocks_overlap_only_where_memory_allows():
    room = 16**3 * 12
    assert plan_for(Workers(1, 1, 1, room)).overlaps(plan_for(ONE).stages[0])
    assert not plan_for(Workers(1, 1, 1, room - 1)).overlaps(plan_for(ONE).stages[0])


class Locked(Halo):
    """Holds Python's lock for a second per block."""

    def estimate(self, box):
        return Estimate(locked_seconds=1.0)


@pytest.mark.parametrize(("blocks", "threads", "saved"), [(8, 2, 4), (8, 4, 6), (8, 1, 0), (1, 4, 0), (2, 4, 1)])
def test_processes_save_what_threads_would_wait_for_each_other(blocks, threads, saved):
    box = BoundingBox((0, 0, 0), (1, 1, blocks))
    stages = [
        Stage("locked", BlockGrid(box, (1, 1, 1)), Locked(box)),
        Stage("free", BlockGrid(box, (1, 1, 1)), Halo(box)),
    ]
    plan = Plan.of("job", "memory://plan/job", stages, Workers(1, threads, threads, None))
    assert plan.seconds_saved == pytest.approx(saved)


def test_plan_fits_a_screen(tmp_path):
    with Threads(2) as pool:
        plan = plan_for(Workers(1, pool.threads, pool.threads, pool.memory))
    lines = str(plan).splitlines()
    assert max(map(len, lines)) <= 100
    assert "64" in lines[2]
    assert "16x16x16" in lines[2]
    assert "<table>" in plan._repr_html_()


@pytest.mark.parametrize(
    ("peak", "told"),
    [
        (0, "estimated to need 8 kB; the worker may use 1 kB"),
        (64_000, r"8 kB, its worker used 64 kB or more, and may use 1 kB; .* at most about \(2, 2, 3\) zyx"),
    ],
)
def test_block_that_outgrew_its_worker_is_told_with_one_that_fits(peak, told):
    box = BoundingBox((0, 0, 0), (8, 10, 10))
    stage = Stage("one", BlockGrid(box, box.shape), Halo(box))
    assert re.search(told, outgrown(stage, 0, peak, Workers(1, 1, 1, 1000)))
