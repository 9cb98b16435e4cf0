"""Voxel counts: the same file as ``igneous image voxels`` writes, in the same place."""

from __future__ import annotations

import numpy as np
from oracle import info, objects

import daskflow
from daskflow.stores.objects.intmap import read_intmap


def test_counts_are_the_same_at_the_same_place(igneous, threads, tmp_path):
    labels = np.random.default_rng(0).integers(0, 50, (70, 80, 90), np.uint64)
    theirs = igneous.layer("theirs", labels, kind="segmentation", chunk=(32, 32, 32))
    ours = igneous.layer("ours", labels, kind="segmentation", chunk=(32, 32, 32))
    igneous("image", "voxels", "count", theirs)
    igneous("image", "voxels", "sum", theirs)
    assert daskflow.voxel_counts(daskflow.open(ours)).run(threads, progress=False).ok
    key = info(ours)["scales"][0]["key"]
    counts = {layer: read_intmap(f"file://{layer / key}/stats/voxel_counts.im") for layer in (theirs, ours)}
    expected = np.bincount(labels.ravel().astype(np.int64))
    for found in counts.values():
        assert list(found[0]) == list(range(50))
        assert list(found[1]) == list(expected)
    assert any(name.startswith("stats/voxel_counts.im") for name in objects(ours, key))
