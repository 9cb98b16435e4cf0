"""The spatial index of objects that are there, and its database, beside CloudVolume's."""

from __future__ import annotations

import json
import sqlite3

import numpy as np
import pytest

import daskflow
from daskflow.errors import MissingChunkError, ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox
from daskflow.stores.objects.layer_objects import Meshes
from daskflow.stores.objects.spatial_index import SpatialIndex


@pytest.fixture
def segmentation(tmp_path):
    pytest.importorskip("zmesh")
    labels = np.zeros((20, 24, 28), np.uint64)
    labels[3:15, 3:20, 4:25] = 3
    labels[16:18, 5:11, 4:18] = 2**40
    labels[1:2, 1:23, 1:27] = 7
    path = tmp_path / "seg"
    place = {"voxel_size": (40, 4, 4), "voxel_offset": (-2, 0, 5)}
    volume = daskflow.Volume.from_array(labels, **place, layer_type="segmentation")
    volume.save(path).run(progress=False)
    daskflow.mesh(daskflow.open(path), spatial_index=False, exclude_labels=[7]).run(progress=False)
    return path


@pytest.mark.parametrize("shape", [(20, 24, 28), (7, 9, 28)])
def test_an_index_has_the_labels_that_have_meshes_and_their_boxes(segmentation, shape):
    with pytest.raises(StoreNotFoundError, match="index-objects"):
        daskflow.index_database(str(segmentation), f"{segmentation}.db")
    volume = daskflow.open(segmentation)
    before = Meshes(str(segmentation)).info
    assert daskflow.index_objects(volume, shape=shape).run(progress=False).ok
    meshes = Meshes(str(segmentation))
    assert {**before, "spatial_index": meshes.info["spatial_index"]} == meshes.info
    index = SpatialIndex.of(meshes.info, volume.box)
    found = index.query(meshes.directory)
    assert list(found) == meshes.labels().tolist() == [3, 2**40]
    assert found[3].tolist() == [36, 12, 40, 120, 80, 520]
    assert list(index.query(meshes.directory, BoundingBox((15, 0, 5), (18, 24, 33)))) == [2**40]


def test_the_database_is_that_of_cloudvolume(segmentation, tmp_path):
    cloudvolume = pytest.importorskip("cloudvolume")
    daskflow.index_objects(daskflow.open(segmentation), shape=(7, 9, 28)).run(progress=False)
    daskflow.index_database(str(segmentation), tmp_path / "ours.db").run(progress=False)
    theirs = cloudvolume.CloudVolume(f"precomputed://file://{segmentation}").mesh.spatial_index
    theirs.to_sqlite(str(tmp_path / "theirs.db"), progress=False)
    contents = []
    for name in ("ours", "theirs"):
        with sqlite3.connect(tmp_path / f"{name}.db") as database:
            rows = "SELECT label, filename FROM file_lookup, index_files WHERE fid = id ORDER BY label, filename"
            tables = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
            files = "SELECT filename FROM index_files ORDER BY filename"
            contents.append([database.execute(one).fetchall() for one in (rows, tables, files)])
    assert contents[0] == contents[1]
    assert len(contents[0][2]) == 9
    info = json.loads((tmp_path / "seg" / "info").read_text())
    next((tmp_path / "seg" / info["mesh"]).glob("*.spatial")).unlink()
    report = daskflow.index_database(str(segmentation), tmp_path / "other.db").run(progress=False)
    assert report.failures[0].exception == MissingChunkError.__name__


def test_a_part_or_another_level_is_refused(segmentation):
    volume = daskflow.open(segmentation)
    with pytest.raises(ParameterError, match="whole precomputed layer"):
        daskflow.index_objects(volume.crop(BoundingBox((0, 0, 5), (4, 4, 9))))
    daskflow.downsample(volume, levels=1).run(progress=False)
    with pytest.raises(ParameterError, match="--mip 0"):
        daskflow.index_objects(daskflow.open(segmentation, mip=1))


def test_shards_and_draco_are_as_asked(segmentation, tmp_path):
    volume = daskflow.open(segmentation)
    index = {"minishard_index_encoding": "raw", "shard_index_bytes": 1024, "minishard_index_bytes": 4096}
    sizes = []
    for level in (0, 10):
        url = tmp_path / f"mesh{level}"
        job = daskflow.mesh(volume, output=url, min_shards=4, draco_level=level, vertex_bits=10, max_error=0, **index)
        sizes.append(job.run(progress=False).results["meshes"]["mesh_bytes"])
        sharding = json.loads((url / "info").read_text())["sharding"]
        assert (sharding["shard_bits"], sharding["minishard_index_encoding"]) == (2, "raw")
    assert sizes[0] > sizes[1]
    with pytest.raises(ParameterError, match="give 0 to 10"):
        daskflow.mesh(volume, draco_level=11)
    pytest.importorskip("kimimaro")
    job = daskflow.skeletonize(volume, format="sharded", min_shards=2, data_encoding="raw", **index)
    assert job.run(progress=False).ok
    name = json.loads((segmentation / "info").read_text())["skeletons"]
    sharding = json.loads((segmentation / name / "info").read_text())["sharding"]
    assert (sharding["shard_bits"], sharding["data_encoding"]) == (1, "raw")
