"""What stands in brackets after a layer's name."""

from __future__ import annotations

import numpy as np
import pytest

from daskflow.errors import ParameterError
from daskflow.view import Look, neuroglancer
from daskflow.view.look import read_layers
from daskflow.volume import Volume


def test_layers_and_several_options_of_each_are_read():
    assert read_layers("em,affs[color=red, opacity=0.5,range=-1:2.5],points[size=3,visible=no]") == {
        "em": Look(),
        "affs": Look(color="#ff0000", opacity=0.5, range=(-1, 2.5)),
        "points": Look(size=3, visible=False),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("em[color=red", "not a list of layers"),
        ("em]", "not a list of layers"),
        ("em,,affs", "not a list of layers"),
        ("em[colour=red]", "known options: color, opacity, range, size, visible"),
        ("em[color=reddish]", "unknown color 'reddish'"),
        ("em[opacity=2]", r"not in 0\.\.1"),
        ("em[opacity=half]", "give e.g. opacity=0.5"),
        ("em[range=5]", "give e.g. range=0:255"),
        ("em[range=5:5]", "must be the smaller"),
        ("em[size=0]", "more than 0"),
        ("em[visible=perhaps]", "give e.g. visible=no"),
    ],
)
def test_what_is_not_understood_is_refused(text, said):
    with pytest.raises(ParameterError, match=said):
        read_layers(text)


def shown(look, *, dtype=np.uint8, channels=None, **spec):
    lead = () if channels is None else (channels,)
    volume = Volume.from_array(np.zeros((*lead, 4, 4, 4), dtype), voxel_size=(1, 1, 1), **spec)
    with neuroglancer({"layer": volume}, looks={"layer": look}) as viewer:
        return viewer.state["layers"][0]


@pytest.mark.parametrize("channels", [None, 3])
def test_color_tints_the_first_channel_of_an_image(channels):
    state = shown(Look(color="red", opacity=0.25, range=(10, 20)), channels=channels, layer_type="image")
    assert 'color(default="#ff0000")' in state["shader"]
    assert state["shader"].count("invlerp") == 1
    assert state["shaderControls"]["normalized"]["range"] == [10, 20]
    assert state["opacity"] == 0.25


def test_range_is_that_of_every_channel_of_affinities():
    state = shown(Look(range=(0.25, 0.75)), dtype=np.float32, channels=3, layer_type="affinity_map")
    assert [control["range"] for control in state["shaderControls"].values()] == [[0.25, 0.75]] * 3


def test_labels_get_one_color_and_an_opacity():
    state = shown(Look(color="#0f0", opacity=0.5, visible=False), dtype=np.uint32)
    assert (state["segmentDefaultColor"], state["selectedAlpha"]) == ("#00ff00", 0.5)
    assert state["visible"] is False


@pytest.mark.parametrize(("look", "dtype"), [(Look(size=3), np.uint8), (Look(range=(0, 1)), np.uint32)])
def test_option_that_a_layer_does_not_have_is_refused(look, dtype):
    with pytest.raises(ParameterError, match=r"only an (image|annotation) has a (range|size)"):
        shown(look, dtype=dtype)


def test_look_of_a_layer_that_is_not_shown_is_refused():
    with pytest.raises(ParameterError, match="a look of other"):
        neuroglancer(Volume.from_array(np.zeros((2, 2, 2), np.uint8)), looks={"other": Look()})
