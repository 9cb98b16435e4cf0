"""Metadata of any shape, and files of objects of any bytes, are read or end in an error of daskflow's."""

from __future__ import annotations

import contextlib
import json
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import DaskflowError, StoreError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.layers.info import layer_info
from daskflow.operators.objects._download import download_job
from daskflow.operators.objects.copy_objects import ListObjects, Transfer
from daskflow.stores.base import Layout
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.layer_objects import Meshes, Skeletons
from daskflow.stores.objects.mesh_files import (
    Level,
    Mesh,
    MultiresManifest,
    encode_draco,
    encode_fragment,
    encode_manifest,
    legacy_info,
    multires_info,
)
from daskflow.stores.objects.shards import object_sharding, write_shard
from daskflow.stores.objects.skeleton_files import Skeleton, encode_skeleton, skeleton_info
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.stores.opening import create_store, open_store
from daskflow.stores.precomputed_info import read_rois, write_rois
from daskflow.testing.stores import damaged
from daskflow.volume.stage import Scope

BOX = BoundingBox((0, 0, 0), (8, 8, 8))
SPEC = VolumeSpec(BOX, np.dtype(np.uint32), voxel_size=(4, 4, 4), layer_type="segmentation")
TRIANGLE = Mesh(np.eye(3, dtype=np.float32), np.array([(0, 1, 2)], np.uint32))
LINE = Skeleton(np.eye(3, dtype=np.float32)[:2], np.array([(0, 1)], np.uint32), {"radius": np.ones(2, np.float32)})
INDEX = SpatialIndex(BOX, (8, 8, 8), (4, 4, 4))


def manifest():
    fragment = encode_draco(TRIANGLE.vertices * 1023, TRIANGLE.faces, bits=10)
    level = Level(np.zeros((1, 3), np.uint32), np.array([len(fragment)], np.uint32))
    return fragment, MultiresManifest((8, 8, 8), (0, 0, 0), (level,)).encode()


def a_layer(directory, *, sharded=False, multires=False, compression=None):
    """Store a layer of two levels, its meshes and its skeletons, and return their URL."""
    url = f"file://{directory}"
    packing = {"shard": (8, 8, 8), "compression": "gzip"} if sharded else {"compression": compression}
    layout = Layout(chunk=(4, 4, 4), **packing)
    for mip, spec in enumerate((SPEC, SPEC.coarsened((1, 2, 2)))):
        create_store(url, spec, mip=mip, layout=layout).write(spec.box, np.ones(spec.box.shape, np.uint32))
    write_rois(url, [BOX])
    sharding = object_sharding(1, data_encoding="gzip") if sharded else None
    more = {"mip": 0, "spatial_index": INDEX.info}
    info = json.loads((directory / "info").read_text())
    extra = {"channel_names": ["a"], "layer_type": "segmentation", "background": {"4_4_4": 1}}
    info["daskflow"] = info.get("daskflow", {}) | extra
    (directory / "info").write_text(json.dumps(info | {"mesh": "mesh", "skeletons": "skel"}))
    if multires:
        mesh = {**multires_info(voxel_size=(4, 4, 4), bits=10, sharding=object_sharding(1), **more)}
        mesh = mesh if sharded else {k: v for k, v in mesh.items() if k != "sharding"}
    else:
        mesh = legacy_info(**more)
    for name, info in {"mesh": mesh, "skel": skeleton_info(sharding=sharding, **more)}.items():
        write_file(f"{url}/{name}", "info", json.dumps(info).encode())
        INDEX.write(f"{url}/{name}", BOX, {5: (0, 0, 0, 9, 9, 9)})
    fragments, listed = manifest()
    if sharded:
        write_shard(f"{url}/skel", 0, sharding, {5: encode_skeleton(LINE)})
        write_shard(f"{url}/mesh", 0, object_sharding(1), {5: (fragments, listed)})
        return url
    write_file(f"{url}/skel", "5", encode_skeleton(LINE))
    write_file(f"{url}/mesh", "5" if multires else "5:0:a", fragments if multires else encode_fragment(TRIANGLE))
    write_file(f"{url}/mesh", "5.index" if multires else "5:0", listed if multires else encode_manifest(["5:0:a"]))
    return url


def read_all(url, **opening):
    store = open_store(url, **opening)
    if store.spec.box.size < 10**6:
        store.read(store.spec.box)


def copied(url, most):
    transfer = Transfer(url, f"memory://{uuid.uuid4().hex}", ("mesh", "skeletons"), most, 1, (8, 8, 8), 1)
    step = ListObjects(transfer, Scope("objects"))
    step.compute(BOX, step.read(BOX))
    for key in step.transfer.present():
        step.transfer.info(key, 1)


def download(kind, url):
    form = "ply" if kind == "mesh" else "swc"
    job = download_job(kind, url, "memory://out", form=form, labels=None, start=(0, 0, 0), stop=None, size=(8, 8, 8))
    task = job.stages[0].task
    task.compute(BOX, task.read(BoundingBox((0, 0, 0), (1, 1, 1))))


def objects(kind, url):
    found = kind(url)
    for label in found.labels().tolist():
        found.read(label)
    found.read(5)


LAYER = (
    read_all,
    lambda url: read_all(url, mip=1, fill_missing=True),
    layer_info,
    lambda url: layer_info(url, scan=False),
    read_rois,
    lambda url: open_store(url).fingerprint(),
)
OBJECTS = (
    layer_info,
    lambda url: objects(Meshes, url),
    lambda url: Meshes(url).read(5, lod=-1),
    lambda url: objects(Skeletons, url),
    lambda url: download("mesh", url),
    lambda url: download("skeleton", url),
    lambda url: copied(url, None),
    lambda url: copied(url, 1),
)
LAYERS = {
    "plain": {},
    "zipped": {"compression": "gzip"},
    "multires": {"multires": True},
    "sharded": {"sharded": True},
    "sharded multires": {"sharded": True, "multires": True},
}


@pytest.fixture(scope="module", params=LAYERS)
def layer(request, tmp_path_factory):
    """The directory of a layer that every way reads."""
    directory = tmp_path_factory.mktemp("layer")
    url = a_layer(directory, **LAYERS[request.param])
    for way in (*LAYER, *OBJECTS):
        way(url)
    return directory


def attempt(ways, directory, name, data):
    """Read a layer in which one file has other bytes."""
    path = directory / name
    whole = path.read_bytes()
    path.write_bytes(data)
    try:
        for way in ways:
            with contextlib.suppress(DaskflowError):
                way(f"file://{directory}")
    finally:
        path.write_bytes(whole)


def files(directory, patterns):
    return [str(path.relative_to(directory)) for pattern in patterns for path in sorted(directory.glob(pattern))]


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_info_of_a_layer(layer, data):
    content = data.draw(st.sampled_from(list(damaged(json.loads((layer / "info").read_bytes())))))
    attempt(LAYER, layer, "info", json.dumps(content).encode())


@settings(max_examples=30)
@given(data=st.data())
def test_damaged_json_of_meshes_and_skeletons(layer, data):
    name = data.draw(st.sampled_from(files(layer, ["info", "*/info", "*/*.spatial", "mesh/5:0"])))
    content = data.draw(st.sampled_from(list(damaged(json.loads((layer / name).read_bytes())))))
    attempt(OBJECTS, layer, name, json.dumps(content).encode())


@settings(max_examples=30)
@given(data=st.data())
def test_files_of_objects_that_are_cut_or_changed(layer, data):
    name = data.draw(st.sampled_from(files(layer, ["mesh/5*", "skel/5*", "*/*.shard"])))
    whole = (layer / name).read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    piece = data.draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 8, b"\xff" * 7 + b"\x7f", bytes(8)]))
    attempt(OBJECTS, layer, name, whole[:at] + piece + whole[at + len(piece) : data.draw(st.none() | st.integers(0))])


@pytest.mark.parametrize("data", [b"", b"[" * 10**5, b"\xff\xfe", b"[]", b"9" * 5000])
@pytest.mark.parametrize("name", ["info", "mesh/info", "skel/info", "mesh/5:0"])
def test_what_is_no_object_of_json(tmp_path, name, data):
    url = a_layer(tmp_path)
    (tmp_path / name).write_bytes(data)
    way = {"info": read_all, "skel/info": Skeletons}.get(name, lambda url: Meshes(url).read(5))
    with pytest.raises(DaskflowError):
        way(url)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("scales", 0, "size"), [8, 8.5, 8], "whole numbers"),
        (("scales", 0, "encoding"), None, "mip 0 in .*info states encoding None, which must be text; correct it there"),
        (("daskflow", "background", "4_4_4"), -1, "-1 as the background of mip 0, which uint32 cannot hold"),
        (("scales", 0, "sharding", "minishard_bits"), 2**70, "minishard_bits .* a whole number from 0 to 32"),
    ],
)
def test_the_value_is_named_and_what_it_must_be(tmp_path, place, value, message):
    url = a_layer(tmp_path, sharded=True)
    info = part = json.loads((tmp_path / "info").read_text())
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (tmp_path / "info").write_text(json.dumps(info))
    with pytest.raises(StoreError, match=message):
        open_store(url)
