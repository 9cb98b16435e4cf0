"""Pyramid levels: voxel for voxel those of ``igneous image downsample``, wherever it is right."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from oracle import info, objects

import daskflow


@pytest.fixture
def both(igneous, threads, tmp_path):
    """Downsample a layer of an array with both programs and return the two layers."""

    def make(array, words=(), *, chunk=(64, 64, 64), offset=(0, 0, 0), kind="image", **options):
        theirs = igneous.layer("theirs", array, chunk=chunk, offset=offset, kind=kind)
        ours = tmp_path / "ours"
        shutil.copytree(theirs, ours)
        igneous("image", "downsample", theirs, *words)
        report = daskflow.downsample(daskflow.open(ours), **options).run(threads, progress=False)
        assert report.ok
        return ours, theirs

    return make


def labels(shape, most=4, dtype=np.uint64):
    return np.random.default_rng(2).integers(0, most, shape, dtype)


def noise(shape):
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


def assert_same_levels(igneous, ours, theirs, levels):
    for mip in levels:
        assert np.array_equal(igneous.voxels(ours, mip), igneous.voxels(theirs, mip)), f"mip {mip}"


def test_means_are_exact_over_two_levels(igneous, both):
    ours, theirs = both(noise((64, 256, 256)), ("--num-mips", 2), levels=2)
    assert_same_levels(igneous, ours, theirs, (1, 2))


def test_channels_are_averaged_one_by_one(igneous, both):
    array = np.stack([noise((32, 128, 128)), noise((32, 128, 128))[::-1], noise((32, 128, 128)) // 2])
    ours, theirs = both(array, ("--num-mips", 1), levels=1)
    assert_same_levels(igneous, ours, theirs, (1,))


@pytest.mark.parametrize("sparse", [False, True])
def test_modes_break_ties_alike(igneous, both, sparse):
    words = ("--num-mips", 2, *(("--sparse",) if sparse else ()))
    ours, theirs = both(labels((64, 256, 256)), words, kind="segmentation", levels=2, sparse=sparse)
    assert_same_levels(igneous, ours, theirs, (1, 2))


def test_cubes_of_labels_get_a_mode(igneous, both):
    array = labels((64, 128, 128), 3)
    ours, theirs = both(
        array, ("--num-mips", 1, "--volumetric"), kind="segmentation", chunk=(32, 32, 32), levels=1, factor=(2, 2, 2)
    )
    windows = array.reshape(32, 2, 64, 2, 64, 2).transpose(0, 2, 4, 1, 3, 5).reshape(32, 64, 64, 8)
    counts = np.stack([(windows == label).sum(-1) for label in range(3)])
    for layer in (ours, theirs):
        chosen = igneous.voxels(layer, 1).astype(np.int64)
        assert (np.take_along_axis(counts, chosen[None], 0)[0] == counts.max(0)).all()


def test_cubes_of_an_image_are_averaged_exactly(igneous, both):
    ours, theirs = both(
        noise((128, 128, 128)), ("--num-mips", 2, "--volumetric"), chunk=(32, 32, 32), levels=2, factor=(2, 2, 2)
    )
    assert_same_levels(igneous, ours, theirs, (1, 2))


def test_sparse_means_leave_zeros_out(igneous, both):
    array = noise((32, 128, 128)) * (np.random.default_rng(4).random((32, 128, 128)) < 0.4)
    ours, theirs = both(array.astype(np.uint8), ("--num-mips", 1, "--sparse"), levels=1, sparse=True)
    assert_same_levels(igneous, ours, theirs, (1,))


def test_levels_of_a_layer_with_an_offset_lie_where_those_of_igneous_do(igneous, both):
    ours, theirs = both(noise((50, 200, 300)), ("--num-mips", 1), chunk=(32, 64, 64), offset=(3, 5, 7), levels=1)
    expected, found = info(theirs)["scales"][1], info(ours)["scales"][1]
    names = ("key", "size", "voxel_offset", "resolution", "chunk_sizes", "encoding")
    assert {name: found[name] for name in names} == {name: expected[name] for name in names}
    assert (found["size"], found["voxel_offset"]) == ([150, 100, 50], [3, 2, 3])
    assert_same_levels(igneous, ours, theirs, (1,))
    assert objects(ours, found["key"]) == objects(theirs, found["key"])


def test_sharded_levels_hold_the_same_voxels(igneous, both):
    array = noise((64, 256, 256))
    ours, theirs = both(
        array, ("--num-mips", 2, "--sharded", "--memory", 4_000_000), chunk=(32, 32, 32), levels=2, shard="auto"
    )
    assert_same_levels(igneous, ours, theirs, (1, 2))
    assert all("sharding" in scale for scale in info(ours)["scales"][1:])


def test_chunks_of_background_are_left_out(igneous, both):
    array = noise((64, 256, 256))
    array[:, :128] = 0
    ours, theirs = both(array, ("--num-mips", 1, "--delete-bg"), levels=1, delete_background=True)
    key = info(theirs)["scales"][1]["key"]
    assert objects(ours, key) == objects(theirs, key)
    assert np.array_equal(igneous.voxels(ours, 1, fill_missing=True), igneous.voxels(theirs, 1, fill_missing=True))
