"""load-precomputed and save-precomputed, as chunkflow has them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import daskflow
from daskflow.errors import BoundsError, CorruptChunkError, JobError, MetadataMismatchError, ParameterError
from daskflow.geometry import BoundingBox

START = (2, 64, 0)


def floats(shape=(8, 128, 128)):
    array = np.random.default_rng(0).random(shape, np.float32)
    return daskflow.open(array, voxel_offset=START, voxel_size=(40, 4, 4))


@pytest.fixture
def layer(tmp_path):
    grey = daskflow.astype(floats(), dtype="uint8", unit_range=True)
    daskflow.save_precomputed(grey, volume_path=tmp_path / "layer", block_size=(4, 32, 32)).run(progress=False)
    return tmp_path / "layer"


def test_floats_go_into_a_layer_of_bytes_and_bytes_into_one_of_floats(layer, tmp_path):
    volume = floats()
    job = daskflow.save_precomputed(volume, volume_path=layer, overwrite=True)
    assert "0 to 1 being 0 to 255" in str(job.plan())
    job.run(progress=False)
    stored = daskflow.open(layer)
    np.testing.assert_array_equal(stored.read(), np.trunc(volume.read() * np.float32(255)))
    assert volume.read().max() <= 1

    daskflow.save_precomputed(volume, volume_path=tmp_path / "floats").run(progress=False)
    daskflow.save_precomputed(stored, volume_path=tmp_path / "floats", overwrite=True).run(progress=False)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "floats").read(), stored.read() / np.float32(255))

    beyond = volume.map_blocks(lambda array: array + 1, dtype="float32")
    with pytest.raises(JobError, match="between 0 and 1"):
        daskflow.save_precomputed(beyond, volume_path=layer, overwrite=True).run(progress=False, retries=0)


@pytest.mark.parametrize("margin", [(2, 3, 4), (2, 3, 4, 0, 5, 6)])
def test_a_margin_beyond_the_layer_is_zero_only_if_missing_voxels_are(layer, margin):
    part = {"volume_path": layer, "chunk_start": START, "chunk_size": (4, 64, -1), "expand_margin_size": margin}
    box = BoundingBox(START, (6, 128, 128)).grow(margin[:3], margin[-3:])
    with pytest.raises(BoundsError, match="fill_missing"):
        daskflow.load_precomputed(**part)
    grown = daskflow.load_precomputed(**part, fill_missing=True)
    assert grown.box == box
    whole = daskflow.open(layer)
    inside = box.clip(whole.box)
    expected = np.zeros(box.shape, np.uint8)
    expected[inside.slices(box)] = whole.read(inside)
    np.testing.assert_array_equal(grown.read(), expected)
    np.testing.assert_array_equal(grown.with_block((3, 17, 5)).compute(), expected)


def test_sections_that_a_layer_lists_are_black(layer):
    with pytest.raises(ParameterError, match="blackout_section_ids"):
        daskflow.load_precomputed(volume_path=layer, blackout_sections=True)
    (layer / "blackout_section_ids.json").write_text(json.dumps({"section_ids": [4, 99]}))
    expected = daskflow.open(layer).read()
    expected[2] = 0
    black = daskflow.load_precomputed(volume_path=layer, blackout_sections=True)
    np.testing.assert_array_equal(black.with_block((3, 50, 50)).compute(), expected)


def test_a_list_of_black_sections_that_is_none_is_refused(layer):
    for content in ("[]", "{}", '{"section_ids": ["a"]}', "no"):
        (layer / "blackout_section_ids.json").write_text(content)
        with pytest.raises(ParameterError, match="section_ids"):
            daskflow.load_precomputed(volume_path=layer, blackout_sections=True)


def test_a_level_that_is_not_what_comes_of_the_voxels_is_found(layer):
    daskflow.downsample(daskflow.open(layer), levels=2).run(progress=False)
    valid = daskflow.load_precomputed(volume_path=layer, validate_mip=2)
    np.testing.assert_array_equal(valid.with_block((3, 50, 50)).compute(), daskflow.open(layer).read())
    daskflow.fill(daskflow.open(layer), start=START, size=(4, 32, 32), value=0).run(progress=False)
    with pytest.raises(CorruptChunkError, match="2, 16, 0"):
        daskflow.load_precomputed(volume_path=layer, validate_mip=2).read(BoundingBox(START, (3, 70, 10)))
    with pytest.raises(ParameterError, match="0 levels"):
        daskflow.load_precomputed(volume_path=layer, validate_mip=0)


def test_chunks_that_are_dim_throughout_are_left_out(tmp_path):
    array = np.full((4, 64, 64), 9, np.uint8)
    array[1, 40, 40] = 10
    volume = daskflow.open(array, voxel_size=(40, 4, 4)).with_block((4, 32, 32))
    job = daskflow.save_precomputed(
        volume, volume_path=tmp_path / "layer", block_size=(4, 32, 32), intensity_threshold=10
    )
    job.run(progress=False)
    array[:, :32], array[:, :, :32] = 0, 0
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read(), array)
    assert len(list((tmp_path / "layer" / "4_4_40").iterdir())) == 1


def test_a_thumbnail_is_the_mean_of_the_last_channel(tmp_path):
    volume = floats((3, 8, 128, 256))
    daskflow.save_precomputed(volume, volume_path=tmp_path / "layer", create_thumbnail=True).run(progress=False)
    thumbnail = daskflow.open(tmp_path / "layer" / "thumbnail", mip=6)
    assert (thumbnail.dtype, thumbnail.box) == (np.uint8, BoundingBox((2, 1, 0), (10, 3, 4)))
    assert thumbnail.layer_type == "image"
    grey = np.trunc(volume.read()[2] * np.float32(255))
    np.testing.assert_array_equal(thumbnail.read(), np.floor(grey.reshape(8, 2, 64, 4, 64).mean((2, 4))))
    labels = daskflow.open(np.ones((2, 2, 2), np.uint32))
    for z in (2, 6):
        part = volume.crop(BoundingBox((z, 64, 0), (z + 4, 192, 256)))
        daskflow.save_precomputed(
            part,
            volume_path=tmp_path / "parts",
            bounds=(2, 64, 0, 10, 192, 256),
            block_size=(4, 32, 64),
            create_thumbnail=True,
        ).run(progress=False)
    parts = daskflow.open(tmp_path / "parts" / "thumbnail", mip=6)
    np.testing.assert_array_equal(parts.read(), thumbnail.read())
    with pytest.raises(ParameterError, match="inside of one"):
        daskflow.save_precomputed(
            volume[:, 96:, :], volume_path=tmp_path / "parts", overwrite=True, create_thumbnail=True
        )
    with pytest.raises(ParameterError, match="segmentation"):
        daskflow.save_precomputed(labels, volume_path=tmp_path / "labels", create_thumbnail=True)


def test_cloudvolume_reads_what_was_saved(layer):
    cloudvolume = pytest.importorskip("cloudvolume")
    stored = cloudvolume.CloudVolume(f"file://{layer}", progress=False)[:][..., 0]
    np.testing.assert_array_equal(np.asarray(stored).T, daskflow.open(layer).read())


def test_a_coarser_volume_is_what_downsample_stores(layer):
    volume = daskflow.open(layer)
    daskflow.downsample(volume, levels=1, factor=(2, 2, 3)).run(progress=False)
    coarser = daskflow.downsample_volume(volume, factor=(2, 2, 3))
    stored = daskflow.open(layer, mip=1)
    assert (coarser.box, coarser.voxel_size) == (stored.box, stored.voxel_size)
    np.testing.assert_array_equal(coarser.with_block((3, 7, 5)).compute(), stored.read())
    known = daskflow.open(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), voxel_offset=(3, 4, 5))
    assert daskflow.downsample_volume(known, factor=(2, 2, 2)).read().ravel()[:4].tolist() == [10, 12, 18, 20]
    flat = daskflow.downsample_volume(known, factor=(1, 2, 2))
    assert flat.read()[0].ravel().tolist() == [2, 4, 10, 12]
    assert flat.box.start == (3, 2, 2)


def test_an_info_has_its_levels_before_any_voxel(tmp_path):
    labels = daskflow.create_chunk(size=(16, 32, 32), dtype="uint32", voxel_size=(8, 8, 8))
    job = daskflow.create_info(labels, volume_path=tmp_path / "a", block_size=(8, 16, 16), max_mip=2)
    job.run(progress=False)
    info = json.loads((tmp_path / "a" / "info").read_text())
    assert [scale["resolution"] for scale in info["scales"]] == [[8] * 3, [16] * 3, [32] * 3]
    assert [scale["size"] for scale in info["scales"]] == [[32, 32, 16], [16, 16, 8], [8, 8, 4]]
    assert (info["type"], info["data_type"]) == ("segmentation", "uint32")

    said = {"volume_size": (5, 6, 7), "voxel_size": (40, 4, 4), "block_size": (5, 6, 7), "voxel_offset": (1, 2, 3)}
    daskflow.create_info(volume_path=tmp_path / "b", data_type="float32", channel_num=3, **said).run(progress=False)
    daskflow.create_info(volume_path=tmp_path / "b", data_type="float32", channel_num=3, **said).run(progress=False)
    assert daskflow.open(tmp_path / "b").shape == (3, 5, 6, 7)
    with pytest.raises(MetadataMismatchError, match="float32"):
        daskflow.create_info(volume_path=tmp_path / "b", data_type="uint8", channel_num=3, **said).check()
    with pytest.raises(ParameterError, match="data_type"):
        daskflow.create_info(volume_path=tmp_path / "c", block_size=(8, 8, 8))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "uint32"])
def test_levels_of_parts_are_those_of_the_whole(tmp_path, dtype):
    array = (np.random.default_rng(1).random((8, 32, 32)) * 9).astype(dtype)
    volume = daskflow.open(array, voxel_offset=(0, 32, 0), voxel_size=(40, 4, 4))
    for name in ("whole", "parts"):
        daskflow.save_precomputed(volume, volume_path=tmp_path / name, block_size=(2, 4, 4)).run(progress=False)
    daskflow.downsample(daskflow.open(tmp_path / "whole"), levels=2, factor=(2, 2, 2)).run(progress=False)
    for y in (32, 48):
        part = volume.crop(BoundingBox((0, y, 0), (8, y + 16, 32)))
        daskflow.downsample_upload(part, volume_path=tmp_path / "parts", stop_mip=3).run(progress=False)
    for mip in (1, 2):
        whole, parts = (daskflow.open(tmp_path / name, mip=mip) for name in ("whole", "parts"))
        assert whole.box == parts.box
        np.testing.assert_array_equal(whole.read(), parts.read())
    shifted = volume.crop(BoundingBox((0, 34, 0), (8, 48, 32)))
    with pytest.raises(ParameterError, match="inside a window"):
        daskflow.downsample_upload(shifted, volume_path=tmp_path / "parts", stop_mip=3)
    stored = daskflow.open(tmp_path / "whole", mip=2)
    assert "mip3" in daskflow.downsample_upload(stored, stop_mip=4).directory
