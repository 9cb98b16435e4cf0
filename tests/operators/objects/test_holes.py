import itertools

import numpy as np
import pytest
from scipy.ndimage import binary_closing, binary_fill_holes

from daskflow.errors import ParameterError
from daskflow.operators.objects._holes import check_level, without_holes


def filled(array, level):
    """One label without holes, which is alone."""
    (one,) = without_holes(array, level)
    return one


@pytest.fixture
def cup():
    """A box at the upper side of a volume, with a cavity that is open there, one inside, and one with a small mouth."""
    array = np.zeros((20, 20, 30), np.uint8)
    array[0:15, 3:17, 3:27] = 1
    array[0:6, 6:10, 6:10] = 0
    array[8:11, 8:11, 14:17] = 0
    array[5:9, 8:12, 20:24] = 0
    array[2:5, 9, 21] = 0  # the mouth
    array[0:2, 9, 21] = 0
    return array


def test_each_level_fills_more(cup):
    open_to_a_side, inside, mouth = (slice(0, 6), 8, 8), (9, 9, 15), (7, 10, 22)
    at = {level: filled(cup, level) for level in (1, 2, 3)}
    for level, voxels in at.items():
        assert voxels[inside] == 1
        assert (voxels[open_to_a_side] == int(level > 1)).all(), level
        assert voxels[mouth] == int(level > 1), level
        assert (voxels >= cup).all()
    assert not at[3][15:].any()  # nothing grows


def test_closing_fills_what_is_nearly_enclosed_and_leaves_surfaces_where_they_are():
    array = np.zeros((16, 16, 16), np.uint8)
    array[3:13, 3:13, 3:13] = 5
    array[6:10, 6:10, 6:10] = 0
    array[2:6, 8, 8] = 0  # a mouth of one voxel, away from the sides
    box = np.zeros_like(array)
    box[3:13, 3:13, 3:13] = 5
    np.testing.assert_array_equal(filled(array, 2), array)
    np.testing.assert_array_equal(filled(array, 3), box)


@pytest.mark.parametrize("seed", range(3))
def test_levels_are_those_of_scipy_away_from_the_sides(seed):
    random = np.random.default_rng(seed)
    array = np.zeros((20, 21, 22), np.uint8)
    array[4:-4, 4:-4, 4:-4] = random.random((12, 13, 14)) < 0.6
    mask = array > 0
    np.testing.assert_array_equal(filled(array, 1) > 0, binary_fill_holes(mask))
    grown = np.ones((3, 3, 3), bool)
    closed = binary_closing(mask, grown)
    assert ((filled(array, 3) > 0) >= closed).all()
    assert not filled(closed.astype(np.uint8), 3)[~binary_fill_holes(closed)].any()


def test_no_label_is_lost_and_each_is_filled_as_if_it_were_alone():
    random = np.random.default_rng(0)
    array = np.repeat(np.repeat(random.integers(0, 5, (5, 6, 7), np.uint8), 3, 1), 2, 2)
    for level in (1, 2, 3):
        arrays = list(without_holes(array, level))
        for label in range(1, 5):
            (found,) = [one == label for one in arrays if (one == label).any()]
            np.testing.assert_array_equal(found, filled((array == label).astype(np.uint8), level) > 0)
        for one, other in itertools.combinations(arrays, 2):
            assert not set(np.unique(one)) & set(np.unique(other)) - {0}


@pytest.mark.parametrize("level", [-1, 4])
def test_other_levels_are_refused(level):
    with pytest.raises(ParameterError, match="must be 0 to 3"):
        check_level(level)
