import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import ParameterError
from daskflow.operators.segmentation import voxel_counts as module
from daskflow.operators.segmentation.voxel_counts import add_tables, count_labels

LABELS = st.lists(st.sampled_from([0, 1, 2, 3, 7, 2**31, 2**63, 2**64 - 1]), min_size=0, max_size=60)


@given(LABELS, st.integers(1, 9))
def test_counts_are_those_of_numpy_whatever_the_range(labels, tile):
    array = np.array(labels, np.uint64)
    before = module._TILE
    module._TILE = tile
    try:
        found, counts = count_labels(array)
    finally:
        module._TILE = before

    expected, times = np.unique(array, return_counts=True)
    assert found.dtype == np.uint64
    assert np.array_equal(found, expected)
    assert np.array_equal(counts, times)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_any_integers_that_nobody_may_change_are_counted(dtype):
    array = (np.random.default_rng(0).random((5, 6, 7)) * 3).astype(dtype)
    array.flags.writeable = False

    found, counts = count_labels(array)

    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == {
        int(label): int(n) for label, n in zip(*np.unique(array, return_counts=True), strict=True)
    }


@pytest.mark.parametrize("labels", [[1, -3], [2**40, -3, 5], [-3] * 50 + [2**30]])
def test_negative_labels_are_refused(labels):
    with pytest.raises(ParameterError, match="-3"):
        count_labels(np.array(labels, np.int64))


def test_a_far_label_among_many_near_ones_is_counted():
    array = np.ones(5001, np.uint64)
    array[4] = 2**64 - 1

    labels, counts = count_labels(array)

    assert (labels.tolist(), counts.tolist()) == ([1, 2**64 - 1], [5000, 1])


@given(st.lists(LABELS, max_size=4))
def test_tables_of_parts_add_up(parts):
    arrays = [np.array(part, np.uint64) for part in parts]
    whole = np.concatenate([np.empty(0, np.uint64), *arrays])

    labels, counts = add_tables([count_labels(array) for array in arrays])

    assert np.array_equal(labels, np.unique(whole))
    assert counts.sum() == whole.size
