import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import daskflow
from daskflow.errors import ParameterError


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_values_are_255_times_the_first_channel_truncated(values):
    affinities = np.stack([np.float32(values).reshape(1, 1, -1), np.ones((1, 1, len(values)), np.float32)])
    result = daskflow.quantize(daskflow.open(affinities, layer_type="affinity_map"))
    assert (result.dtype, result.channels, result.layer_type) == (np.uint8, None, "image")
    np.testing.assert_array_equal(result.read(), np.trunc(255 * affinities[0]).astype(np.uint8))


def test_another_channel_may_be_named():
    affinities = np.float32([0.2, 0.6]).reshape(2, 1, 1, 1)
    assert daskflow.quantize(daskflow.open(affinities), channel=1).read().item() == 153
    with pytest.raises(ParameterError, match="from 0 to 1"):
        daskflow.quantize(daskflow.open(affinities), channel=2)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_outside_are_clipped_and_nan_is_zero(dtype):
    values = np.array([[[-1, -0.0, 1.001, 7, np.nan, np.inf, -np.inf, 1]]], dtype)
    assert daskflow.quantize(daskflow.open(values)).read().tolist() == [[[0, 0, 255, 255, 0, 255, 0, 255]]]


def test_integers_are_refused():
    with pytest.raises(ParameterError, match="uint8; use astype"):
        daskflow.quantize(daskflow.open(np.zeros((1, 1, 1), np.uint8)))
