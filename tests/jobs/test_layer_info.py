"""What a layer is, on one screen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.jobs.layer_info import layer_info
from daskflow.stores.base import Layout
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.mesh_files import encode_manifest, legacy_info, manifest_name
from daskflow.stores.objects.shards import object_sharding, write_shard
from daskflow.stores.objects.skeleton_files import skeleton_info
from daskflow.stores.opening import create_store
from daskflow.stores.precomputed_info import load_info, save_info

SPEC = VolumeSpec(
    BoundingBox((-8, 0, 4), (24, 32, 36)), np.dtype("uint64"), voxel_size=(40.0, 4.0, 4.5), layer_type="segmentation"
)
FIRST = BoundingBox((-8, 0, 4), (8, 16, 20))


def make(url, spec=SPEC, **layout):
    store = create_store(url, spec, layout=Layout(**{"chunk": (16, 16, 16), **layout}))
    store.write(FIRST, np.full(spec.shape_of(FIRST), 7, spec.dtype))
    return url


def size_on_disk(path):
    names = ("info", "zarr.json", ".zarray", ".zattrs", ".zgroup")
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and file.name not in names)


@pytest.mark.parametrize(
    ("name", "layout"),
    [("plain", {}), ("zipped", {"compression": "gzip"}), ("sharded", {"shard": (16, 16, 16)}), ("a.zarr", {})],
)
def test_chunks_are_counted_and_weighed(tmp_path, name, layout):
    info = layer_info(make(f"{tmp_path}/{name}", **layout))
    (level,) = info.levels
    assert (level.stored, level.expected) == (1, 8)
    assert info.size == level.size == size_on_disk(tmp_path)
    assert level.spec.box == SPEC.box
    text = str(info)
    assert "uint64" in text
    assert "40 4 4.5" in text
    assert "1 of 8" in text
    assert "88%" in text
    assert max(map(len, text.splitlines())) <= 120


def test_channels_of_a_zarr_array_are_chunks_beside_each_other(tmp_path):
    spec = SPEC.replace(channels=3, dtype=np.dtype("float32"), layer_type="affinity_map")
    info = layer_info(make(f"{tmp_path}/a.zarr", spec))
    assert info.levels[0].stored * 8 == info.levels[0].expected


def test_meshes_and_skeletons_are_named_with_their_kind(tmp_path):
    layer = make(f"{tmp_path}/layer")
    write_file(f"{layer}/m", "info", json.dumps(legacy_info(mip=0, spatial_index={})).encode())
    for label in (5, 6):
        write_file(f"{layer}/m", manifest_name(label), encode_manifest([]))
    sharding = object_sharding(3)
    write_file(f"{layer}/s", "info", json.dumps(skeleton_info(sharding=sharding)).encode())
    write_shard(f"{layer}/s", 0, sharding, {1: b"a", 2: b"b", 3: b"c"})
    save_info(layer, load_info(layer) | {"mesh": "m", "skeletons": "s"})
    info = layer_info(layer)
    mesh, skeletons = info.objects
    assert (mesh.directory, mesh.format, mesh.labels, mesh.files) == ("m", "legacy, unsharded, spatial index", 2, 3)
    assert (skeletons.format, skeletons.labels, skeletons.files) == ("sharded", 3, 2)
    assert info.size == size_on_disk(tmp_path) + sum((tmp_path / f"layer/{d}/info").stat().st_size for d in "ms")
    html = info._repr_html_()
    assert all(text in html for text in ("legacy, unsharded", "sharded", "uint64", "1 of 8"))


def test_objects_of_an_unknown_kind_are_named_as_they_are(tmp_path):
    layer = make(f"{tmp_path}/layer")
    write_file(f"{layer}/m", "info", b'{"@type": "graphene"}')
    save_info(layer, load_info(layer) | {"mesh": "m"})
    assert layer_info(layer).objects[0].format == "graphene"


def test_nothing_is_listed_in_a_bucket_unless_asked():
    make("memory://layer-info/layer")
    assert layer_info("memory://layer-info/layer").levels[0].stored is None
    found = layer_info("memory://layer-info/layer", scan=True)
    assert found.levels[0].stored == 1
    assert found.size is None
    assert "? of 8" in str(layer_info("memory://layer-info/layer"))


def test_html_is_escaped(tmp_path):
    layer = make(f"{tmp_path}/<b>")
    assert "<b>/" not in layer_info(layer)._repr_html_().replace("<b>file", "")
    assert "&lt;b&gt;" in layer_info(layer)._repr_html_()


def test_what_is_no_layer_is_refused(tmp_path):
    with pytest.raises(StoreNotFoundError):
        layer_info(f"{tmp_path}/nothing")
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(ParameterError, match="one file"):
        layer_info(tmp_path / "a.npy")
