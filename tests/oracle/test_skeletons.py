"""Skeletons beside igneous's, which are made by the same kimimaro where the two environments have the same one."""

import json
from pathlib import Path

import numpy as np
import pytest

from daskflow.operators.open import open as open_volume
from daskflow.operators.skeletonize import skeletonize
from daskflow.stores.objects.skeletons import read_skeleton

pytest.importorskip("kimimaro")


def tube():
    """Two labels in 48 x 48 x 150 voxels: a slanted tube of 15 x 15 voxels across the border at 64, and a bar."""
    array = np.zeros((48, 48, 150), np.uint32)
    for x in range(20, 110):
        low = 5 + (x - 20) // 6
        array[low : low + 15, low : low + 15, x] = 7
    array[30:40, 2:12, 5:30] = 9
    return array


@pytest.fixture
def both(igneous, threads):
    """Skeletonize a layer with igneous and with daskflow, and return where the two results lie."""

    def make(sharded=False, cross_section=0):
        theirs = igneous.layer("theirs", tube(), resolution=(10, 10, 10), offset=(0, 0, 0), kind="segmentation")
        own = igneous.layer("own", tube(), resolution=(10, 10, 10), offset=(0, 0, 0), kind="segmentation")
        options = ["--sharded"] if sharded else []
        options += ["--cross-section", cross_section] if cross_section else []
        igneous("skeleton", "forge", theirs, "--shape", "64,64,64", "--dust-threshold", 0, *options)
        merge = "merge-sharded" if sharded else "merge"
        igneous("skeleton", merge, theirs, "--min-cable-length", 0)
        job = skeletonize(
            open_volume(own),
            shape=(64, 64, 64),
            dust=0,
            min_cable_length=0,
            sharded=sharded,
            cross_section=cross_section,
        )
        assert job.run(threads, progress=False).ok
        return theirs, own

    return make


def info(layer):
    directory = Path(layer) / json.loads((Path(layer) / "info").read_text())["skeletons"]
    return directory.name, json.loads((directory / "info").read_text())


@pytest.mark.parametrize("sharded", [False, True])
def test_tube_across_a_border_of_blocks_has_the_same_skeleton(both, sharded):
    theirs, own = both(sharded)
    for label in (7, 9):
        expected, found = read_skeleton(theirs, label), read_skeleton(own, label)
        assert len(found.vertices) == len(expected.vertices)
        assert found.cable_length == pytest.approx(expected.cable_length, abs=0.02)
        assert {tuple(v) for v in found.vertices.tolist()} == {tuple(v) for v in expected.vertices.tolist()}


@pytest.mark.parametrize("sharded", [False, True])
def test_info_says_the_same(both, sharded):
    (their_name, expected), (own_name, found) = map(info, both(sharded))
    assert own_name == their_name
    assert found == expected


def test_cross_sections_are_the_same(both):
    theirs, own = both(cross_section=5)
    expected, found = (read_skeleton(layer, 7).attributes["cross_sectional_area"] for layer in (theirs, own))
    np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=0.02)
