import itertools

import numpy as np
import pytest
import torch
from chunkflow_weights import bump
from hypothesis import given
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map

from daskflow.inference.bumps import Shares, share

sizes = st.tuples(*[st.integers(1, 9)] * 3)


def inner_share(patch, overlap):
    """The share of a patch far from the volume's ends: chunkflow's patch mask."""
    neighbours = []
    for size, lap in zip(patch, overlap, strict=True):
        stride = size - lap
        reach = (size - 1) // stride * stride
        neighbours.append(tuple(range(-reach, reach + 1, stride)))
    return share(patch, tuple(neighbours))


def test_reference_bump_has_chunkflows_values():
    b = bump((20, 256, 256))
    assert b.min() == pytest.approx(1, rel=1e-9)
    assert b.max() == pytest.approx(1e6, rel=1e-9)
    assert b[0, 128, 128] == pytest.approx(10996.949813835712, rel=1e-9)
    assert b[10, 128, 64] == pytest.approx(723914.9012273124, rel=1e-9)


def test_two_patches_share_by_chunkflows_bump():
    apart = share((20, 256, 256), ((0, 10), (0,), (0,)))
    # the other patch's first section falls on the tenth: bumps of 10996.95 and 1e6 in its middle
    assert 1 / apart[10, 128, 128] - 1 == pytest.approx(10996.949813835712 / 1e6, rel=1e-5)


def test_inner_share_is_chunkflows_patch_mask():
    mask = inner_share((20, 256, 256), (4, 64, 64))
    assert mask.dtype == np.float32
    assert mask.max() == 1
    expected = {
        (0, 0, 0): 3.5693838e-06,
        (10, 0, 128): 1.4004462e-06,
        (0, 128, 128): 0.02001437,
        (10, 128, 30): 0.4553568,
        (10, 128, 32): 0.5148876,
        (10, 10, 10): 1.0256813e-04,
    }
    for at, value in expected.items():
        assert mask[at] == pytest.approx(value, rel=1e-6)
    assert mask.min() == pytest.approx(1.4004462e-06, rel=1e-6)


def test_shares_are_exactly_one_where_no_patch_overlaps():
    assert (inner_share((4, 16, 16), (0, 0, 0)) == 1).all()
    assert (inner_share((20, 64, 64), (4, 16, 16))[4:-4, 16:-16, 16:-16] == 1).all()


def test_inner_shares_add_up_to_one_on_a_lattice():
    patch, overlap = (6, 10, 9), (2, 5, 7)
    mask = inner_share(patch, overlap)
    stride = [p - v for p, v in zip(patch, overlap, strict=True)]
    total = np.zeros([s * 8 + p for s, p in zip(stride, patch, strict=True)])
    for at in itertools.product(range(9), repeat=3):
        corner = [i * s for i, s in zip(at, stride, strict=True)]
        total[tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))] += mask
    inner = tuple(slice(p, -p) for p in patch)
    np.testing.assert_allclose(total[inner], 1, atol=1e-6)


@given(sizes, st.data())
def test_share_is_the_bump_over_the_sum_of_all_that_overlap(patch, data):
    neighbours = tuple(tuple(sorted({0, *data.draw(st.lists(st.integers(1 - n, n - 1), max_size=5))})) for n in patch)
    b = bump(patch)
    total = np.zeros(patch)
    for offsets in itertools.product(*neighbours):
        into = tuple(slice(max(0, d), n + min(0, d)) for d, n in zip(offsets, patch, strict=True))
        out_of = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(offsets, patch, strict=True))
        total[into] += b[out_of]
    np.testing.assert_allclose(share(patch, neighbours), b / total, rtol=2e-6)


def zung(patch):
    """Its logarithm, since float64 does not hold the bump of a great patch."""
    x, y, z = np.meshgrid(*[(np.arange(n) + 1) / (n + 1) for n in patch], indexing="ij")
    return -sum((v * (1 - v)) ** -1.5 for v in (x, y, z))


@pytest.mark.parametrize("bump_name", ["zung", "gaussian"])
@given(patch=sizes, data=st.data())
def test_shares_of_other_bumps_are_theirs_over_the_sum_too(bump_name, patch, data):
    neighbours = tuple(tuple(sorted({0, *data.draw(st.lists(st.integers(1 - n, n - 1), max_size=4))})) for n in patch)
    bumps = compute_importance_map(patch, "gaussian", dtype=torch.float64).numpy()
    if bump_name == "zung":
        bumps = np.exp(zung(patch))
    total = np.zeros(patch)
    for offsets in itertools.product(*neighbours):
        into = tuple(slice(max(0, d), n + min(0, d)) for d, n in zip(offsets, patch, strict=True))
        out_of = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(offsets, patch, strict=True))
        total[into] += bumps[out_of]
    np.testing.assert_allclose(share(patch, neighbours, bump_name), bumps / total, rtol=1e-5)


def test_zung_shares_are_finite_where_the_bumps_themselves_vanish():
    patch = (20, 256, 256)
    alone, corner = share(patch, ((0,), (0,), (0,)), "zung"), share(patch, ((0, 16), (0, 192), (0, 192)), "zung")
    assert (alone == 1).all()
    logits = zung(patch)
    assert np.exp(logits[19, 255, 255]) == 0
    apart = 1 / (1 + np.exp(logits[1, 128, 128] - logits[17, 128, 128]))
    assert corner[17, 128, 128] == pytest.approx(apart, rel=1e-5)


def test_shares_are_kept_up_to_the_limit_and_least_recently_used_ones_dropped():
    made = []
    alone = ((0,), (0,), (0,))
    left, right = ((0,), (0,), (-2, 0)), ((0,), (0,), (0, 2))

    def convert(array):
        made.append(array)
        return array

    shares = Shares((2, 3, 4), "wu", convert, limit=2 * 24 * 4)
    assert shares(alone) is shares(alone)
    shares(left)
    shares(alone)
    shares(right)
    assert len(made) == 3
    shares(alone)
    assert len(made) == 3
    shares(left)
    assert len(made) == 4
    np.testing.assert_array_equal(made[3], share((2, 3, 4), left))
