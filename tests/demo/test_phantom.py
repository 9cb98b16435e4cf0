from __future__ import annotations

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.demo.phantom import close_gaps, draw_tubes, grow_territories, phantom, refine

SHAPE = (32, 64, 80)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.tuples(*[st.integers(16, 48)] * 3))
def test_labels_are_the_components_of_the_interior(seed, shape):
    image, labels = phantom(shape, seed=seed)
    assert image.shape == labels.shape == shape
    assert (image.dtype, labels.dtype) == (np.uint8, np.uint32)
    components, count = cc3d.connected_components(labels > 0, connectivity=6, return_N=True)
    assert labels.max() == count
    pairs = np.unique(np.stack([labels.ravel(), components.ravel()]), axis=1)
    assert pairs.shape[1] == count + bool((labels == 0).any())


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    image, labels = phantom(SHAPE, seed=5)
    again, same = phantom(SHAPE, seed=5)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, same)
    assert (phantom(SHAPE, seed=6)[0] != image).any()


def test_membranes_are_darker_than_interiors():
    image, labels = phantom(SHAPE, seed=1)
    assert 0.1 < (labels == 0).mean() < 0.5
    assert np.median(image[labels > 0]) > np.median(image[labels == 0]) + 40


def test_volume_is_densely_packed_with_many_objects():
    _, labels = phantom((48, 128, 128), seed=2)
    sizes = np.bincount(labels.ravel())[1:]
    assert (sizes > 500).sum() > 15
    assert sizes.max() < 0.3 * labels.size


def test_territories_of_different_tubes_never_touch_across_a_membrane():
    shape = (24, 40, 40)
    territories = grow_territories(draw_tubes((14, 22, 22), np.random.default_rng(3)))
    membrane = refine(np.zeros(territories.shape, np.float32), shape)
    close_gaps(membrane, territories)
    components = cc3d.connected_components(membrane < 0.5, connectivity=6)
    fine = territories[np.ix_(*[(np.arange(n) + 1) // 2 for n in shape])]
    inside = components > 0
    owners = np.unique(np.stack([components[inside], fine[inside]]), axis=1)[0]
    assert len(owners) == len(np.unique(owners)) > 1


def test_too_small_shape_is_refused_with_its_value():
    with pytest.raises(ValueError, match=r"\(8, 64, 64\)"):
        phantom((8, 64, 64))
