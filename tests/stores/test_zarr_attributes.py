from __future__ import annotations

import logging

import pytest
import zarr

from daskflow.stores.opening import open_store


@pytest.mark.parametrize(
    ("attributes", "voxel_size", "offset"),
    [
        ({}, None, (0, 0, 0)),
        ({"resolution": [40, 4, 4], "offset": [400, -8, 12]}, (40, 4, 4), (10, -2, 3)),
        ({"voxel_size": [40, 4, 4], "voxel_offset": [1, 2, -3]}, (40, 4, 4), (1, 2, -3)),
        ({"voxel_size": [0.04, 4, 4], "units": ["um", "nm", "nm"], "offset": [0.4, 8, 4]}, (40, 4, 4), (10, 2, 1)),
        ({"pixelResolution": {"dimensions": [4, 5, 40], "unit": "nm"}}, (40, 5, 4), (0, 0, 0)),
        ({"dimension_units": ["0.04 um", "4 nm", "40 angstrom"]}, (40, 4, 4), (0, 0, 0)),
        ({"dimension_units": ["nonsense", "4 nm", "4 nm"]}, None, (0, 0, 0)),
    ],
)
def test_voxel_size_and_offset_are_found_in_known_attributes(tmp_path, attributes, voxel_size, offset):
    zarr.create_array(tmp_path / "a.zarr", shape=(4, 4, 4), dtype="uint8", attributes=attributes)
    spec = open_store(tmp_path / "a.zarr").spec
    assert spec.voxel_size == (voxel_size and pytest.approx(voxel_size))
    assert spec.box.start == offset


def test_an_offset_between_voxels_is_rounded_and_warned_of(tmp_path, caplog):
    attributes = {"resolution": [4, 4, 4], "offset": [0, 6, 9]}
    zarr.create_array(tmp_path / "a.zarr", shape=(4, 4, 4), dtype="uint8", attributes=attributes)
    with caplog.at_level(logging.WARNING):
        assert open_store(tmp_path / "a.zarr").spec.box.start == (0, 2, 2)
    assert "begins between voxels" in caplog.text


def test_what_the_caller_states_wins_over_attributes(tmp_path):
    attributes = {"resolution": [4, 4, 4], "offset": [4, 4, 4]}
    zarr.create_array(tmp_path / "a.zarr", shape=(4, 4, 4), dtype="uint8", attributes=attributes)
    stated = {"voxel_size": (9, 8, 7), "voxel_offset": (-1, 0, 1), "layer_type": "segmentation"}
    spec = open_store(tmp_path / "a.zarr", **stated).spec
    assert (spec.voxel_size, spec.box.start, spec.layer_type) == ((9, 8, 7), (-1, 0, 1), "segmentation")
