import tracemalloc

import numpy as np
import pytest

import daskflow
from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators.image.normalize_intensity import to_unit_range
from daskflow.operators.segmentation.threshold import above


def volume_of(array, **spec):
    return daskflow.open(np.asarray(array), **spec)


def test_threshold_marks_what_is_strictly_above():
    result = daskflow.threshold(volume_of(np.float32([[[0.5, 0.50001, 0.4]]])), threshold=0.5)
    assert (result.dtype, result.layer_type) == (np.uint8, "segmentation")
    assert result.read().tolist() == [[[0, 1, 0]]]


def test_threshold_squeezes_one_channel_and_refuses_two():
    assert daskflow.threshold(volume_of(np.ones((1, 2, 3, 4), np.float32))).shape == (2, 3, 4)
    with pytest.raises(ParameterError, match="has 2"):
        daskflow.threshold(volume_of(np.ones((2, 2, 3, 4), np.float32)))


def test_intensity_is_normalised_to_minus_one_to_one():
    result = daskflow.normalize_intensity(volume_of(np.uint8([[[0, 127, 255]]])))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.read(), [[[-1, -0.00392157, 1]]], atol=1e-7)
    with pytest.raises(ParameterError, match="uint16"):
        daskflow.normalize_intensity(volume_of(np.zeros((1, 1, 1), np.uint16)))


def test_gaussian_of_a_point_stays_in_its_section():
    image = np.zeros((3, 9, 9), np.float32)
    image[1, 4, 4] = 1
    blurred = daskflow.gaussian_filter(volume_of(image), sigma=1).read()
    assert blurred[1, 4, 4] == pytest.approx(0.15915589, abs=1e-4)
    assert blurred[1, 4, 5] == pytest.approx(0.096586324, abs=1e-4)
    assert not blurred[[0, 2]].any()


def test_gaussian_equals_scipy_on_the_whole_for_any_blocks():
    from scipy import ndimage

    image = np.random.default_rng(0).random((12, 40, 44)).astype(np.float32)
    expected = ndimage.gaussian_filter(image, (1, 2, 1.5), mode="reflect")
    for block in ((12, 40, 44), (5, 7, 11)):
        result = daskflow.gaussian_filter(volume_of(image).with_block(block), sigma=(1, 2, 1.5))
        np.testing.assert_allclose(result.data.compute(), expected, rtol=1e-5)


def test_gaussian_keeps_channels_apart_and_integers_round():
    image = np.zeros((2, 1, 9, 9), np.uint8)
    image[0, 0, 4, 4] = 200
    blurred = daskflow.gaussian_filter(volume_of(image), sigma=1).read()
    assert not blurred[1].any()
    assert blurred[0, 0, 4, 4] == round(200 * 0.15915589)


def test_gaussian_of_a_wrong_sigma_is_refused():
    for sigma in (-1, (1, 2), (1, 1, -1)):
        with pytest.raises(ParameterError, match="sigma"):
            daskflow.gaussian_filter(volume_of(np.zeros((4, 4, 4), np.uint8)), sigma=sigma)


def test_margin_is_cut_off_and_coordinates_stay():
    volume = volume_of(np.arange(4 * 6 * 8).reshape(4, 6, 8), voxel_offset=(10, 20, 30))
    inner = daskflow.crop_margin(volume, margin_size=(1, 2, 3, 0, 1, 2))
    assert inner.box.start == (11, 22, 33)
    np.testing.assert_array_equal(inner.read(), volume.read()[1:, 2:-1, 3:-2])
    for margin in ((2, 0, 0), (1, 2), (-1, 0, 0)):
        with pytest.raises(ParameterError, match="margin"):
            daskflow.crop_margin(volume, margin_size=margin)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "float32", "float64"])
@pytest.mark.parametrize("pattern", ["sin", "zero", "random"])
def test_created_chunk_is_the_same_in_any_box(dtype, pattern):
    volume = daskflow.create_chunk(size=(10, 70, 30), dtype=dtype, pattern=pattern, voxel_offset=(-5, 0, 5))
    whole = volume.read()
    assert (whole.dtype, whole.shape) == (np.dtype(dtype), (10, 70, 30))
    np.testing.assert_array_equal(volume[-2:3, 50:68, 10:20].read(), whole[3:8, 50:68, 5:15])
    assert whole.any() == (pattern != "zero")


def test_sine_pattern_is_as_documented():
    i, j, k = np.meshgrid(*[np.linspace(0, 1, n) for n in (4, 5, 6)], indexing="ij")
    expected = np.abs(np.sin(4 * (i + j + k)))
    np.testing.assert_array_equal(daskflow.create_chunk(size=(4, 5, 6)).read(), (expected * 255).astype(np.uint8))
    np.testing.assert_allclose(daskflow.create_chunk(size=(4, 5, 6), dtype="float64").read(), expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_memory_of_a_blur_is_foretold_within_a_factor_of_two(dtype):
    volume = daskflow.gaussian_filter(volume_of(np.ones((32, 160, 160), dtype)), sigma=(1, 2, 2))
    box = BoundingBox((4, 16, 16), (28, 144, 144))
    tracemalloc.start()
    try:
        volume.read(box)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.5 < peak / volume.expression.estimate([box]).memory < 2


class OnDevice(np.lib.mixins.NDArrayOperatorsMixin):
    """An array as cupy's: numpy's functions take it, and nothing makes a numpy array of it unasked."""

    def __init__(self, values):
        self.values = values
        self.shape, self.dtype = values.shape, values.dtype

    def __array__(self, *_, **__):
        raise TypeError("implicit conversion to a NumPy array")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        host = [one.values if isinstance(one, OnDevice) else one for one in inputs]
        return OnDevice(getattr(ufunc, method)(*host, **options))

    def reshape(self, shape):
        return OnDevice(self.values.reshape(shape))

    def view(self, dtype):
        return OnDevice(self.values.view(dtype))


@pytest.mark.parametrize(("function", "options"), [(to_unit_range, {}), (above, {"threshold": 100})])
def test_arrays_of_a_gpu_stay_there(function, options):
    array = np.random.default_rng(0).integers(0, 255, (2, 3, 4), dtype=np.uint8)
    result = function(OnDevice(array), **options)
    assert isinstance(result, OnDevice)
    np.testing.assert_array_equal(result.values, function(array, **options))
