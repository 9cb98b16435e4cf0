import numpy as np
import pytest

import daskflow
from daskflow import BoundingBox, Volume, VolumeSpec


@pytest.fixture
def labels(tmp_path):
    np.save(tmp_path / "labels.npy", np.ones((40, 40, 40), np.uint16))
    return str(tmp_path / "labels.npy")


def lines(job):
    return [line for line in str(job.plan()).splitlines() if line.startswith(("in ", "out "))]


def test_plan_shows_dtype_and_voxel_size_of_what_goes_in_and_comes_out(labels, tmp_path):
    volume = daskflow.open(labels, voxel_size=(40, 8, 4), layer_type="segmentation")
    source, *made = lines(daskflow.save(daskflow.astype(volume, dtype="uint64"), tmp_path / "out", levels=1))
    assert source.startswith("in ")
    assert source.endswith("labels.npy: uint16 segmentation, 40x8x4 nm")
    assert [line.rpartition("/")[2] for line in made] == [
        "out: uint64 segmentation, 40x8x4 nm",
        "out mip 1: uint64 segmentation, 40x16x8 nm",
    ]


def test_plan_shows_an_unknown_voxel_size_and_what_it_is_taken_as(labels, tmp_path):
    volume = daskflow.open(labels, layer_type="segmentation")
    for job in (
        daskflow.save(daskflow.connected_components(volume), tmp_path / "out"),
        daskflow.mesh(volume, output=str(tmp_path / "meshes")),
        daskflow.skeletonize(volume, output=str(tmp_path / "skeletons")),
    ):
        assert lines(job)[0].endswith("labels.npy: uint16 segmentation, voxel size unknown")
        assert str(job.plan()).count("taken as 1 nm; open it with --voxel-size") == 1
        assert "voxel size unknown" in job._repr_html_()


def test_lines_of_volumes_fit_a_screen(tmp_path):
    deep = tmp_path / ("deep" * 20)
    job = daskflow.save(Volume.from_array(np.ones((2, 8, 8, 8), np.float32), voxel_size=(33.3, 4.04, 4.04)), deep)
    assert lines(job)[0] == "in  array: float32 x 2, 33.3x4.04x4.04 nm"
    assert max(map(len, lines(job))) <= 80


@pytest.mark.parametrize("shape", [(10**6,) * 3, (10**18, 1, 1), (10**18,) * 3])
def test_volume_of_any_size_has_a_repr(shape):
    def zeros(box):
        return np.zeros(box.shape, np.uint8)

    volume = Volume.from_function(zeros, VolumeSpec(BoundingBox((0, 0, 0), shape), np.dtype(np.uint8)))
    for one in (volume, volume.map_blocks(np.negative, dtype="uint8")):
        assert "x".join(map(str, shape)) in repr(one)
        assert "voxel size unknown" in repr(one)
        assert "unknown" in one._repr_html_()
