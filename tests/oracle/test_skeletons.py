"""Skeletons: those of ``igneous skeleton forge`` and ``merge``, of the same blocks and the same kimimaro."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import info, objects

import daskflow
from daskflow.stores.objects.layer_objects import read_skeleton


@pytest.fixture
def tube():
    """A square tube of 15 x 15 voxels along x, crossing a block border."""
    array = np.zeros((64, 64, 128), np.uint64)
    array[20:35, 20:35, 10:115] = 7
    return array


def make(igneous, threads, array, *, words=(), merge=(), shape=(64, 64, 64), **options):
    """Return the two layers with their skeletons."""
    layers = [
        igneous.layer(name, array, kind="segmentation", resolution=(10, 10, 10), chunk=(64, 64, 64))
        for name in ("ours", "theirs")
    ]
    igneous("skeleton", "forge", layers[1], "--shape", ",".join(map(str, shape)), "--dust-threshold", 100, *words)
    igneous("skeleton", *(merge or ("merge",)), layers[1])
    job = daskflow.skeletonize(daskflow.open(layers[0]), shape=shape[::-1], dust=100, **options)
    assert job.run(threads, progress=False).ok
    return layers


def cable(skeleton):
    ends = skeleton["vertices"][skeleton["edges"]]
    return float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).sum())


def components(skeleton):
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, (a, b) = len(skeleton["vertices"]), skeleton["edges"].T
    return connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(n, n)), directed=False)[0]


def in_order(vertices):
    return vertices[np.lexsort(vertices.T)]


@pytest.mark.parametrize("sharded", [False, True])
def test_tube_across_a_border_is_one_skeleton_with_the_same_vertices(igneous, threads, tube, sharded):
    words = {"words": ("--sharded",), "merge": ("merge-sharded",), "format": "sharded"} if sharded else {}
    ours, theirs = make(igneous, threads, tube, **words)
    found, expected = igneous.skeleton(ours, 7), igneous.skeleton(theirs, 7)
    assert components(found) == components(expected) == 1
    assert np.allclose(in_order(found["vertices"]), in_order(expected["vertices"]))
    assert cable(found) == pytest.approx(cable(expected))
    assert np.allclose(np.sort(found["radius"]), np.sort(expected["radius"]))
    assert found["vertices"].shape[0] > 50


def test_names_and_info_are_those_of_igneous(igneous, threads, tube):
    ours, theirs = make(igneous, threads, tube)
    folder = info(theirs)["skeletons"]
    assert info(ours)["skeletons"] == folder == "skeletons_mip_0"
    kept = {name for name in objects(theirs, folder) if ":" not in name}  # fragments are left there
    assert objects(ours, folder) - {"provenance"} == kept
    found, expected = info(ours / folder), info(theirs / folder)
    for name in ("@type", "transform", "vertex_attributes", "mip", "spatial_index"):
        assert found[name] == expected[name], name


def test_spatial_index_finds_the_tube(igneous, threads, tube):
    ours, theirs = make(igneous, threads, tube)
    for start, stop in (((0, 0, 0), (1280, 640, 640)), ((900, 150, 150), (1280, 400, 400))):
        assert igneous.objects_within(ours, "skeleton", start, stop) == igneous.objects_within(
            theirs, "skeleton", start, stop
        )


def test_cross_sections_have_the_same_areas(igneous, threads, tube):
    ours, theirs = make(igneous, threads, tube, words=("--cross-section", 5), cross_section=5, shape=(128, 64, 64))
    found, expected = (read_skeleton(layer, 7).attributes["cross_sectional_area"] for layer in (ours, theirs))
    np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=0.02)


def test_limits_of_length_leave_the_same(igneous, threads):
    array = np.zeros((40, 60, 150), np.uint64)
    array[5:12, 5:12, 5:145] = 1
    array[5:12, 12:40, 70:76] = 1  # a branch of about 250 nm
    array[20:27, 5:12, 5:50] = 2  # about 400 nm
    array[30:37, 20:27, 5:145] = 3
    merge = ("merge", "--min-cable-length", 800, "--tick-threshold", 400)
    ours, theirs = make(igneous, threads, array, merge=merge, min_cable_length=800, tick_length=400)
    for label in (1, 3):
        found, expected = (read_skeleton(layer, label) for layer in (ours, theirs))
        assert found.cable_length == pytest.approx(expected.cable_length, rel=0.02)
    assert read_skeleton(ours, 1).vertices[:, 1].max() < 200
    assert read_skeleton(ours, 2) is None
    assert not len(getattr(read_skeleton(theirs, 2), "vertices", ()))
