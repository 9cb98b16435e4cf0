"""What Neuroglancer is told: coordinates xyz in metres, a shader for each kind of layer."""

from __future__ import annotations

import dataclasses
import json
import re
import urllib.parse

import numpy as np
import pytest

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.view.state import Layer, layer_state, link, viewer_state


def layer(name="image", *, dtype="uint8", channels=None, layer_type="image", shape=(100, 200, 300), coarsest=None):
    size = (40.0, 4.0, 4.5)
    spec = VolumeSpec(
        BoundingBox.from_size((-10, 20, -30), shape), np.dtype(dtype), channels, size, layer_type=layer_type
    )
    return Layer(name, f"precomputed://http://127.0.0.1:1/{name}", spec, (0.0, 255.0), coarsest or size)


def test_coordinates_are_xyz_in_metres_and_the_middle_is_shown():
    state = viewer_state([layer()])
    assert state["dimensions"] == {"x": [4.5e-9, "m"], "y": [4e-9, "m"], "z": [4e-8, "m"]}
    assert state["position"] == [120, 120, 40]


def test_layers_keep_their_order_and_names():
    state = viewer_state([layer("image"), layer("a net's output")])
    assert [shown["name"] for shown in state["layers"]] == ["image", "a net's output"]
    json.dumps(state)


def test_whole_of_a_small_volume_is_in_sight():
    assert viewer_state([layer()])["crossSectionScale"] == pytest.approx(100 * 40 / 4 / 320)


def test_no_more_than_four_of_the_coarsest_voxels_per_pixel_of_a_huge_volume():
    huge = (10**4, 10**6, 10**6)
    assert viewer_state([layer(shape=huge)])["crossSectionScale"] == 4
    assert viewer_state([layer(shape=huge, coarsest=(640.0, 64.0, 72.0))])["crossSectionScale"] == 64


def test_nothing_to_show_is_refused():
    with pytest.raises(ParameterError, match="at least one volume"):
        viewer_state([])


def test_labels_are_a_segmentation_layer_without_a_shader():
    shown = layer_state(layer(dtype="uint32", layer_type="segmentation"))
    assert shown["type"] == "segmentation"
    assert "shader" not in shown


def test_chosen_segments_are_shown_in_3d_without_a_section_before_them():
    labels = dataclasses.replace(layer("labels", dtype="uint64", layer_type="segmentation"), segments=(5, 2**63))
    state = viewer_state([layer(), labels])
    assert state["layers"][1]["segments"] == ["5", str(2**63)]
    assert state["showSlices"] is False
    assert "objectAlpha" not in state["layers"][1]
    assert 0 < layer_state(dataclasses.replace(labels, translucent=True))["objectAlpha"] < 1


def test_sections_stay_in_3d_where_no_segment_is_chosen():
    assert "showSlices" not in viewer_state([layer(dtype="uint64", layer_type="segmentation")])


@pytest.mark.parametrize(
    ("layer_type", "channels", "colored"),
    [
        ("image", None, ()),
        ("image", 1, ()),
        ("image", 2, ()),
        ("image", 3, ("red", "green", "blue")),
        ("image", 4, ()),
        ("affinity_map", 3, ("red", "green", "blue")),
        ("affinity_map", 12, ("red", "green", "blue")),
        ("probability_map", None, ()),
        ("probability_map", 1, ()),
        ("probability_map", 2, ("red", "green")),
    ],
)
def test_shader_follows_layer_type_and_channels(layer_type, channels, colored):
    shown = layer_state(layer(layer_type=layer_type, channels=channels))
    controls = tuple(re.findall(r"#uicontrol invlerp (\w+)", shown["shader"]))
    assert controls == (colored or ("normalized",))
    assert set(shown["shaderControls"]) == set(controls)
    assert ("emitRGB" in shown["shader"]) == bool(colored)
    assert all(control["range"] == [0.0, 255.0] for control in shown["shaderControls"].values())


def test_link_carries_the_state():
    state = viewer_state([layer("50 % & #2")])
    client, _, fragment = link(state, "https://viewer.example").partition("/#!")
    assert client == "https://viewer.example"
    assert json.loads(urllib.parse.unquote(fragment)) == state
