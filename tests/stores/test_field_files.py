"""Files as people in the field have them: what ../shared/cases/make.py writes is read as its expected.json says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import daskflow
from daskflow.errors import MissingChunkError

SHARED = Path(os.environ.get("DASKFLOW_TEST_DATA", Path(__file__).parents[2].parent / "shared/data"))
MAKE = SHARED.parent / "cases/make.py"
CASES = (
    "hdf5_with_axistags_zyxc",
    "hdf5_with_axistags_xyz",
    "hdf5_with_element_size_um",
    "hdf5_virtual_dataset_without_its_source",
    "hdf5_dataset_behind_a_second_hard_link",
    "zarr2_with_axis_names_zyxc",
    "zarr2_image_group_in_a_container",
    "zarr2_null_fill_value_and_a_missing_chunk",
    "zarr2_blosc_with_a_typesize",
    "imagej_tiff_with_two_units",
    "ome_tiff_in_decimetres",
    "directory_of_ome_tiff_sections_that_name_each_other",
    "plain_tiff_that_says_nothing_of_its_voxels",
    "npy_of_64_bit_labels_in_the_other_byte_order",
)


@pytest.fixture(scope="module")
def field_files(tmp_path_factory):
    if not MAKE.exists():
        pytest.skip("the script that writes field files is not there")
    directory = tmp_path_factory.mktemp("field")
    subprocess.run([sys.executable, "-W", "ignore", MAKE, directory], check=True, capture_output=True)
    return directory, json.loads((directory / "expected.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_a_field_file_is_read_as_what_it_is(field_files, case):
    directory, expected = field_files
    want = expected[case]
    if "error" in want:
        with pytest.raises(MissingChunkError, match=r"gone\.h5"):
            daskflow.open(directory / want["path"]).compute()
        return
    volume = daskflow.open(directory / want["path"], **want.get("open", {}))
    voxels = volume.compute()
    assert (list(voxels.shape), voxels.dtype.name) == (want["shape"], want["dtype"])
    assert zlib.crc32(np.ascontiguousarray(voxels)) == want["crc32"]
    size = want["voxel_size"]
    assert volume.voxel_size == (None if size is None else pytest.approx(tuple(size)))
