import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskflow
from daskflow.errors import ParameterError

IMAGE = np.random.default_rng(0).random((4, 3, 5, 6)).astype(np.float32)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), min_size=2, unique=True))
def test_channels_come_in_the_order_asked_for(channels):
    picked = daskflow.pick_channels(daskflow.open(IMAGE).with_block(2), channels=channels)
    np.testing.assert_array_equal(picked.data.compute(scheduler="synchronous"), IMAGE[channels])


def test_one_channel_has_no_channel_axis():
    picked = daskflow.pick_channels(daskflow.open(IMAGE), channels=[2])
    assert picked.channels is None
    np.testing.assert_array_equal(picked.read(), IMAGE[2])
    flat = daskflow.open(IMAGE[0])
    np.testing.assert_array_equal(daskflow.pick_channels(flat, channels=[0]).read(), IMAGE[0])


def test_names_go_with_their_channels():
    volume = daskflow.Volume.from_array(IMAGE, channel_names=("a", "b", "c", "d"))
    assert daskflow.pick_channels(volume, channels=(3, 0)).channel_names == ("d", "a")
    assert daskflow.pick_channels(volume, channels=(1,)).channel_names == ("b",)


@pytest.mark.parametrize("channels", [(), (4,), (-1,), (1, 1)])
def test_channels_that_are_not_there_are_refused(channels):
    with pytest.raises(ParameterError, match="0 to 3"):
        daskflow.pick_channels(daskflow.open(IMAGE), channels=channels)


@pytest.mark.parametrize("name", ["layer", "layer.zarr"])
def test_picked_channels_are_stored(tmp_path, threads, name):
    daskflow.pick_channels(daskflow.open(IMAGE), channels=(2, 1)).save(tmp_path / name).run(threads, progress=False)
    np.testing.assert_array_equal(daskflow.open(tmp_path / name).read(), IMAGE[[2, 1]])
