import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from daskflow.operators.segmentation.evaluate_segmentation import scores as module
from daskflow.operators.segmentation.evaluate_segmentation.scores import (
    by_segment,
    by_truth,
    overlaps,
    pair_sums,
    scores_of,
    size_sums,
    sum_of_products,
)

SMALL = npst.arrays(np.uint8, (2, 3, 4), elements=st.integers(0, 3))


def scores(rows):
    return scores_of(pair_sums(rows), size_sums(by_segment(rows)), size_sums(by_truth(rows)))


def score(segmentation, truth):
    return scores(overlaps(segmentation, truth))


@pytest.fixture
def few_voxels(monkeypatch):
    monkeypatch.setattr(module, "EDIT_THRESHOLD", 5)


def test_a_segmentation_equal_to_the_truth_is_perfect():
    truth = np.random.default_rng(0).integers(0, 5, (4, 8, 8))

    assert score(truth, truth) == {
        "rand_index": 1,
        "adjusted_rand_index": 1,
        "fowlkes_mallows_index": 1,
        "adapted_rand_error": 0,
        "variation_of_information": 0,
        "vi_split": 0,
        "vi_merge": 0,
        "rand_split": 1,
        "rand_merge": 1,
        "edit_merges": 0,
        "edit_splits": 0,
        "edit_distance": [0, 0],
    }


@pytest.mark.usefixtures("few_voxels")
def test_one_object_cut_in_half_is_a_split_of_one_bit():
    halves, one = np.ones((1, 4, 8), np.uint32), np.ones((1, 4, 8), np.uint32)
    halves[:, 2:] = 2

    cut = score(halves, one)
    assert cut["rand_index"] == pytest.approx(0.4838709677, abs=1e-10)
    assert cut["adjusted_rand_index"] == 0
    assert cut["fowlkes_mallows_index"] == pytest.approx(0.6956083436, abs=1e-10)
    assert (cut["vi_split"], cut["vi_merge"], cut["variation_of_information"]) == (1, 0, 1)
    assert (cut["edit_merges"], cut["edit_splits"], cut["edit_distance"]) == (0, 1, [0, 1])
    assert (cut["rand_split"], cut["rand_merge"]) == (0.5, 1)

    joined = score(one, halves)
    assert (joined["vi_split"], joined["vi_merge"]) == (0, 1)
    assert (joined["edit_merges"], joined["edit_splits"]) == (1, 0)
    assert (joined["rand_split"], joined["rand_merge"]) == (1, 0.5)


@pytest.mark.usefixtures("few_voxels")
def test_noise_against_noise_scores_as_chunkflow_does():
    rng = np.random.default_rng(42)
    truth = rng.integers(0, 4, (4, 8, 8))
    segmentation = rng.integers(0, 6, (4, 8, 8))

    found = score(segmentation, truth)

    assert found["rand_index"] == pytest.approx(0.6689338235294118, rel=1e-14)
    assert found["adjusted_rand_index"] == pytest.approx(0.002069159500779939, rel=1e-12)
    assert found["variation_of_information"] == pytest.approx(3.813995489330741, rel=1e-14)
    assert found["fowlkes_mallows_index"] == pytest.approx(0.20459610530206968, rel=1e-14)
    assert found["edit_merges"] == 10


@given(SMALL, SMALL)
def test_pair_scores_count_pairs_of_voxels(segmentation, truth):
    together = [
        (a[0] == b[0], a[1] == b[1])
        for a, b in itertools.combinations(zip(segmentation.ravel(), truth.ravel(), strict=True), 2)
    ]
    both, first = together.count((True, True)), together.count((True, False))
    second, none = together.count((False, True)), together.count((False, False))

    found = score(segmentation, truth)

    assert found["rand_index"] == pytest.approx((both + none) / len(together))
    if first or second:
        joined = (both + first) * (both + second)
        assert found["fowlkes_mallows_index"] == pytest.approx(both / math.sqrt(joined) if joined else 0)
    else:
        assert found["fowlkes_mallows_index"] == found["adjusted_rand_index"] == 1


@given(SMALL, SMALL)
def test_variation_of_information_is_that_of_the_foreground(segmentation, truth):
    both = (segmentation > 0) & (truth > 0)
    found = score(segmentation, truth)
    if not both.any():
        assert math.isnan(found["variation_of_information"])
        return

    def entropy(*arrays):
        counts = np.unique(np.stack([a[both] for a in arrays]), axis=1, return_counts=True)[1]
        return -float(np.sum(counts / counts.sum() * np.log2(counts / counts.sum())))

    assert found["vi_split"] == pytest.approx(entropy(segmentation, truth) - entropy(truth), abs=1e-12)
    assert found["vi_merge"] == pytest.approx(entropy(segmentation, truth) - entropy(segmentation), abs=1e-12)


@given(st.lists(st.tuples(*[st.integers(0, 2**63 - 1)] * 2), max_size=20))
def test_sums_of_products_are_exact_beyond_64_bits(values):
    one, other = np.array(values, np.int64).reshape(-1, 2).T

    assert sum_of_products(one, one) == sum(a * a for a, _ in values)
    assert sum_of_products(one, other) == sum(a * b for a, b in values)


def test_scores_of_a_petavoxel_do_not_overflow():
    half = 2**49
    found = scores({"segments": np.uint64([1, 2]), "truths": np.uint64([1, 1]), "counts": np.array([half, half])})

    assert found["rand_index"] == pytest.approx(0.5)
    assert found["vi_split"] == 1


@pytest.mark.parametrize(("least", "edits"), [(3, (1, 1)), (4, (0, 0))])
def test_small_overlaps_do_not_count_as_edits(monkeypatch, least, edits):
    monkeypatch.setattr(module, "EDIT_THRESHOLD", least)

    found = score(np.repeat([1, 1, 2], [10, 4, 10]), np.repeat([1, 2, 2], [10, 4, 10]))

    assert (found["edit_merges"], found["edit_splits"]) == edits


@pytest.mark.parametrize("shape", [(0,), (1,)])
def test_too_few_voxels_leave_nothing_to_tell_apart(shape):
    found = score(np.zeros(shape, int), np.zeros(shape, int))

    assert found["rand_index"] == found["adjusted_rand_index"] == found["fowlkes_mallows_index"] == 1
    assert math.isnan(found["vi_split"])
