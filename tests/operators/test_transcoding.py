"""jpeg to jxl and back, chunk by chunk."""

from __future__ import annotations

import numpy as np
import pytest

import daskflow

pytest.importorskip("imagecodecs")


@pytest.fixture
def jpeg(tmp_path):
    smooth = np.add.outer(np.arange(8) * 3, np.add.outer(np.arange(40), np.arange(36))).astype(np.uint8)
    volume = daskflow.open(smooth, voxel_offset=(-2, 3, 5), voxel_size=(40, 4, 4))
    daskflow.save(volume, tmp_path / "jpeg", encoding="jpeg", chunk=(4, 16, 16), quality=80).run(progress=False)
    return tmp_path / "jpeg"


def chunks(layer):
    return {file.name: file.read_bytes() for file in (layer / "4_4_40").iterdir()}


@pytest.mark.parametrize("shard", [None, (8, 32, 32)])
def test_jxl_of_a_jpeg_layer_shows_its_pixels_and_gives_it_back_to_the_byte(jpeg, tmp_path, shard):
    job = daskflow.save(daskflow.open(jpeg), tmp_path / "jxl", encoding="jxl", chunk=(4, 16, 16), shard=shard)
    assert "without a loss" in str(job.plan())
    job.run(progress=False)
    between = daskflow.open(tmp_path / "jxl")
    assert np.abs(between.read().astype(int) - daskflow.open(jpeg).read()).max() <= 3  # two decoders round
    daskflow.save(between, tmp_path / "back", encoding="jpeg").run(progress=False)
    assert chunks(tmp_path / "back") == chunks(jpeg)


def test_cloudvolume_reads_the_jxl(jpeg, tmp_path):
    cloudvolume = pytest.importorskip("cloudvolume")
    daskflow.save(daskflow.open(jpeg), tmp_path / "jxl", encoding="jxl").run(progress=False)
    stored = np.asarray(cloudvolume.CloudVolume(f"file://{tmp_path}/jxl", progress=False)[:])[..., 0].T
    np.testing.assert_array_equal(stored, daskflow.open(tmp_path / "jxl").read())


@pytest.mark.parametrize("change", [{"quality": 90}, {"chunk": (4, 8, 16)}, {"crop": True}])
def test_voxels_are_encoded_where_chunks_cannot_stay(jpeg, tmp_path, change):
    change = dict(change)
    volume = daskflow.open(jpeg)
    if change.pop("crop", False):
        volume = volume[2:]
    job = daskflow.save(volume, tmp_path / "jxl", encoding="jxl", **change)
    assert "without a loss" not in str(job.plan())


def test_jxl_that_was_no_jpeg_is_encoded(jpeg, tmp_path):
    daskflow.save(daskflow.open(jpeg), tmp_path / "jxl", encoding="jxl", quality=100).run(progress=False)
    job = daskflow.save(daskflow.open(tmp_path / "jxl"), tmp_path / "back", encoding="jpeg")
    assert "without a loss" not in str(job.plan())


def test_a_missing_chunk_is_an_error(jpeg, tmp_path):
    next((jpeg / "4_4_40").iterdir()).unlink()
    report = daskflow.save(daskflow.open(jpeg), tmp_path / "jxl", encoding="jxl").run(progress=False, retries=0)
    assert "missing" in str(report.failures)
    filled = daskflow.save(daskflow.open(jpeg, fill_missing=True), tmp_path / "filled", encoding="jxl")
    assert "without a loss" not in str(filled.plan())
    assert filled.run(progress=False).ok
