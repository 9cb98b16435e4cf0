"""Layers with meshes and skeletons, in files and in shards."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from daskflow.geometry import BoundingBox
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.mesh_files import Mesh, encode_fragment, encode_manifest, legacy_info, manifest_name
from daskflow.stores.objects.shards import object_sharding, shard_numbers, write_shard
from daskflow.stores.objects.skeleton_files import Skeleton, encode_skeleton, skeleton_info
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.stores.precomputed_info import load_info, save_info

LABELS = (1, 5, 2**40 + 7)
VOLUME = BoundingBox((0, 0, 0), (64, 64, 64))
INDEX = SpatialIndex(VOLUME, (32, 64, 64), (40.0, 4.0, 4.0))


def cube(corner, side):
    """Return a closed cube between `corner` and `corner + side` (xyz nm), in a closed surface of 12 triangles."""
    corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
    faces = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1), (2, 3, 7), (2, 7, 6), (0, 2, 6),
             (0, 6, 4), (1, 5, 7), (1, 7, 3)]  # fmt: skip
    return Mesh(corners * side + np.array(corner, np.float32), np.array(faces, np.uint32))


MESHES = {label: cube((20 * i, 30, 600 * i), 100) for i, label in enumerate(LABELS)}
SKELETONS = {
    label: Skeleton(
        np.array([mesh.bounds[:3], mesh.bounds[3:]], np.float32),
        np.array([(0, 1)], np.uint32),
        {"radius": np.full(2, 9, np.float32)},
    )
    for label, mesh in MESHES.items()
}


def bare_layer(url):
    scale = {
        "key": "4_4_40", "size": [64, 64, 64], "resolution": [4, 4, 40], "voxel_offset": [0, 0, 0],
        "chunk_sizes": [[64, 64, 64]], "encoding": "raw",
    }  # fmt: skip
    info = {"data_type": "uint64", "num_channels": 1, "type": "segmentation", "scales": [scale]}
    save_info(url, info)
    return url


def write_objects(url, *, sharded=False):
    """Write legacy meshes, and skeletons in files or shards, with spatial indexes and what igneous leaves behind."""
    write_file(f"{url}/m", "info", json.dumps(legacy_info(mip=0, spatial_index=INDEX.info)).encode())
    spec = object_sharding(3, min_shards=2, data_encoding="gzip") if sharded else None
    info = skeleton_info(mip=0, sharding=spec, spatial_index=INDEX.info)
    write_file(f"{url}/s", "info", json.dumps(info).encode())
    for label in LABELS:
        write_file(f"{url}/m", f"{label}:0:all", encode_fragment(MESHES[label]), compression="gzip")
        write_file(f"{url}/m", manifest_name(label), encode_manifest([f"{label}:0:all"]))
        data = encode_skeleton(SKELETONS[label])
        if spec is None:
            write_file(f"{url}/s", str(label), data, compression="gzip")
    if spec is not None:
        numbers = shard_numbers(LABELS, spec)
        for number in np.unique(numbers).tolist():
            own = [label for label, n in zip(LABELS, numbers.tolist(), strict=True) if n == number]
            write_shard(f"{url}/s", number, spec, {label: encode_skeleton(SKELETONS[label]) for label in own})
    for cell in INDEX.cells():
        low, high = cell.start[0] * 40, cell.stop[0] * 40
        inside = {n: mesh.bounds for n, mesh in MESHES.items() if mesh.bounds[2] < high and mesh.bounds[5] > low}
        for directory in ("m", "s"):
            INDEX.write(f"{url}/{directory}", cell, inside, compression="gzip")
    write_file(f"{url}/m", "0-64_0-64_0-64.frags", b"left behind")
    write_file(f"{url}/s", "5:0-256_0-256_0-2560", b"left behind", compression="gzip")
    bare_layer(url)
    save_info(url, load_info(url) | {"mesh": "m", "skeletons": "s"})
    return url


@pytest.fixture
def objects():
    """What the layers hold, by label, and how they are made."""
    return SimpleNamespace(
        labels=LABELS, meshes=MESHES, skeletons=SKELETONS, bare_layer=bare_layer, write=write_objects, index=INDEX
    )


@pytest.fixture
def layer(tmp_path):
    """A layer of three labels with legacy meshes and skeletons in files."""
    return write_objects(f"file://{tmp_path}/layer")


@pytest.fixture
def sharded_layer(tmp_path):
    """The same with skeletons in shards."""
    return write_objects(f"file://{tmp_path}/sharded", sharded=True)
