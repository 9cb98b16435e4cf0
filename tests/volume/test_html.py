import numpy as np

from daskflow import Volume, inference
from daskflow.volume.picture import html

IMAGE = np.arange(8 * 16 * 16, dtype=np.uint8).reshape(8, 16, 16)


def fail(array):
    raise RuntimeError("not for pictures")


def test_a_small_volume_is_shown_with_its_middle_section():
    text = html(Volume.from_array(IMAGE))
    assert "8 x 16 x 16" in text
    assert "<img" in text
    assert "z = 4" in text


def test_a_function_that_raises_costs_only_the_picture():
    text = html(Volume.from_array(IMAGE).map_blocks(fail, dtype=np.uint8))
    assert "8 x 16 x 16" in text
    assert "<img" not in text


def test_no_network_is_run_for_a_picture():
    predicted = inference(
        Volume.from_array(IMAGE), input_patch_size=(4, 8, 8), output_patch_overlap=(2, 4, 4), framework="identity"
    )
    assert "<img" not in html(predicted)


def test_what_takes_much_memory_is_not_computed_for_a_picture():
    volume = Volume.from_array(IMAGE)
    assert "<img" in html(volume.map_blocks(np.negative, memory=1e4))
    assert "<img" not in html(volume.map_blocks(fail, dtype=np.uint8, memory=1e6))
