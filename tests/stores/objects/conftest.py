"""A small segmentation without voxels, beside which objects are written."""

from __future__ import annotations

import json

import pytest

from daskflow.stores.objects.files import write_file
from daskflow.stores.precomputed_info import load_info, save_info


@pytest.fixture
def layer(tmp_path):
    """The URL of a layer of 64^3 voxels of 4 x 4 x 40 nm (xyz), with an offset."""
    scale = {
        "key": "4_4_40", "size": [64, 64, 64], "resolution": [4, 4, 40], "voxel_offset": [10, -20, 0],
        "chunk_sizes": [[64, 64, 64]], "encoding": "raw",
    }  # fmt: skip
    info = {"data_type": "uint64", "num_channels": 1, "type": "segmentation", "scales": [scale]}
    url = f"file://{tmp_path}/layer"
    save_info(url, info)
    return url


@pytest.fixture
def with_objects(layer):
    """A function that writes the info of a directory of objects and names it in the layer's."""

    def name(key, info):
        write_file(f"{layer}/{key}_dir", "info", json.dumps(info).encode())
        save_info(layer, load_info(layer) | {key: f"{key}_dir"})
        return f"{layer}/{key}_dir"

    return name
