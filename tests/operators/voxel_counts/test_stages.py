import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import JobError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.fingerprint import describe_stages
from daskflow.operators.segmentation.voxel_counts import LabelCounts
from daskflow.volume import Volume
from daskflow.volume.stage import Scope, Scopes, run_here

NAMES = np.array([0, 1, 5, 77, 1000, 2**40, 2**40 + 1, 2**63 + 5, 2**64 - 1], np.uint64)


def counting(voxels, block, fan_in=64):
    """Return a counting and its stages."""
    volume = Volume.from_array(voxels, voxel_offset=(-3, 5, 0)).with_block(block)
    one = LabelCounts(volume.grid, Scope("counts"), fan_in)
    return one, one.stages(volume.expression)


def labels(shape, seed, names=NAMES):
    return np.random.default_rng(seed).choice(names, shape)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 6)] * 3), st.tuples(*[st.integers(1, 6)] * 3), st.integers(2, 5), st.integers(0, 99))
def test_any_blocks_and_any_tree_give_what_numpy_counts(tmp_path_factory, shape, block, fan_in, seed):
    voxels, directory = labels(shape, seed), str(tmp_path_factory.mktemp("scratch"))
    one, stages = counting(voxels, block, fan_in)
    scopes = Scopes(directory)
    run_here(stages, scopes)
    one = one.bind(scopes)

    tables = list(one.table.tables())

    expected, times = np.unique(voxels, return_counts=True)
    assert np.array_equal(np.concatenate([table["labels"] for table in tables]), expected)
    assert np.array_equal(np.concatenate([table["counts"] for table in tables]), times)
    known = one.summary()
    assert known["voxels"] == voxels.size
    assert known["labels"] == np.count_nonzero(expected)
    assert known["background"] == np.count_nonzero(voxels == 0)
    asked = np.concatenate((expected[::-1], np.array([3, 2**62], np.uint64)))
    assert np.array_equal(one.of(asked), np.concatenate((times[::-1], [0, 0])))


def test_no_task_holds_much_more_than_the_tables_of_a_few_blocks(tmp_path):
    voxels = np.random.default_rng(1).permutation(16**3).astype(np.uint64).reshape(16, 16, 16)
    one, stages = counting(voxels, (2, 2, 2), fan_in=4)
    held, scopes = [], Scopes(str(tmp_path))

    for stage in stages:
        task = stage.task.bind(scopes)
        for box in stage.grid:
            inputs = task.read(box)
            if stage.name.startswith("merge-counts"):
                held.append(sum(len(record["labels"]) for record in inputs))
            task.write(box, task.compute(box, inputs))

    assert one.table.ranges == 8**3 // 4
    assert max(held) <= 3 * 4 * 8
    assert sum(len(table["labels"]) for table in one.bind(scopes).table.tables()) == voxels.size


def test_ten_million_blocks_take_a_tree_of_four():
    box = BoundingBox((0, 0, 0), (215 * 512, 215 * 512, 216 * 512))

    one = LabelCounts(BlockGrid(box, (512, 512, 512)), Scope("counts"))

    tasks = [groups * buckets for groups, buckets in one.table.levels[1:]]
    assert len(tasks) == 4
    assert max(tasks) <= 2 * len(one.grid) / 64


def test_no_two_stages_of_a_counting_pass_for_one():
    _, stages = counting(labels((6, 6, 6), 1), (1, 2, 2), fan_in=3)

    described = [str(list(describe_stages([stage]).values())) for stage in stages]

    assert len(set(described)) == len(stages) > 6


def test_counts_that_were_lost_are_noticed(tmp_path):
    stages = list(counting(labels((4, 4, 4), 2), (2, 4, 4))[1])
    whole = BlockGrid(stages[0].grid.box, (2, 4, 4))
    stages[0] = dataclasses.replace(stages[0], grid=BlockGrid(whole[0], (2, 4, 4)))

    with pytest.raises(JobError, match="records of counts"):
        run_here(stages, Scopes(str(tmp_path)))
