"""Copies: the same voxels as ``igneous image xfer`` writes, also read back by CloudVolume."""

from __future__ import annotations

import json
import uuid

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


def test_sharded_copy_reads_back_the_same(igneous, noise, threads, tmp_path):
    source = igneous.layer("source", noise, chunk=(64, 64, 64))
    igneous("image", "xfer", source, tmp_path / "theirs", "--chunk-size", "32,32,32", "--sharded")
    saved = daskflow.open(source).save(tmp_path / "ours", chunk=(32, 32, 32), shard="auto")
    assert saved.run(threads, progress=False).ok
    for layer in (tmp_path / "ours", tmp_path / "theirs"):
        assert "sharding" in info(layer)["scales"][0]
        assert np.array_equal(igneous.voxels(layer), noise)
        assert np.array_equal(daskflow.open(layer).read(), noise)


def test_copy_with_levels_to_another_place_lies_where_that_of_igneous_does(igneous, threads, tmp_path):
    array = np.random.default_rng(1).integers(0, 256, (64, 256, 256), np.uint8)
    source = igneous.layer("source", array, chunk=(64, 32, 32))
    words = ("--translate", "10,20,5", "--dest-voxel-offset", "10,20,5", "--max-mips", 3)
    igneous("image", "xfer", source, tmp_path / "theirs", *words)
    moved = daskflow.translate(daskflow.open(source), to=(5, 20, 10))
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    mips = len(info(theirs)["scales"])
    assert moved.save(ours, levels=mips - 1).run(threads, progress=False).ok
    assert mips >= 3
    for mip in range(mips):
        assert np.array_equal(igneous.voxels(ours, mip), igneous.voxels(theirs, mip)), f"mip {mip}"
        scales = [info(layer)["scales"][mip] for layer in (ours, theirs)]
        assert scales[0]["voxel_offset"] == scales[1]["voxel_offset"]
        assert scales[0]["size"] == scales[1]["size"]
    assert [scale["voxel_offset"] for scale in info(ours)["scales"][:3]] == [[10, 20, 5], [5, 10, 5], [2, 5, 5]]


@pytest.mark.parametrize("encoding", ["raw", "compressed_segmentation"])
def test_encodings_of_igneous_are_read_and_written(igneous, threads, tmp_path, encoding):
    labels = encoding == "compressed_segmentation"
    array = np.random.default_rng(2).integers(0, 9, (50, 70, 90), np.uint64 if labels else np.uint8)
    source = igneous.layer("source", array, chunk=(32, 32, 32), kind="segmentation" if labels else "image")
    igneous("image", "xfer", source, tmp_path / "theirs", "--encoding", encoding, "--skip-downsample")
    assert np.array_equal(daskflow.open(tmp_path / "theirs").read(), array)
    saved = daskflow.open(source).save(tmp_path / "ours", encoding=encoding)
    assert saved.run(threads, progress=False).ok
    assert np.array_equal(igneous.voxels(tmp_path / "ours"), array)


def test_first_channel_of_an_affinity_is_quantized_alike(igneous, threads, tmp_path):
    array = np.random.default_rng(3).random((3, 32, 64, 64), np.float32)
    source = igneous.layer("source", array, chunk=(32, 32, 32))
    igneous.ask("quantize", source=f"file://{source}", target=f"file://{tmp_path / 'theirs'}")
    quantized = daskflow.quantize(daskflow.open(source), channel=0)
    assert quantized.save(tmp_path / "ours").run(threads, progress=False).ok
    assert np.array_equal(igneous.voxels(tmp_path / "ours"), igneous.voxels(tmp_path / "theirs"))
    assert info(tmp_path / "ours")["data_type"] == info(tmp_path / "theirs")["data_type"] == "uint8"


def test_segments_get_the_names_of_cells_as_by_igneous(igneous, threads, tmp_path):
    segments = np.random.default_rng(4).integers(0, 6, (32, 64, 128), np.uint16)
    source = igneous.layer("source", segments, chunk=(32, 32, 32), kind="segmentation")
    theirs = igneous.layer("theirs", np.zeros(segments.shape, np.uint32), chunk=(32, 32, 32), kind="segmentation")
    volumes = tmp_path / "volumes.json"
    consensus = tmp_path / f"{uuid.uuid4()}.json"  # igneous keeps a copy by this name, and reads it ever after
    volumes.write_text(json.dumps({"0-64_0-64_0-32": 3, "64-128_0-32_0-32": 65535}))
    consensus.write_text(json.dumps({"3": {"70000": [1, 2], "9": [5]}, "65535": {"70000": [4]}}))
    words = {"source": f"file://{source}", "target": f"file://{theirs}", "volume_map": str(volumes)}
    igneous.ask("consensus", **words, consensus_map=f"file://{consensus}")
    named = daskflow.hypersquare_consensus(daskflow.open(source), volume_map=volumes, consensus_map=consensus)
    assert named.save(tmp_path / "ours", chunk=(32, 32, 32)).run(threads, progress=False).ok
    expected = igneous.voxels(theirs)
    assert len(np.unique(expected)) == 9
    assert np.array_equal(igneous.voxels(tmp_path / "ours"), expected)


@pytest.mark.parametrize(("order", "shape"), [("C", (40, 30, 20)), ("F", (40, 30, 20)), ("C", (40, 30, 20, 2))])
def test_an_array_of_xyz_is_read_as_igneous_creates_it(igneous, threads, tmp_path, order, shape):
    np.save(tmp_path / "array.npy", np.random.default_rng(5).integers(0, 9, shape, np.uint8).copy(order))
    igneous("image", "create", str(tmp_path / "array.npy"), tmp_path / "theirs", "--offset", "5,6,7")
    volume = daskflow.open(tmp_path / "array.npy", axes="xyzc"[: len(shape)], voxel_offset=(7, 6, 5))
    assert volume.save(tmp_path / "ours").run(threads, progress=False).ok
    assert np.array_equal(igneous.voxels(tmp_path / "ours"), igneous.voxels(tmp_path / "theirs"))
    offsets = [info(tmp_path / layer)["scales"][0]["voxel_offset"] for layer in ("ours", "theirs")]
    assert offsets == [[5, 6, 7]] * 2
