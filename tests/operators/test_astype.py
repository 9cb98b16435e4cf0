import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import daskflow
from daskflow.errors import ParameterError
from daskflow.operators.image.astype import cast_within

INTEGERS = st.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
DTYPES = INTEGERS | st.sampled_from(["float16", "float32", "float64"])
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, (2, 2, 3)))


def holds(value, dtype):
    """Whether an integer dtype holds a number once its fraction is dropped; in Python's unbounded integers."""
    limits = np.iinfo(dtype)
    return np.isfinite(value) and int(limits.min) <= int(value) <= int(limits.max)


@given(ARRAYS, INTEGERS)
def test_integers_are_cast_as_by_numpy_or_refused(array, dtype):
    if all(holds(value, dtype) for value in array.ravel()):
        result = cast_within(array, dtype, clip=False, exact=False)
        assert result.dtype == dtype
        assert [int(value) for value in result.ravel()] == [int(value) for value in array.ravel()]
    else:
        with pytest.raises(ParameterError, match="cannot be held"):
            cast_within(array, dtype, clip=False, exact=False)


@given(ARRAYS, INTEGERS)
def test_clipped_values_are_the_nearest(array, dtype):
    limits = np.iinfo(dtype)
    result = cast_within(array, dtype, clip=True, exact=False)
    for value, got in zip(array.ravel(), result.ravel(), strict=True):
        if np.isnan(value):
            assert got == 0
        elif np.isinf(value) or not holds(value, dtype):
            nearest = limits.min if value < 0 else limits.max
            # the largest integer may lie between two floats
            assert abs(int(got) - int(nearest)) <= abs(int(nearest)) * float(np.finfo(np.float32).eps)
        else:
            assert int(got) == int(value)


def test_labels_beyond_the_dtype_fail_while_they_are_computed_and_are_named(tmp_path, threads):
    labels = np.full((2, 2, 2), 2**32 + 7, np.uint64)
    volume = daskflow.open(labels, layer_type="segmentation")
    with pytest.raises(ParameterError, match="4294967303 cannot be held as uint32"):
        daskflow.astype(volume, dtype="uint32").read()
    report = daskflow.astype(volume, dtype="uint32").save(tmp_path / "labels").run(threads, progress=False, retries=0)
    assert not report.ok
    assert "4294967303" in str(report.failures)
    assert (daskflow.astype(volume, dtype="uint32", overflow="wrap").read() == 7).all()


def test_labels_never_become_other_labels_on_the_way_to_floats():
    volume = daskflow.open(np.full((1, 1, 1), 2**24 + 1, np.uint32), layer_type="segmentation")
    with pytest.raises(ParameterError, match="label 16777217"):
        daskflow.astype(volume, dtype="float32").read()
    assert daskflow.astype(volume, dtype="float64").read()[0, 0, 0] == 2**24 + 1
    image = daskflow.open(np.full((1, 1, 1), 2**24 + 1, np.uint32), layer_type="image")
    assert daskflow.astype(image, dtype="float32").read()[0, 0, 0] == 2**24


def test_floats_that_are_no_numbers_stay_so_in_floats_and_are_refused_for_integers():
    volume = daskflow.open(np.float64([[[np.nan, np.inf, 1.9, -1.9]]]))
    np.testing.assert_array_equal(
        daskflow.astype(volume, dtype="float32").read(), np.float32([[[np.nan, np.inf, 1.9, -1.9]]])
    )
    with pytest.raises(ParameterError, match="nan cannot be held"):
        daskflow.astype(volume, dtype="uint8").read()
    clipped = daskflow.astype(volume, dtype="uint8", overflow="clip").read()
    assert clipped.tolist() == [[[0, 255, 1, 0]]]


def test_float_beyond_the_range_of_a_narrower_one_is_refused_or_clipped():
    volume = daskflow.open(np.float64([[[1e300, -1e300, np.nan]]]))
    with pytest.raises(ParameterError, match="1e\\+300 cannot be held"):
        daskflow.astype(volume, dtype="float32").read()
    largest = np.finfo(np.float32).max
    clipped = daskflow.astype(volume, dtype="float32", overflow="clip").read()
    np.testing.assert_array_equal(clipped, np.float32([[[largest, -largest, np.nan]]]))


def test_unknown_dtypes_and_policies_are_refused():
    volume = daskflow.open(np.zeros((1, 1, 1), np.uint8))
    for dtype in ("uint7", "complex64", "datetime64[ns]"):
        with pytest.raises(ParameterError, match="dtype"):
            daskflow.astype(volume, dtype=dtype)
    with pytest.raises(ParameterError, match="error, clip, wrap"):
        daskflow.astype(volume, dtype="uint8", overflow="saturate")


def test_floats_between_0_and_1_are_scaled_to_bytes_and_back_or_refused():
    values = np.array([0, 0.2, 0.999, 1], np.float32).reshape(1, 1, 4)
    bytes_ = daskflow.astype(daskflow.open(values), dtype="uint8", unit_range=True).read()
    assert bytes_.ravel().tolist() == [0, 51, 254, 255]
    back = daskflow.astype(daskflow.open(bytes_), dtype="float32", unit_range=True).read()
    np.testing.assert_array_equal(back, bytes_ / np.float32(255))
    for bad in (-0.1, 1.1, np.nan):
        wrong = daskflow.open(np.full((1, 1, 1), bad, np.float32))
        with pytest.raises(ParameterError, match="between 0 and 1"):
            daskflow.astype(wrong, dtype="uint8", unit_range=True).read()
        clipped = daskflow.astype(wrong, dtype="uint8", unit_range=True, overflow="clip").read()
        assert clipped.item() == (255 if bad > 1 else 0)
    others = daskflow.astype(daskflow.open(values), dtype="uint16", unit_range=True)
    assert others.read().ravel().tolist() == [0, 0, 0, 1]


def test_integers_beyond_a_float_are_refused_or_clipped():
    volume = daskflow.open(np.array([[[1, 65535]]], np.uint16))
    with pytest.raises(ParameterError, match="65535 cannot be held as float16"):
        daskflow.astype(volume, dtype="float16").read()
    assert daskflow.astype(volume, dtype="float16", overflow="clip").read().max() == 65504
