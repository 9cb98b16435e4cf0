"""The labels of a block are dealt out to tasks, each to one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.operators.objects.skeletonize.plan import share_count, share_labels


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_every_label_is_dealt_once(number, most, seed):
    random = np.random.default_rng(seed)
    voxels = random.integers(0, most + 1, (4, 5, 6)).astype(np.uint64) * np.uint64(2**59)
    labels = np.unique(voxels[voxels > 0])[::2]
    shares = share_labels(voxels, labels, number)
    assert len(shares) == number
    assert all((np.diff(share.astype(object)) > 0).all() for share in shares)
    np.testing.assert_array_equal(np.sort(np.concatenate(shares)), labels)


def test_the_label_with_most_work_is_alone_in_the_place_that_runs_first():
    voxels = np.zeros((10, 10, 40), np.uint8)
    voxels[:8] = 200
    voxels[8], voxels[9, :5], voxels[9, 5:] = 1, 2, 3
    shares = share_labels(voxels, np.array([1, 2, 3, 200], np.uint64), 2)
    assert [share.tolist() for share in shares] == [[1, 2, 3], [200]]


def test_what_is_thin_is_more_work_than_what_is_thick():
    voxels = np.zeros((10, 100, 100), np.uint16)
    voxels[:5] = 1
    voxels[5:, :, ::4] = 2
    shares = share_labels(voxels, np.array([1, 2], np.uint64), 3)
    assert [share.tolist() for share in shares] == [[], [2], [1]]


def test_masks_have_one_label():
    assert share_labels(np.ones((2, 2, 2), bool), np.array([1], np.uint64), 2)[1].tolist() == [1]


@pytest.mark.parametrize(("blocks", "tasks"), [(1, 8), (2, 8), (3, 6), (8, 2), (16, 1), (10**6, 1)])
def test_few_blocks_have_several_tasks_each(blocks, tasks):
    assert share_count(blocks) == tasks
