"""Pictures of sections: real PNGs, stable colours, contrast that shows something."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from daskflow.errors import GeometryError, ParameterError
from daskflow.stores.figure import encode_png
from daskflow.volume.picture import label_colors, section_pixels


def decoded(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        return np.asarray(image)


@settings(deadline=None)
@given(
    npst.arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30)))
    | npst.arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30), st.just(3)))
)
def test_png_decodes_to_the_pixels_that_were_encoded(pixels):
    assert np.array_equal(decoded(encode_png(pixels)), pixels)


@settings(deadline=None)
@given(
    npst.arrays(
        st.sampled_from(["u1", "u2", "i2", "u4", "i8", "u8", "f4", "f8", "?"]).map(np.dtype),
        npst.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=6),
    ),
    st.sampled_from(["image", "affinity_map", "probability_map", "segmentation"]),
)
def test_any_section_of_any_type_gives_a_png(section, layer_type):
    if layer_type == "segmentation" and section.dtype.kind not in "iub":
        section = np.nan_to_num(section, nan=0, posinf=1, neginf=0).clip(0, 100).astype(np.uint8)
    pixels = decoded(encode_png(section_pixels(section, layer_type)))
    assert pixels.shape == (*section.shape[-2:], 3)


def test_large_section_is_thinned_to_the_side_and_keeps_its_place():
    section = np.zeros((300, 1000), np.uint8)
    section[:150] = 200
    pixels = section_pixels(section, side=100)
    assert pixels.shape == (30, 100, 3)
    assert pixels[0, 0, 0] > pixels[-1, -1, 0]


def test_middle_section_of_several_is_shown():
    volume = np.zeros((5, 4, 4), np.uint32)
    volume[2] = 7
    assert section_pixels(volume, "segmentation").any(axis=-1).all()
    assert not section_pixels(volume[:2], "segmentation").any()


def test_faint_image_is_stretched_from_black_to_white():
    section = np.linspace(1000, 1010, 400).astype(np.uint16).reshape(20, 20)
    pixels = section_pixels(section)
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_stretch_ignores_what_is_not_finite():
    section = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    section[0, :3] = [np.nan, np.inf, -np.inf]
    assert np.ptp(section_pixels(section)[5:].astype(int)) > 80


def test_affinities_become_red_green_blue_in_the_order_of_channels():
    section = np.zeros((3, 1, 2, 2), np.float32)
    section[:, 0, 0, 0] = 1.0, 0.5, 0.0
    assert section_pixels(section, "affinity_map")[0, 0].tolist() == [255, 128, 0]
    assert section_pixels(section[:2], "affinity_map")[0, 0].tolist() == [255, 128, 0]
    assert section_pixels(section[1:2], "probability_map")[0, 0].tolist() == [128, 128, 128]


@settings(deadline=None)
@given(npst.arrays(np.uint64, (4, 4)), npst.arrays(np.uint64, (3, 5)))
def test_label_has_one_colour_wherever_it_appears(first, second):
    def by_label(labels):
        return dict(zip(labels.ravel().tolist(), map(tuple, label_colors(labels).reshape(-1, 3).tolist()), strict=True))

    one, other = by_label(first), by_label(second)
    assert all(one[label] == other[label] for label in one.keys() & other.keys())
    assert all(max(color) >= 100 for label, color in one.items() if label)


def test_neighbouring_labels_are_told_apart_and_background_is_black():
    colors = label_colors(np.arange(50, dtype=np.uint32)).astype(int)
    assert colors[0].tolist() == [0, 0, 0]
    distance = np.abs(colors[:, None] - colors[None]).sum(axis=-1)
    assert np.median(distance[np.triu_indices(50, 1)]) > 150
    assert len({tuple(color) for color in colors}) == 50


def test_colour_of_a_label_does_not_depend_on_its_type():
    labels = np.array([[1, 2, 99]])
    assert np.array_equal(label_colors(labels.astype(np.uint8)), label_colors(labels.astype(np.int64)))


@pytest.mark.parametrize("shape", [(0, 3), (3,), (1, 1, 1, 2, 2)])
def test_no_picture_without_voxels_or_with_other_axes(shape):
    with pytest.raises(GeometryError, match="give a section"):
        section_pixels(np.zeros(shape, np.uint8))


def test_encoder_refuses_what_is_no_picture():
    with pytest.raises(ParameterError, match="uint8"):
        encode_png(np.zeros((2, 2), np.float32))
