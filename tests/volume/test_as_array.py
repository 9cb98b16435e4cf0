"""Volumes as arrays: operators and functions of numpy, places in global voxels, xarray."""

from __future__ import annotations

import operator
import sys

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import BoundsError, GeometryError, MissingDependencyError, ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.volume import Volume

EXPRESSIONS = {
    "sum and number": lambda a, b: a + 3 * b - 1,
    "number first": lambda a, b: 200 - a // 2 + b % 5,
    "fraction": lambda a, b: 1 - a / np.float32(7) + b**2,
    "comparison": lambda a, b: (a > 9) & ~(b == a) | (b != 3),
    "functions": lambda a, b: np.maximum(np.sqrt(a), np.minimum(abs(-b), 30)),
    "mask": lambda a, b: a * (b > 20),
    "choice": lambda a, b: np.where(a > b, np.clip(a, 5, 30), -1),
}


def pair(channels=None, *, offset=(80, -5, 7), **spec):
    random = np.random.default_rng(0)
    lead = () if channels is None else (channels,)
    arrays = random.integers(0, 60, (*lead, 9, 7, 8)).astype(np.int16), random.integers(1, 60, (9, 7, 8), np.int32)
    return arrays, tuple(Volume.from_array(array, voxel_offset=offset, **spec) for array in arrays)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(EXPRESSIONS)), st.sampled_from([None, 1, 3]), st.tuples(*[st.integers(2, 9)] * 3))
def test_expression_of_volumes_gives_what_numpy_gives_of_arrays_in_any_blocks(name, channels, block):
    arrays, volumes = pair(channels)
    for order in (1, -1):
        expected = EXPRESSIONS[name](*arrays[::order])
        found = EXPRESSIONS[name](*(volume.with_block(block) for volume in volumes[::order]))
        assert isinstance(found, Volume)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found.compute(), expected)
        part = BoundingBox((82, -3, 8), (86, 1, 12))
        np.testing.assert_array_equal(found.read(part), expected[..., 2:6, 2:6, 1:5])


def test_nothing_is_read_before_it_is_asked():
    def never(box):
        raise AssertionError(box)

    spec = VolumeSpec(BoundingBox((0, 0, 0), (4, 4, 4)), np.uint8)
    volume = Volume.from_function(never, spec)
    lazy = np.sqrt(1 - volume) > volume
    assert isinstance(lazy, Volume)
    assert all(isinstance(one, da.Array) for one in (lazy[2], lazy.mean(), lazy.min(), lazy.max(), np.sum(volume)))
    others = (np.mean(volume), np.where(volume > 1, [0], volume), np.clip(volume, 1, None), np.stack([volume, volume]))
    assert all(isinstance(one, da.Array) for one in others)
    with pytest.raises(AssertionError):
        lazy.read()


@pytest.mark.parametrize(
    ("apply", "layer_type"),
    [
        (lambda image, labels: 255 - image, "image"),
        (lambda image, labels: image > 3, None),
        (lambda image, labels: (labels == 5) * image, "image"),
        (lambda image, labels: labels + 1, "segmentation"),
        (lambda image, labels: labels / 2, None),
        (lambda image, labels: image * labels, None),
    ],
)
def test_meaning_is_kept_where_the_result_still_has_it(apply, layer_type):
    (image, _), (_, labels) = pair(layer_type="image")[1], pair(layer_type="segmentation")[1]
    assert apply(image, labels).layer_type == layer_type


def test_volumes_that_do_not_match_are_refused():
    _, (first, second) = pair(2, voxel_size=(40, 4, 4))
    with pytest.raises(GeometryError, match=r"over 80-89.* and 81-89"):
        first + second[81:]
    with pytest.raises(GeometryError, match="40x4x4 nm and 40x8x8 nm"):
        first * pair(voxel_size=(40, 8, 8))[1][1]
    with pytest.raises(GeometryError, match="2 and 3 channels"):
        first + pair(3, voxel_size=(40, 4, 4))[1][0]
    with pytest.raises(OverflowError, match="300"):
        first.astype("uint8") + 300
    with pytest.raises(ParameterError, match="neither true nor false"):
        operator.truth(first == 0)


def test_with_arrays_the_result_is_a_dask_array():
    (array, _), (volume, _) = pair()
    for found in (volume + array, array + volume, da.asarray(array) + volume):
        assert isinstance(found, da.Array)
        np.testing.assert_array_equal(found.compute(), array + array)
    np.testing.assert_array_equal(np.add.reduce(volume), np.add.reduce(array))


def test_number_as_index_is_a_global_place_and_takes_the_axis_away():
    (array, _), (volume, _) = pair(3)
    assert isinstance(volume[80], da.Array)
    np.testing.assert_array_equal(volume[82].compute(), array[:, 2])
    np.testing.assert_array_equal(volume[82, -5:-2, 9].compute(), array[:, 2, :3, 2])
    np.testing.assert_array_equal(volume[80:82, np.int64(-4)].compute(), array[:, :2, 1])
    for outside in (0, -1, 89):
        with pytest.raises(BoundsError, match="outside"):
            volume[outside]
    with pytest.raises(GeometryError, match="at most three"):
        volume[80, 0, 8, 1]
    assert [one.shape for one in volume] == [one.shape for one in array]


def test_statistics_are_those_of_the_voxels():
    (array, _), (volume, _) = pair()
    assert volume.mean().compute() == array.mean()
    assert (volume.min().compute(), volume.max().compute()) == (array.min(), array.max())
    np.testing.assert_array_equal(volume.sum(axis=0).compute(), array.sum(axis=0))
    counts, edges = volume.astype("uint8").histogram()
    assert (edges[0], edges[-1], len(counts)) == (0, 256, 256)
    np.testing.assert_array_equal(counts.compute(), np.bincount(array.ravel(), minlength=256))
    assert volume.astype("float32").histogram(4, range=(0, 60))[0].compute().sum() == array.size
    with pytest.raises(ValueError, match="range"):
        volume.astype("float32").histogram()


def test_xarray_has_global_voxels_as_coordinates():
    pytest.importorskip("xarray")
    (array, _), _ = pair(3)
    volume = Volume.from_array(array, voxel_offset=(80, -5, 7), voxel_size=(40, 4, 4), channel_names=("z", "y", "x"))
    found = volume.to_xarray()
    assert isinstance(found.data, da.Array)
    np.testing.assert_array_equal(found.sel(c="y", z=82, x=slice(8, 9)).values, array[1, 2, :, 1:3])
    assert found.attrs == {"voxel_size": (40, 4, 4)}
    assert pair()[1][0].to_xarray().dims == ("z", "y", "x")


def test_missing_xarray_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(MissingDependencyError, match=r"daskflow\[xarray\]"):
        pair()[1][0].to_xarray()


def test_small_volume_has_blocks_for_all_cores():
    box = BoundingBox((0, 0, 0), (256, 256, 256))
    volume = Volume.from_function(np.zeros, VolumeSpec(box, np.uint8))
    assert 16 <= len(volume.grid) <= 64
    assert len(Volume.from_function(np.zeros, VolumeSpec(box, np.uint8, chunk=(256, 256, 256))).grid) == 1
