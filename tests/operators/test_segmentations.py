"""Objects that are left out or numbered, over the whole volume."""

import json

import numpy as np
import pytest

import daskflow
from daskflow.errors import ParameterError, StoreNotFoundError

SIZES = np.repeat(np.uint32([0, 1, 2, 3]), [6, 2, 3, 5]).reshape(1, 4, 4)


def labels(shape=(9, 14, 11), seed=0):
    return np.random.default_rng(seed).integers(0, 40, shape).astype(np.uint64) ** 8


@pytest.fixture(params=[(1, 1, 4), (3, 5, 4), (9, 14, 11)])
def block(request):
    return request.param


def test_dust_is_counted_over_the_whole_volume(block):
    kept = daskflow.mask_out_objects(daskflow.open(SIZES).with_block((1, 1, 1)), dust_size_threshold=2).read()
    np.testing.assert_array_equal(kept, np.where(SIZES == 1, 0, SIZES))
    array = labels()
    names, counts = np.unique(array, return_counts=True)
    most = int(np.median(counts))
    result = daskflow.mask_out_objects(daskflow.open(array).with_block(block), dust_size_threshold=most)
    expected = np.where(np.isin(array, names[counts > most]), array, 0)
    np.testing.assert_array_equal(result.data.compute(scheduler="synchronous"), expected)


def test_chosen_objects_are_kept(tmp_path):
    volume = daskflow.open(SIZES)
    (tmp_path / "ids.json").write_text(json.dumps([3, 1]))
    for said, kept in (("3", [3]), ("1, 3", [1, 3]), (str(tmp_path / "ids.json"), [1, 3])):
        result = daskflow.mask_out_objects(volume, selected_obj_ids=said).read()
        np.testing.assert_array_equal(result, np.where(np.isin(SIZES, kept), SIZES, 0))
    both = daskflow.mask_out_objects(volume, selected_obj_ids="1,3", dust_size_threshold=2).read()
    np.testing.assert_array_equal(both, np.where(SIZES == 3, 3, 0))
    with pytest.raises(StoreNotFoundError, match="neither labels"):
        daskflow.mask_out_objects(volume, selected_obj_ids="nowhere.json")
    with pytest.raises(ParameterError, match="give the largest size"):
        daskflow.mask_out_objects(volume)
    for content in ("[1.5]", "[true]", "[-1]", '{"1": 2}', "3", str([2**64]), "no"):
        (tmp_path / "ids.json").write_text(content)
        with pytest.raises(ParameterError, match=r"ids\.json"):
            daskflow.mask_out_objects(volume, selected_obj_ids=str(tmp_path / "ids.json"))
    with pytest.raises(ParameterError, match="2\\^64"):
        daskflow.mask_out_objects(volume, selected_obj_ids=f"1,{2**64}")


def test_labels_are_numbered_in_the_order_of_their_first_voxels(block):
    row = np.uint32([0, 10, 20, 10, 0, 0, 0, 0, 0, 7, 7, 99]).reshape(3, 1, 4)
    numbered = daskflow.remap_segmentation(daskflow.open(row).with_block((1, 1, 3)))
    assert numbered.read().ravel().tolist() == [0, 1, 2, 1, 0, 0, 0, 0, 0, 3, 3, 4]
    array = labels()
    names, first, numbers = np.unique(array.ravel(), return_index=True, return_inverse=True)
    ranks = np.empty(len(names), np.uint64)
    order = np.argsort(first[names != 0])
    ranks[np.flatnonzero(names != 0)[order]] = np.arange(len(order)) + 101
    ranks[names == 0] = 0
    volume = daskflow.open(array, voxel_offset=(-3, 8, 0)).with_block(block)
    result = daskflow.remap_segmentation(volume, base_id=100)
    assert result.dtype == np.uint64
    np.testing.assert_array_equal(result.data.compute(scheduler="synchronous"), ranks[numbers].reshape(array.shape))
    assert not daskflow.remap_segmentation(daskflow.open(np.zeros((2, 3, 4), np.uint8)), base_id=9).read().any()


def test_numbers_and_what_is_left_are_saved_by_one_job(tmp_path):
    volume = daskflow.open(labels(), voxel_size=(8, 8, 8)).with_block((3, 5, 11))
    left = daskflow.remap_segmentation(daskflow.mask_out_objects(volume, dust_size_threshold=30))
    assert left.save(tmp_path / "left").run(progress=False).ok
    np.testing.assert_array_equal(daskflow.open(tmp_path / "left").read(), left.read())


def test_axes_are_reversed_with_all_that_belongs_to_them():
    array = np.random.default_rng(0).random((2, 3, 4, 5))
    volume = daskflow.open(array, voxel_offset=(1, -2, 3), voxel_size=(40, 4, 8)).with_block((2, 4, 3))
    result = daskflow.transpose(volume)
    assert (result.box.start, result.voxel_size, result.block) == ((3, -2, 1), (8, 4, 40), (3, 4, 2))
    np.testing.assert_array_equal(result.data.compute(scheduler="synchronous"), np.swapaxes(array, 1, 3))
    np.testing.assert_array_equal(daskflow.transpose(result).read(), array)


def test_holes_of_one_object_are_filled_wherever_they_lie(block):
    array = np.zeros((9, 14, 11), np.uint16)
    array[:, :7] = 5
    array[:, 7:] = 9
    array[2:7, 2:5, 2:9] = 0  # a hole of 5, in which an object lies that does not touch it
    array[4, 3, 5] = 3
    array[1, 1, 1] = 0  # another
    array[5, 9, 0] = 0  # at the edge
    array[3, 6:8, 4] = 0  # between two objects
    array[7, 10, 8] = 0
    expected = array.copy()
    expected[1, 1, 1], expected[7, 10, 8] = 5, 9
    result = daskflow.fill_segmentation_holes(daskflow.open(array).with_block(block))
    np.testing.assert_array_equal(result.data.compute(scheduler="synchronous"), expected)
    array[4, 3, 5] = 0
    expected[2:7, 2:5, 2:9] = 5
    np.testing.assert_array_equal(daskflow.fill_segmentation_holes(daskflow.open(array)).read(), expected)


def test_statistics_are_reported():
    run = daskflow.statistics(daskflow.open(SIZES).with_block((1, 2, 2))).run(progress=False)
    assert run.results["statistics"] == {"minimum": 0, "maximum": 3, "objects": 3}
    image = daskflow.open(np.float32([[[[0.5, np.nan]]], [[[-2, 1]]]])).with_block((1, 1, 1))
    assert daskflow.statistics(image).run(progress=False).results["statistics"] == {"minimum": -2, "maximum": 1}


def test_labels_and_numbers_at_the_end_of_uint64_are_refused():
    volume = daskflow.open(np.full((3, 3, 3), 2**64 - 1, np.uint64))
    with pytest.raises(ParameterError, match="stands for the edge"):
        daskflow.fill_segmentation_holes(volume).read()
    with pytest.raises(ParameterError, match="below 2"):
        daskflow.remap_segmentation(volume, base_id=2**64 - 20)
