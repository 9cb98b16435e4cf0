import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import daskflow
from daskflow import Volume, VolumeSpec
from daskflow.clusters import Threads
from daskflow.clusters.workers import Workers
from daskflow.errors import PlanError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.plan import Plan, StagePlan, kinds_of_blocks, outgrown
from daskflow.volume.stage import Estimate, Stage, Task

ONE = Workers(1, 1, 1, None)


class Halo(Task):
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


def test_shape_that_the_result_depends_on_is_named_with_its_option():
    class Shaped(Halo):
        def estimate(self, box):
            return dataclasses.replace(super().estimate(box), option="mesh --shape")

    box = BoundingBox((0, 0, 0), (64, 64, 64))
    plan = Plan.of("job", None, [Stage("stage", BlockGrid(box, (16, 16, 16)), Shaped(box))], Workers(1, 1, 1, 30_000))
    with pytest.raises(PlanError, match=r"say mesh --shape 8 16 16, which needs .* kB, or give workers more memory"):
        plan.check()
    numbered = [Stage("stage", BlockGrid(box, (1, 1, 1)), Shaped(box), numbered=True)]
    with pytest.raises(PlanError, match=r"say mesh --shape with 0\.\d+ times as many voxels or fewer, or give"):
        Plan.of("job", None, numbered, Workers(1, 1, 1, 5)).check()


def test_block_is_not_longer_than_its_levels_make_it(tmp_path):
    volume = daskflow.create_chunk(size=(512, 4096, 4096), voxel_size=(8, 8, 8))
    job = daskflow.save(volume, str(tmp_path / "a"), levels=5)
    plan = job.plan(Workers(1, 1, 1, 10**9))
    plan.check()
    assert plan.stages[0].grid.block == (64, 2048, 2048)


def test_block_that_is_one_shard_is_not_advised_to_be_smaller(tmp_path):
    volume = daskflow.create_chunk(size=(512, 512, 512), voxel_size=(8, 8, 8))
    plan = daskflow.save(volume, str(tmp_path / "a"), shard=(256, 256, 256)).plan(Workers(1, 1, 1, 10**7))
    with pytest.raises(PlanError, match=r"or write smaller chunks .*: a block is at least \(256, 256, 256\)"):
        plan.check()


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
    assert repr(plan).startswith(f"<Plan of {plan.name} · {len(plan.stages)} stage")


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


@pytest.fixture
def labels(tmp_path):
    np.save(tmp_path / "labels.npy", np.ones((40, 40, 40), np.uint16))
    return str(tmp_path / "labels.npy")


def lines(job):
    return [line for line in str(job.plan()).splitlines() if line.startswith(("in ", "out "))]


def test_plan_shows_dtype_and_voxel_size_of_what_goes_in_and_comes_out(labels, tmp_path):
    volume = daskflow.open(labels, voxel_size=(40, 8, 4), layer_type="segmentation")
    source, *made = lines(daskflow.save(daskflow.astype(volume, dtype="uint64"), tmp_path / "out", levels=1))
    assert source.startswith("in ")
    assert source.endswith("labels.npy: uint16 segmentation, 40x8x4 nm")
    assert [line.rpartition("/")[2] for line in made] == [
        "out: uint64 segmentation, 40x8x4 nm",
        "out mip 1: uint64 segmentation, 40x16x8 nm",
    ]


def test_plan_shows_an_unknown_voxel_size_and_what_it_is_taken_as(labels, tmp_path):
    volume = daskflow.open(labels, layer_type="segmentation")
    for job in (
        daskflow.save(daskflow.connected_components(volume), tmp_path / "out"),
        daskflow.mesh(volume, output=str(tmp_path / "meshes")),
        daskflow.skeletonize(volume, output=str(tmp_path / "skeletons")),
    ):
        assert lines(job)[0].endswith("labels.npy: uint16 segmentation, voxel size unknown")
        assert str(job.plan()).count("taken as 1 nm; say it where the volume is opened or made: --voxel-size") == 1
        assert "voxel size unknown" in job._repr_html_()


def test_lines_of_volumes_fit_a_screen(tmp_path):
    deep = tmp_path / ("deep" * 20)
    job = daskflow.save(Volume.from_array(np.ones((2, 8, 8, 8), np.float32), voxel_size=(33.3, 4.04, 4.04)), deep)
    assert lines(job)[0] == "in  array: float32 x 2, 33.3x4.04x4.04 nm"
    assert max(map(len, lines(job))) <= 80


@pytest.mark.parametrize("shape", [(10**6,) * 3, (10**18, 1, 1), (10**18,) * 3])
def test_volume_of_any_size_has_a_repr(shape):
    def zeros(box):
        return np.zeros(box.shape, np.uint8)

    volume = Volume.from_function(zeros, VolumeSpec(BoundingBox((0, 0, 0), shape), np.dtype(np.uint8)))
    for one in (volume, volume.map_blocks(np.negative, dtype="uint8")):
        assert "x".join(map(str, shape)) in repr(one)
        assert "voxel size unknown" in repr(one)
        assert "unknown" in one._repr_html_()
