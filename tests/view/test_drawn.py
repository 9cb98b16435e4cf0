"""Points, synapses and skeletons as layers, alone and beside volumes."""

from __future__ import annotations

import json
import urllib.request

import numpy as np
import pytest

from daskflow.errors import ParameterError
from daskflow.stores.objects.located import Points, SkeletonSet
from daskflow.stores.objects.skeleton_files import Skeleton, decode_skeleton
from daskflow.stores.objects.synapses import Synapses
from daskflow.view import Look, neuroglancer
from daskflow.volume import Volume

SIZE = (40.0, 8.0, 4.0)
PLACES = np.array([(1, 2, 3), (5, 6, 7)])


def layers(shown, **how):
    with neuroglancer(shown, **how) as viewer:
        return viewer.state["layers"]


def test_whole_voxels_are_points_in_their_middle_and_fractions_where_they_are():
    for points, shift in ((PLACES, 0.5), (PLACES + 0.25, 0)):
        (state,) = layers({"peaks": Points(points, SIZE)}, looks={"peaks": Look(size=3)})
        assert [one["point"] for one in state["annotations"]] == (points[:, ::-1] + shift).tolist()
        assert {one["type"] for one in state["annotations"]} == {"point"}
        dimensions = state["source"]["transform"]["outputDimensions"]
        assert [dimensions[axis][0] for axis in "xyz"] == pytest.approx([4e-9, 8e-9, 40e-9])
        assert state["annotationColor"] == "#ffff00"
        assert "setPointMarkerSize(3.0)" in state["shader"]


def test_synapses_are_lines_from_pre_to_post_and_points():
    post = np.array([(1, 7, 7, 7), (0, 1, 1, 1), (1, 9, 9, 9)])
    lines, points = layers({"syns": Synapses(PLACES, post, SIZE)}, looks={"syns": Look(color="lime")})
    assert [(one["pointA"], one["pointB"]) for one in lines["annotations"]] == [
        ([7.5, 6.5, 5.5], [7.5, 7.5, 7.5]),
        ([3.5, 2.5, 1.5], [1.5, 1.5, 1.5]),
        ([7.5, 6.5, 5.5], [9.5, 9.5, 9.5]),
    ]
    assert (lines["name"], points["name"]) == ("syns", "syns_pre")
    assert [one["point"] for one in points["annotations"]] == (PLACES[:, ::-1] + 0.5).tolist()
    assert lines["annotationColor"] == points["annotationColor"] == "#00ff00"


def test_skeletons_are_served_as_a_layer_and_all_of_them_shown():
    vertices = np.array([(10, 20, 30), (50, 60, 70)], np.float32)
    skeleton = Skeleton(vertices, np.array([(0, 1)], np.uint32), {"radius": np.ones(2, np.float32)})
    image = Volume.from_array(np.zeros((4, 4, 4), np.uint8), voxel_size=SIZE)
    with neuroglancer({"image": image, "skels": SkeletonSet({7: skeleton})}) as viewer:
        state = viewer.state["layers"][1]
        assert (state["type"], state["segments"]) == ("segmentation", ["7"])
        base = state["source"]["url"] if isinstance(state["source"], dict) else state["source"]
        files = {}
        for name in ("info", "7"):
            with urllib.request.urlopen(f"{base.removeprefix('precomputed://')}/{name}") as answer:
                files[name] = answer.read()
    shown = decode_skeleton(files["7"], json.loads(files["info"]))
    np.testing.assert_array_equal(shown.vertices, vertices)
    np.testing.assert_array_equal(shown.edges, [(0, 1)])


def test_position_and_scale_are_those_of_points_alone():
    with neuroglancer({"peaks": Points(PLACES, SIZE)}) as viewer:
        assert viewer.state["position"] == [5.5, 4.5, 3.5]


@pytest.mark.parametrize(
    ("points", "look", "said"),
    [
        (np.zeros((0, 3)), Look(), "nothing to show"),
        (np.zeros((100_001, 3)), Look(), "100,001 annotations, and a page takes 100,000"),
        (PLACES, Look(range=(0, 1)), "only an image has a range"),
    ],
)
def test_what_a_page_cannot_show_is_refused(points, look, said):
    with pytest.raises(ParameterError, match=said):
        neuroglancer({"peaks": Points(points, SIZE)}, looks={"peaks": look})
