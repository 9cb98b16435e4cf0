"""Meshes: the surfaces and the files of ``igneous mesh forge`` and ``merge``, read by CloudVolume."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import info, objects

import daskflow
from daskflow.operators.objects._holes import without_holes

RESOLUTION = (10, 10, 10)
WORDS = {"legacy": ((), ("merge", "--nlod", 0)), "sharded": (("--sharded",), ("merge-sharded", "--nlod", 1))}


@pytest.fixture
def sphere():
    """A sphere of radius 30 that eight blocks share, and a box that lies in one, at an offset."""
    z, y, x = np.indices((130, 110, 100))
    array = np.zeros(z.shape, np.uint64)
    array[(z - 65) ** 2 + (y - 60) ** 2 + (x - 40) ** 2 <= 30**2] = 11
    array[5:15, 5:20, 5:30] = 12
    return array


def make(igneous, threads, array, kind="legacy", *, offset=(4, -3, 2), max_error=40):
    """Return the two layers with their meshes."""
    layers = [
        igneous.layer(name, array, kind="segmentation", resolution=RESOLUTION, chunk=(32, 32, 32), offset=offset)
        for name in ("ours", "theirs")
    ]
    forge, merge = WORDS[kind]
    igneous("mesh", "forge", layers[1], "--shape", "64,64,64", *forge)
    igneous("mesh", merge[0], layers[1], *merge[1:])
    job = daskflow.mesh(daskflow.open(layers[0]), shape=(64, 64, 64), max_error=max_error, format=kind, lods=1)
    assert job.run(threads, progress=False).ok
    return layers


def volume(mesh):
    """The volume that a closed surface encloses, by the divergence theorem."""
    a, b, c = np.moveaxis(mesh["vertices"].astype(np.float64)[mesh["faces"]], 1, 0)
    return abs(np.einsum("ni,ni->n", a, np.cross(b, c)).sum()) / 6


@pytest.mark.parametrize("kind", WORDS)
def test_surfaces_enclose_the_same_space(igneous, threads, sphere, kind):
    ours, theirs = make(igneous, threads, sphere, kind, max_error=None)
    for label in (11, 12):
        found, expected = igneous.mesh(ours, label), igneous.mesh(theirs, label)
        assert volume(found) == pytest.approx(volume(expected), rel=0.02)
        for side in ("min", "max"):
            bound, other = (getattr(mesh["vertices"], side)(axis=0) for mesh in (found, expected))
            assert bound == pytest.approx(other, abs=10), side


def test_faces_are_not_more_than_those_of_igneous(igneous, threads, sphere):
    ours, theirs = make(igneous, threads, sphere)
    assert len(igneous.mesh(ours, 11)["faces"]) < 1.5 * len(igneous.mesh(theirs, 11)["faces"])


def test_files_have_the_names_that_igneous_gives_them(igneous, threads, sphere):
    ours, theirs = make(igneous, threads, sphere)
    folder = info(theirs)["mesh"]
    assert info(ours)["mesh"] == folder == "mesh_mip_0_err_40"
    assert objects(ours, folder) - {"provenance"} == objects(theirs, folder)
    found, expected = info(ours / folder), info(theirs / folder)
    for name in ("@type", "mip", "chunk_size", "spatial_index"):
        assert found[name] == expected[name], name


@pytest.mark.parametrize("kind", WORDS)
def test_spatial_index_finds_the_same_labels(igneous, threads, sphere, kind):
    ours, theirs = make(igneous, threads, sphere, kind)
    for start, stop in (
        ((0, -100, 0), (1100, 1200, 1400)),
        ((20, -30, 40), (300, 200, 200)),
        ((900, 900, 40), (1000, 1000, 90)),
    ):
        found, expected = (igneous.objects_within(layer, "mesh", start, stop) for layer in (ours, theirs))
        assert found == expected


def test_sharded_meshes_say_what_those_of_igneous_say(igneous, threads, sphere):
    ours, theirs = make(igneous, threads, sphere, "sharded")
    found, expected = (info(layer / info(layer)["mesh"]) for layer in (ours, theirs))
    for name in (
        "@type",
        "vertex_quantization_bits",
        "transform",
        "lod_scale_multiplier",
        "mip",
        "spatial_index",
        "sharding",
    ):
        assert found[name] == expected[name], name


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_holes_of_each_level_are_those_that_igneous_fills(igneous, level, seed):
    random = np.random.default_rng(seed)
    array = np.ones((20, 24, 28), np.uint8)  # up to its sides, as igneous takes a plane of what background surrounds
    for start in random.integers(0, 18, (9, 3)):  # cavities and other labels, inside and at the sides
        array[tuple(slice(at, at + 5) for at in start)] = random.integers(0, 4)
    expected = igneous.without_holes(array, level) == 1
    assert (expected != (array == 1)).any()
    (found,) = [one == 1 for one in without_holes(array, level) if (one == 1).any()]
    np.testing.assert_array_equal(found, expected)
