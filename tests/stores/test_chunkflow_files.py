"""Files that chunkflow 1.2.0 wrote, as `chunkflow_files/make.py` says; see there for their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import daskflow
from daskflow.geometry import BoundingBox

FILES = Path(__file__).parent / "chunkflow_files"
VALUES = np.arange(8 * 9 * 10).reshape(8, 9, 10)
BOX = BoundingBox((-1, 2, 3), (7, 11, 13))


@pytest.mark.parametrize(
    ("name", "expected", "layer_type"),
    [
        ("image.h5", VALUES % 251, "image"),
        (f"labels_{BOX}.h5", VALUES % 5 * 7, "segmentation"),
        ("affinities.h5", np.stack([VALUES / 720] * 3).astype(np.float32), "affinity_map"),
    ],
)
def test_hdf5_has_place_size_and_kind(name, expected, layer_type):
    pytest.importorskip("h5py")
    volume = daskflow.load_h5(file_name=FILES / name)
    assert (volume.box, volume.voxel_size, volume.layer_type) == (BOX, (40, 4, 4), layer_type)
    np.testing.assert_array_equal(volume.read(), expected)
    part = daskflow.load_h5(file_name=FILES / name, cutout_start=(0, 3, 4), cutout_size=(2, -1, 3))
    np.testing.assert_array_equal(part.read(), expected[..., 1:3, 1:, 1:4])


def test_a_prefix_is_completed_by_the_box():
    pytest.importorskip("h5py")
    labels = daskflow.load_h5(file_name=FILES / "labels_", cutout_start=BOX.start, cutout_stop=BOX.stop)
    np.testing.assert_array_equal(labels.read(), VALUES % 5 * 7)


def test_tiff_has_the_voxels():
    np.testing.assert_array_equal(daskflow.load_tif(file_name=FILES / "image.tif").read(), VALUES % 251)


def test_zarr_of_order_xyz_is_read_as_zyx():
    volume = daskflow.load_zarr(store=FILES / "sine.zarr")
    expected = daskflow.create_chunk(size=(4, 6, 8)).read()
    assert volume.voxel_size == (40, 4, 4)
    np.testing.assert_array_equal(volume.read(), expected)


def test_a_precomputed_layer_is_read_and_added_to(tmp_path):
    volume = daskflow.load_precomputed(volume_path=FILES / "layer")
    assert volume.box == BOX
    np.testing.assert_array_equal(volume.read(), VALUES % 251)
