import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.geometry import BoundingBox
from daskflow.operators.segmentation.connected_components.blocks import first_indices, global_indices, label_block

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)


@given(SHAPES, st.integers(1, 4), st.sampled_from([6, 18, 26]), st.integers(0, 2**32 - 1))
def test_first_indices_are_those_of_a_plain_search(shape, values, connectivity, seed):
    voxels = np.random.default_rng(seed).integers(0, values + 1, shape).astype(np.uint32)
    labels, count = cc3d.connected_components(voxels, connectivity=connectivity, return_N=True)

    found = first_indices(labels, count)

    assert found.tolist() == [int(np.flatnonzero(labels == n + 1)[0]) for n in range(count)]


def test_global_indices_count_voxels_of_the_whole_volume():
    whole = BoundingBox((-2, 10, 5), (4, 20, 12))
    box = BoundingBox((0, 12, 6), (3, 15, 10))
    index = np.arange(whole.size).reshape(whole.shape)[box.slices(whole)]

    assert np.array_equal(global_indices(np.arange(box.size), box, whole), index.ravel())


def test_a_mask_one_voxel_thin_is_labelled():
    # cc3d 4.1.1 raises for bool arrays of this shape
    mask = np.zeros((7, 1, 1), bool)
    mask[::2] = True
    box = BoundingBox.from_size((0, 0, 0), mask.shape)

    labels, components = label_block(mask, box, box, 26)

    assert labels.ravel().tolist() == [1, 0, 2, 0, 3, 0, 4]
    assert components.firsts.tolist() == [0, 2, 4, 6]


def test_only_faces_with_a_neighbour_are_kept():
    whole = BoundingBox((0, 0, 0), (8, 4, 4))
    box = BoundingBox((4, 0, 0), (8, 4, 4))
    array = np.ones(box.shape, bool)

    assert set(label_block(array, box, whole, 6)[1].planes) == {(0, 0)}


@pytest.mark.parametrize(("many", "dtype"), [(2**16 - 1, np.uint16), (2**16, np.uint32)])
def test_labels_take_the_smallest_type_that_holds_them(many, dtype):
    array = np.zeros((1, 1, 2 * many), np.uint32)
    array[..., ::2] = 1
    box = BoundingBox.from_size((0, 0, 0), array.shape)

    labels, components = label_block(array, box, box, 6)

    assert labels.dtype == dtype
    assert components.count == labels.max() == many


def test_a_block_without_foreground_has_no_component():
    box = BoundingBox.from_size((0, 0, 0), (3, 4, 5))

    labels, components = label_block(np.zeros(box.shape, np.uint64), box, box, 6)

    assert not labels.any()
    assert components.count == 0


def test_labels_of_64_bits_one_voxel_thin_are_labelled_and_keep_their_values():
    # cc3d 4.1.1 raises for uint64 arrays of this shape
    voxels = np.array([2**64 - 1, 2**64 - 1, 0, 2**63], np.uint64).reshape(1, 4, 1)
    box = BoundingBox.from_size((0, 0, 0), voxels.shape)

    labels, components = label_block(voxels, box, box, 6)

    assert labels.ravel().tolist() == [1, 1, 0, 2]
    assert components.values.tolist() == [2**64 - 1, 2**63]
