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


def fetched(state, name):
    base = state["source"]["url"] if isinstance(state["source"], dict) else state["source"]
    with urllib.request.urlopen(f"{base.removeprefix('precomputed://')}/{name}") as answer:
        return answer.read()


def places_of(state):
    """Return what the browser gets of a few annotations: their places (xyz), sorted, and the voxel size (nm, xyz)."""
    info = json.loads(fetched(state, "info"))
    ends = {"POINT": 1, "LINE": 2}[info["annotation_type"]]
    (level,) = info["spatial"]
    data = fetched(state, f"{level['key']}/0_0_0")
    count = int.from_bytes(data[:8], "little")
    places = np.frombuffer(data, "<f4", count * ends * 3, 8).reshape(count, ends * 3)
    return sorted(places.tolist()), [info["dimensions"][axis][0] * 1e9 for axis in "xyz"]


def test_whole_voxels_are_points_in_their_middle_and_fractions_where_they_are():
    for points, shift in ((PLACES, 0.5), (PLACES + 0.25, 0)):
        with neuroglancer({"peaks": Points(points, SIZE)}, looks={"peaks": Look(size=3)}) as viewer:
            (state,) = viewer.state["layers"]
            places, size = places_of(state)
        assert places == (points[:, ::-1] + shift).tolist()
        assert size == pytest.approx([4, 8, 40])
        assert state["annotationColor"] == "#ffff00"
        assert "setPointMarkerSize(3.0)" in state["shader"]


def test_synapses_are_lines_from_pre_to_post_and_points():
    synapses = Synapses(PLACES, np.array([(1, 7, 7, 7), (0, 1, 1, 1), (1, 9, 9, 9)]), SIZE)
    with neuroglancer({"syns": synapses}, looks={"syns": Look(color="lime")}) as viewer:
        lines, points = viewer.state["layers"]
        found = places_of(lines)[0], places_of(points)[0]
    assert found == (
        [[3.5, 2.5, 1.5, 1.5, 1.5, 1.5], [7.5, 6.5, 5.5, 7.5, 7.5, 7.5], [7.5, 6.5, 5.5, 9.5, 9.5, 9.5]],
        (PLACES[:, ::-1] + 0.5).tolist(),
    )
    assert (lines["name"], points["name"]) == ("syns", "syns_pre")
    assert lines["annotationColor"] == points["annotationColor"] == "#00ff00"


def test_skeletons_are_served_as_a_layer_and_all_of_them_shown():
    vertices = np.array([(10, 20, 30), (50, 60, 70)], np.float32)
    skeleton = Skeleton(vertices, np.array([(0, 1)], np.uint32), {"radius": np.ones(2, np.float32)})
    image = Volume.from_array(np.zeros((4, 4, 4), np.uint8), voxel_size=SIZE)
    with neuroglancer({"image": image, "skels": SkeletonSet({7: skeleton})}) as viewer:
        state = viewer.state["layers"][1]
        assert (state["type"], state["segments"]) == ("segmentation", ["7"])
        files = {name: fetched(state, name) for name in ("info", "7")}
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
        (PLACES, Look(range=(0, 1)), "only an image has a range"),
    ],
)
def test_what_a_page_cannot_show_is_refused(points, look, said):
    with pytest.raises(ParameterError, match=said):
        neuroglancer({"peaks": Points(points, SIZE)}, looks={"peaks": look})
