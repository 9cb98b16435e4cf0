"""Downsampled arrays are what a loop over windows gives, however they are cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import GeometryError, ParameterError
from daskflow.operators.stores.downsample.kernels import METHODS, Carried, Downsampling

FACTORS = [(1, 2, 2), (2, 2, 2), (2, 2, 1), (1, 1, 2), (3, 1, 2), (1, 4, 4), (1, 3, 3)]
DTYPES = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "float32", "float64"]


def windows(shape, factor):
    """Corners and slices of every window, z slowest."""
    axes = [[slice(i, min(i + f, n)) for i in range(0, n, f)] for n, f in zip(shape, factor, strict=True)]
    return [axes[0], axes[1], axes[2]]


def reference(array, factor, level, method, *, sparse=False):
    """Level `level` of an array zyx, window by window."""
    if method == "mean" and array.dtype.kind != "f":
        total = tuple(f**level for f in factor)
        return each(array, total, lambda w: mean_of(w, sparse))
    if method == "mean" and sparse:
        counts = (array != 0).astype(np.int64)
        for _ in range(level):
            weighted = each(array.astype(np.float64) * counts, factor, np.sum, np.float64)
            counts = each(counts, factor, np.sum)
            array = (weighted / np.maximum(counts, 1)).astype(array.dtype)
        return array
    if method == "mean":
        counts = np.ones(array.shape)
        for _ in range(level):
            weighted = each(array.astype(np.float64) * counts, factor, np.sum, np.float64)
            counts = each(counts, factor, np.sum)
            array = (weighted / counts).astype(array.dtype)
        return array
    functions = {"min": np.min, "max": np.max, "stride": lambda w: w.flat[0], "mode": lambda w: mode_of(w, sparse)}
    for _ in range(level):
        array = each(array, factor, functions[method])
    return array


def each(array, factor, function, dtype=None):
    z, y, x = windows(array.shape, factor)
    out = np.empty((len(z), len(y), len(x)), dtype or array.dtype)
    for (i, a), (j, b), (k, c) in itertools.product(enumerate(z), enumerate(y), enumerate(x)):
        out[i, j, k] = function(array[a, b, c])
    return out


def mean_of(window, sparse):
    values = [int(v) for v in window.flat if v or not sparse]
    return sum(values) // max(1, len(values))


def mode_of(window, sparse):
    """The rules as the page states them."""
    labels = [int(v) for v in window.flat]
    if sparse and any(labels):
        counted = [v for v in labels if v]
    else:
        counted = labels
    most = max(map(counted.count, counted))
    best = [v for v in counted if counted.count(v) == most]
    if window.shape == (1, 2, 2):
        a, c, b, d = labels
        if sparse and most == 1 and any(labels):
            return next(v for v in (d, a, b, c) if v)
        if most == 1:
            return d
        if len(set(best)) == 2:
            return b if b == c else a
    return best[0]


def coarse(array, factor, levels, method, *, sparse=False):
    return Downsampling(factor, method, sparse).run(Carried(array), levels, dtype=array.dtype)[0]


def arrays(dtype, shape, seed, few=False):
    random = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if few:
        return random.integers(0, 4, shape).astype(dtype)
    if dtype.kind == "f":
        values = (random.random(shape) * 100).astype(dtype)
        values[random.random(shape) < 0.3] = 0
        return values
    info = np.iinfo(dtype)
    values = random.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    values[random.random(shape) < 0.3] = 0
    return values


shapes = st.tuples(st.integers(1, 7), st.integers(1, 23), st.integers(1, 23))


@given(shapes, st.sampled_from(FACTORS), st.integers(1, 3), st.sampled_from(DTYPES), st.booleans(), st.integers(0, 99))
def test_means_are_those_of_every_window_at_odd_edges_too(shape, factor, levels, dtype, sparse, seed):
    if dtype == "uint64":
        dtype = "uint32"
    array = arrays(dtype, shape, seed)
    for level, found in enumerate(coarse(array, factor, levels, "mean", sparse=sparse), start=1):
        wanted = reference(array, factor, level, "mean", sparse=sparse)
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
        else:
            np.testing.assert_array_equal(found, wanted)


@given(shapes, st.sampled_from(FACTORS), st.integers(1, 3), st.sampled_from(DTYPES), st.booleans(), st.integers(0, 99))
def test_modes_follow_the_rules_that_the_page_states(shape, factor, levels, dtype, sparse, seed):
    array = arrays(dtype, shape, seed, few=True)
    for level, found in enumerate(coarse(array, factor, levels, "mode", sparse=sparse), start=1):
        np.testing.assert_array_equal(found, reference(array, factor, level, "mode", sparse=sparse))


@given(shapes, st.sampled_from(FACTORS), st.integers(1, 2), st.sampled_from(METHODS[2:]), st.integers(0, 9))
def test_minimum_maximum_and_stride_are_those_of_every_window(shape, factor, levels, method, seed):
    array = arrays("int16", shape, seed)
    for level, found in enumerate(coarse(array, factor, levels, method), start=1):
        np.testing.assert_array_equal(found, reference(array, factor, level, method))


@given(
    shapes,
    st.sampled_from(FACTORS),
    st.sampled_from(METHODS),
    st.booleans(),
    st.sampled_from(DTYPES),
    st.integers(0, 99),
)
def test_levels_made_one_by_one_from_what_is_carried_are_those_made_at_once(shape, factor, method, sparse, dtype, seed):
    if method == "mean" and dtype == "uint64":
        dtype = "uint16"
    sparse = sparse and method in ("mean", "mode")
    array = arrays(dtype, shape, seed, few=method == "mode")
    how = Downsampling(factor, method, sparse)
    together, _ = how.run(Carried(array), 3, dtype=array.dtype)
    carried = Carried(array)
    for level, whole in enumerate(together):
        (one,), carried = how.run(carried, 1, done=level, finest=shape, dtype=array.dtype)
        np.testing.assert_array_equal(one, whole)


def test_the_mean_of_a_constant_is_that_constant_at_odd_edges():
    for found in coarse(np.full((32, 301, 301), 100, np.uint8), (1, 2, 2), 3, "mean"):
        assert (found == 100).all()


def test_channels_are_downsampled_each_for_itself():
    array = arrays("uint8", (3, 4, 9, 10), 0)
    (found,) = coarse(array, (1, 2, 2), 1, "mean")
    for channel in range(3):
        np.testing.assert_array_equal(found[channel], coarse(array[channel], (1, 2, 2), 1, "mean")[0])


def test_exact_sums_make_the_second_level_the_floor_of_sixteen():
    array = np.zeros((1, 4, 4), np.uint8)
    array[0, ::2, ::2] = 3  # each window of four has 3 / 4 -> 0, and sixteen voxels have 12 / 16 -> 0, plus
    array[0, 0, 1] = 4  # 4: floors of floors would give (1 + 0 + 0 + 0) // 4 = 0 instead of 16 / 16 = 1
    assert coarse(array, (1, 2, 2), 2, "mean")[1].item() == 1


@pytest.mark.parametrize(
    ("window", "sparse", "wanted"),
    [
        ([1, 1, 2, 2], False, 1),
        ([1, 2, 1, 2], False, 1),
        ([1, 2, 2, 1], False, 2),
        ([1, 2, 3, 4], False, 4),
        ([5, 6, 6, 6], False, 6),
        ([0, 0, 0, 5], True, 5),
        ([0, 5, 0, 6], True, 6),
        ([0, 5, 6, 0], True, 5),
        ([7, 5, 6, 0], True, 7),
        ([0, 0, 0, 0], True, 0),
    ],
)
def test_ties_of_labels_end_as_in_igneous(window, sparse, wanted):
    p00, p01, p10, p11 = window  # x0y0, x0y1, x1y0, x1y1
    array = np.array([[[p00, p10], [p01, p11]]], np.uint64)
    assert coarse(array, (1, 2, 2), 1, "mode", sparse=sparse)[0].item() == wanted


@pytest.mark.parametrize(("window", "wanted"), [([0, 0, 0, 8], 8), ([0, 0, 7, 8], 7), ([0, 0, 0, 0], 0)])
def test_sparse_means_leave_zeros_out(window, wanted):
    array = np.array(window, np.uint8).reshape(1, 2, 2)
    assert coarse(array, (1, 2, 2), 1, "mean", sparse=True)[0].item() == wanted


def test_labels_beyond_32_bits_keep_all_their_bits():
    array = np.array([[[2**40 + 1, 1], [1, 2**40 + 1]]], np.uint64)
    assert coarse(array, (1, 2, 2), 1, "mode")[0].item() == 1
    assert coarse(array, (1, 1, 2), 1, "mode")[0].ravel().tolist() == [2**40 + 1, 1]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_stays_in_its_window(value):
    array = np.ones((1, 4, 4), np.float32)
    array[0, 0, 0] = value
    (found,) = coarse(array, (1, 2, 2), 1, "mean")
    assert np.isfinite(found).sum() == 3


def test_what_cannot_be_downsampled_is_refused():
    with pytest.raises(GeometryError, match="more on one"):
        Downsampling((1, 1, 1), "mean")
    with pytest.raises(ParameterError, match="sparse"):
        Downsampling((1, 2, 2), "max", sparse=True)
    with pytest.raises(ParameterError, match="mode"):
        Downsampling((1, 2, 2), "mean").check(np.dtype(np.uint64))
    with pytest.raises(ParameterError, match="median"):
        Downsampling((1, 2, 2), "median")
