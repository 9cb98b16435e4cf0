"""Encodings: what igneous writes is read, and what is written igneous reads, in chunks and in shards."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import info

import daskflow

ENCODINGS = {"crackle": "uint64", "compressed_segmentation": "uint64"}  # those that igneous installs with itself


@pytest.mark.parametrize("sharded", [False, True], ids=["chunks", "shards"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_copies_in_an_encoding_are_exchanged_with_igneous(igneous, threads, tmp_path, encoding, sharded):
    array = np.random.default_rng(0).integers(0, 7, (40, 70, 50)).astype(ENCODINGS[encoding])
    source = igneous.layer("source", array, chunk=(32, 32, 32), offset=(5, 10, 20))
    words = ("--encoding", encoding, *(("--sharded",) if sharded else ("--skip-downsample",)))
    igneous("image", "xfer", source, tmp_path / "theirs", *words)
    theirs = info(tmp_path / "theirs")["scales"][0]
    assert (theirs["encoding"], "sharding" in theirs) == (encoding, sharded)
    volume = daskflow.open(tmp_path / "theirs")
    assert volume.box.start == (5, 10, 20)
    assert np.array_equal(volume.read(), array)

    shard = "auto" if sharded else None
    saved = daskflow.open(source).save(tmp_path / "ours", encoding=encoding, compression="gzip", shard=shard)
    assert saved.run(threads, progress=False).ok
    ours = info(tmp_path / "ours")["scales"][0]
    assert (ours["encoding"], "sharding" in ours) == (encoding, sharded)
    assert np.array_equal(igneous.voxels(tmp_path / "ours"), array)

    kept = volume.save(tmp_path / "kept", shard=shard)
    assert kept.run(threads, progress=False).ok
    assert info(tmp_path / "kept")["scales"][0]["encoding"] == encoding
    assert np.array_equal(igneous.voxels(tmp_path / "kept"), array)
