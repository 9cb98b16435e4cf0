"""Contrast: the levels of ``igneous image contrast histogram`` and what ``equalize`` and ``clahe`` make of an image."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from oracle import objects

import daskflow


@pytest.fixture
def image():
    """Sections that differ in brightness, with some black in them."""
    rng = np.random.default_rng(0)
    sections = [rng.normal(60 + 3 * z, 10 + z, (256, 256)) for z in range(20)]
    array = np.clip(sections, 0, 255).astype(np.uint8)
    array[:, :10] = 0
    return array


def test_levels_of_every_voxel_are_the_same_files(igneous, image, threads, tmp_path):
    theirs = igneous.layer("theirs", image)
    ours = igneous.layer("ours", image)
    igneous("image", "contrast", "histogram", theirs, "--coverage", 1)
    assert daskflow.contrast_levels(daskflow.open(ours)).run(threads, progress=False).ok
    assert objects(ours, "levels") == objects(theirs, "levels") == {f"0/{z}" for z in range(20)}
    for z in range(20):
        expected, found = (levels(layer, z) for layer in (theirs, ours))
        assert found == expected
        assert sum(found["levels"]) == 65536


@pytest.mark.parametrize("clip", [0.01, 0.1])
def test_stretch_is_the_same(igneous, image, threads, tmp_path, clip):
    source = igneous.layer("source", image)
    igneous("image", "contrast", "histogram", source, "--coverage", 1)
    words = ("--clip-fraction", clip, "--shape", "256,256,64")
    igneous("image", "contrast", "equalize", source, tmp_path / "theirs", *words)
    ours = daskflow.contrast(daskflow.open(source), clip_fraction=clip)
    from_files = daskflow.contrast(daskflow.open(source), clip_fraction=clip, levels="source")
    assert ours.save(tmp_path / "ours").run(threads, progress=False).ok
    assert from_files.save(tmp_path / "from_files").run(threads, progress=False).ok
    expected = igneous.voxels(tmp_path / "theirs")
    assert not np.array_equal(expected, image)
    assert np.array_equal(igneous.voxels(tmp_path / "ours"), expected)
    assert np.array_equal(igneous.voxels(tmp_path / "from_files"), expected)


def test_clahe_of_whole_sections_is_the_same_in_any_blocks(igneous, image, threads, tmp_path):
    source = igneous.layer("source", image)
    igneous("image", "contrast", "clahe", source, tmp_path / "theirs", "--shape", "256,256,64")
    volume = daskflow.clahe(daskflow.open(source))
    assert volume.save(tmp_path / "ours", block=(64, 64, 64)).run(threads, progress=False).ok
    assert np.array_equal(igneous.voxels(tmp_path / "ours"), igneous.voxels(tmp_path / "theirs"))


def levels(layer, z):
    """The levels of one section as they are stored."""
    plain = layer / "levels" / "0" / str(z)
    packed = plain.with_name(f"{z}.gz")
    return json.loads(gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes())
