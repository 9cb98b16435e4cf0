"""Copies: the same voxels as ``igneous image xfer`` writes, also read back by CloudVolume."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import info, objects

import daskflow


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (70, 130, 200), np.uint8)


def test_rechunked_copy_equals_that_of_igneous(igneous, noise, threads, tmp_path):
    source = igneous.layer("source", noise, chunk=(64, 64, 64), offset=(5, 10, 20))
    igneous("image", "xfer", source, tmp_path / "theirs", "--chunk-size", "32,32,32", "--skip-downsample")
    report = (
        daskflow.open(source)
        .save(tmp_path / "ours", chunk=(32, 32, 32), compression="gzip")
        .run(threads, progress=False)
    )
    assert report.ok
    assert np.array_equal(igneous.voxels(tmp_path / "ours"), igneous.voxels(tmp_path / "theirs"))
    assert np.array_equal(daskflow.open(tmp_path / "theirs").read(), noise)
    ours, theirs = info(tmp_path / "ours"), info(tmp_path / "theirs")
    assert ours["scales"][0]["voxel_offset"] == theirs["scales"][0]["voxel_offset"] == [20, 10, 5]
    key = theirs["scales"][0]["key"]
    assert objects(tmp_path / "ours", key) == objects(tmp_path / "theirs", key)


def test_cutout_keeps_its_place(igneous, noise, threads, tmp_path):
    source = igneous.layer("source", noise, chunk=(32, 32, 32))
    words = ("--xrange", "64,192", "--yrange", "64,128", "--zrange", "0,64", "--cutout", "--skip-downsample")
    igneous("image", "xfer", source, tmp_path / "theirs", *words)
    assert daskflow.open(source)[:64, 64:128, 64:192].save(tmp_path / "ours").run(threads, progress=False).ok
    expected = igneous.voxels(tmp_path / "theirs")
    assert np.array_equal(expected, noise[:64, 64:128, 64:192])
    assert np.array_equal(igneous.voxels(tmp_path / "ours"), expected)
    assert info(tmp_path / "ours")["scales"][0]["voxel_offset"] == [64, 64, 0]
    assert info(tmp_path / "theirs")["scales"][0]["voxel_offset"] == [64, 64, 0]
