"""Connected components: the same objects as ``igneous image ccl auto`` finds, also where blocks differ."""

from __future__ import annotations

import numpy as np
from oracle import isomorphic

import daskflow


def ours(layer, threads, folder, block=(32, 32, 64), **options):
    volume = daskflow.open(layer)
    labels = daskflow.connected_components(volume.with_block(block), connectivity=6, **options)
    report = labels.save(folder / "ours", encoding="raw").run(threads, progress=False)
    assert report.ok
    return report.counts["components"]


def test_random_binary_voxels_have_the_same_components(igneous, threads, tmp_path):
    mask = (np.random.default_rng(0).random((70, 70, 70)).T < 0.35).astype(np.uint8)
    source = igneous.layer("source", mask, chunk=(32, 32, 32), kind="segmentation")
    igneous("image", "ccl", "auto", source, tmp_path / "theirs", "--shape", "64,64,64", "--encoding", "raw")
    found = ours(source, threads, tmp_path)
    theirs = igneous.voxels(tmp_path / "theirs")
    assert found == len(np.unique(theirs)) - 1
    assert isomorphic(igneous.voxels(tmp_path / "ours"), theirs)


def test_touching_labels_stay_apart(igneous, threads, tmp_path):
    labels = np.random.default_rng(1).integers(0, 4, (70, 70, 70), np.uint16)
    source = igneous.layer("source", labels, chunk=(32, 32, 32), kind="segmentation")
    igneous("image", "ccl", "auto", source, tmp_path / "theirs", "--shape", "32,32,32", "--encoding", "raw")
    found = ours(source, threads, tmp_path)
    theirs = igneous.voxels(tmp_path / "theirs")
    assert found == len(np.unique(theirs)) - 1
    assert isomorphic(igneous.voxels(tmp_path / "ours"), theirs)


def test_voxels_of_a_threshold_and_above_are_joined(igneous, threads, tmp_path):
    image = np.random.default_rng(2).integers(0, 256, (70, 70, 70), np.uint8)
    source = igneous.layer("source", image, chunk=(32, 32, 32))
    words = ("--shape", "32,32,32", "--encoding", "raw", "--threshold-gte", 160)
    igneous("image", "ccl", "auto", source, tmp_path / "theirs", *words)
    found = ours(source, threads, tmp_path, threshold_gte=160, dtype="smallest")
    theirs = igneous.voxels(tmp_path / "theirs")
    assert found == len(np.unique(theirs)) - 1
    assert isomorphic(igneous.voxels(tmp_path / "ours"), theirs)
