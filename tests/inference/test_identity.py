import numpy as np
import pytest

from daskflow.errors import ModelError
from daskflow.inference.engine import IdentityEngine
from daskflow.inference.network import Network


def test_it_crops_to_the_output_patch_and_repeats_the_channel():
    engine = IdentityEngine(Network("identity", (4, 6, 6), (2, 3, 6), channels=3))
    patches = np.random.default_rng(0).random((2, 1, 4, 6, 6), np.float32)
    outputs = engine(patches)
    assert outputs.shape == (2, 3, 2, 3, 6)
    for channel in range(3):
        np.testing.assert_array_equal(outputs[:, channel], patches[:, 0, 1:3, 1:4])


def test_channels_that_cannot_be_repeated_are_refused():
    with pytest.raises(ModelError, match="3 channels from 2"):
        IdentityEngine(Network("identity", (4, 4, 4), (4, 4, 4), channels=3, input_channels=2))
