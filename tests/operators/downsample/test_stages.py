"""Volumes saved with their levels: in one job, alone or with other outputs."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import daskflow
from daskflow.cli.app import app
from daskflow.errors import AlignmentError, ParameterError
from daskflow.jobs import merge
from daskflow.operators.stores.downsample.kernels import Carried, Downsampling


def expected(array, levels, method="mean", factor=(1, 2, 2)):
    return Downsampling(factor, method).run(Carried(array), levels, dtype=array.dtype)[0]


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 255, (20, 45, 75)).astype(np.uint8)


@pytest.mark.parametrize("memory", ["512MB", "20kB"])
def test_levels_are_written_with_the_volume(array, memory, tmp_path):
    volume = daskflow.open(array, voxel_offset=(3, -5, 7), layer_type="image")
    job = volume.save(tmp_path / "layer", chunk=(8, 16, 16), levels=3, memory=memory)
    assert (len(job.stages) == 1) == (memory == "512MB")
    job.run(progress=False)
    for mip, wanted in enumerate([array, *expected(array, 3)]):
        np.testing.assert_array_equal(daskflow.open(tmp_path / "layer", mip=mip).read(), wanted)
    (entry,) = json.loads((tmp_path / "layer/provenance").read_text())["processing"]
    assert entry["method"]["mips"] == [0, 1, 2, 3]
    assert job.run(progress=False).already_done
    assert job.verify(progress=False).ok


@pytest.mark.parametrize("memory", ["512MB", "20kB"])
def test_outputs_with_levels_share_each_block_with_others(array, memory, tmp_path):
    volume = daskflow.open(array, layer_type="image")
    cut = volume.map_blocks(above, dtype="uint8")
    jobs = [
        volume.save(tmp_path / "layer", chunk=(8, 16, 16), levels=2, memory=memory),
        cut.save(tmp_path / "cut.zarr", chunk=(4, 32, 32), levels=3, method="max", memory=memory),
        cut.save(tmp_path / "cut.npy"),
    ]
    job = merge(jobs)
    assert any(stage.name.startswith("downsample") for stage in job.stages) == (memory == "20kB")
    assert job.run(progress=False).ok
    for mip, wanted in enumerate(expected(array, 2), start=1):
        np.testing.assert_array_equal(daskflow.open(tmp_path / "layer", mip=mip).read(), wanted)
    for mip, wanted in enumerate(expected(above(array), 3, "max"), start=1):
        np.testing.assert_array_equal(daskflow.open(tmp_path / "cut.zarr", mip=mip).read(), wanted)
    np.testing.assert_array_equal(np.load(tmp_path / "cut.npy"), above(array))


def above(array):
    return (array > 100).astype(np.uint8)


def test_levels_of_a_computed_segmentation_are_modes(tmp_path):
    noise = np.random.default_rng(0).random((16, 32, 32), np.float32)
    volume = daskflow.connected_components(daskflow.open(noise), threshold=0.7)
    volume.save(tmp_path / "labels", chunk=(8, 8, 8), levels=1).run(progress=False)
    (wanted,) = expected(daskflow.open(tmp_path / "labels").read(), 1, "mode")
    np.testing.assert_array_equal(daskflow.open(tmp_path / "labels", mip=1).read(), wanted)


@pytest.mark.parametrize("name", ["layer", "layer.zarr"])
def test_shards_are_chosen_by_memory(array, name, tmp_path):
    volume = daskflow.open(array, layer_type="image")
    volume.save(tmp_path / name, chunk=(8, 16, 16), shard="auto", memory="20kB", levels=2).run(progress=False)
    for mip, wanted in enumerate([array, *expected(array, 2)]):
        found = daskflow.open(tmp_path / name, mip=mip)
        assert found.spec.shard is not None
        assert np.prod(found.spec.shard) <= 24_000
        np.testing.assert_array_equal(found.read(), wanted)


def test_the_command_line_asks_for_shards_and_levels(array, tmp_path):
    daskflow.open(array, layer_type="image").save(tmp_path / "layer").run(progress=False)
    words = ["--quiet", "open", str(tmp_path / "layer"), "save", str(tmp_path / "copy"), "--shard", "auto"]
    result = CliRunner().invoke(app, [*words, "--levels", "2", "--chunk", "8", "16", "16"])
    assert result.exit_code == 0, result.output
    scales = json.loads((tmp_path / "copy/info").read_text())["scales"]
    assert [("sharding" in scale, scale["key"]) for scale in scales] == [
        (True, "1_1_1"),
        (True, "2_2_1"),
        (True, "4_4_1"),
    ]
    result = CliRunner().invoke(app, ["--quiet", "open", str(tmp_path / "copy"), "downsample", "-f", "2", "2", "2"])
    assert result.exit_code != 0
    assert "was made otherwise" in result.output


def test_levels_of_a_moved_volume_lie_at_halved_offsets(array, tmp_path):
    volume = daskflow.open(array, voxel_offset=(5, 20, 10), layer_type="image")
    volume.save(tmp_path / "layer", chunk=(8, 8, 8), levels=3).run(progress=False)
    offsets = [scale["voxel_offset"] for scale in json.loads((tmp_path / "layer/info").read_text())["scales"]]
    assert offsets == [[10, 20, 5], [5, 10, 5], [2, 5, 5], [1, 2, 5]]


def test_chunks_of_zeros_are_left_out_of_every_level(tmp_path):
    array = np.zeros((8, 64, 64), np.uint8)
    array[:, :32, :32] = 9
    volume = daskflow.open(array, layer_type="image")
    volume.save(tmp_path / "layer", chunk=(8, 16, 16), levels=1, delete_background=True).run(progress=False)
    counts = [len(list((tmp_path / "layer" / key).iterdir())) for key in ("1_1_1", "2_2_1")]
    assert counts == [4, 1]


def test_blocks_that_share_a_chunk_of_a_level_are_refused(array, tmp_path):
    with pytest.raises(AlignmentError, match="nearest is"):
        daskflow.open(array).save(tmp_path / "layer", chunk=(8, 16, 16), levels=2, block=(8, 32, 32))


def test_files_have_no_levels(array, tmp_path):
    with pytest.raises(ParameterError, match="levels=2"):
        daskflow.open(array).save(tmp_path / "a.npy", levels=2)


def test_a_layer_that_lost_its_levels_is_written_again(array, tmp_path):
    volume = daskflow.open(array, layer_type="image")
    job = volume.save(tmp_path / "a.zarr", chunk=(8, 16, 16), levels=2, memory="20kB")
    job.run(progress=False)
    shutil.rmtree(tmp_path / "a.zarr")
    assert job.run(progress=False).ok
    for mip, wanted in enumerate([array, *expected(array, 2)]):
        np.testing.assert_array_equal(daskflow.open(tmp_path / "a.zarr", mip=mip).read(), wanted)


def test_means_of_two_volumes_in_one_job_are_carried_on_apart(array, tmp_path):
    volumes = {"one": daskflow.open(array, layer_type="image"), "two": daskflow.open(255 - array, layer_type="image")}
    how = {"chunk": (8, 16, 16), "levels": 3, "memory": "20kB"}
    jobs = [volume.save(tmp_path / name, **how) for name, volume in volumes.items()]
    assert merge(jobs).run(progress=False).ok
    for name, volume in volumes.items():
        for mip, wanted in enumerate(expected(volume.read(), 3), start=1):
            np.testing.assert_array_equal(daskflow.open(tmp_path / name, mip=mip).read(), wanted)
