"""What a layer is, on one screen."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

import daskflow
from daskflow import Volume
from daskflow.errors import StoreError, StoreNotFoundError, UnknownFormatError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.layers.info import layer_info
from daskflow.stores import kvstore
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


def test_a_chunk_that_lies_there_under_two_names_is_counted_once(tmp_path):
    make(f"{tmp_path}/layer")
    (chunk,) = (tmp_path / "layer").glob("*/*_*_*")
    for ending in (".gz", ".br"):
        chunk.with_name(chunk.name + ending).write_bytes(b"older")
    (level,) = layer_info(f"{tmp_path}/layer").levels
    assert (level.stored, level.size) == (1, chunk.stat().st_size + 10)


def test_channels_of_a_zarr_array_are_chunks_beside_each_other(tmp_path):
    spec = SPEC.replace(channels=3, dtype=np.dtype("float32"), layer_type="affinity_map")
    info = layer_info(make(f"{tmp_path}/a.zarr", spec))
    assert info.levels[0].stored * 8 == info.levels[0].expected


def test_meshes_and_skeletons_are_named_with_their_kind(tmp_path):
    layer = make(f"{tmp_path}/layer")
    index = {"resolution": [4, 4, 4], "chunk_size": [64, 64, 64]}
    write_file(f"{layer}/m", "info", json.dumps(legacy_info(mip=0, spatial_index=index)).encode())
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
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UnknownFormatError):
        layer_info(tmp_path / "a.txt")


def test_files_and_folders_are_shown_with_what_they_state(tmp_path):
    voxels = np.arange(4 * 6 * 8, dtype=np.uint16).reshape(4, 6, 8)
    np.save(tmp_path / "a.npy", voxels)
    daskflow.save(Volume.from_array(voxels, voxel_size=(40, 8, 4)), tmp_path / "a.tif").run(progress=False)
    (tmp_path / "sections").mkdir()
    for z in range(4):
        tifffile.imwrite(tmp_path / f"sections/{z}.tif", voxels[z])
    unknown, known, sections = (layer_info(tmp_path / name) for name in ("a.npy", "a.tif", "sections"))
    for info in (unknown, known, sections):
        assert info.levels[0].spec.box.shape == (4, 6, 8)
        assert info.size
        assert "uint16" in str(info)
        assert "axes: zyx" in str(info)
        assert max(map(len, str(info).splitlines()[1:])) <= 120
    assert "voxel size: unknown (not stated)" in str(unknown)
    assert "voxel size: 40x8x4 nm" in str(known)
    assert "voxel size: unknown" in sections._repr_html_()


def test_datasets_of_a_file_are_listed_when_one_must_be_chosen(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = np.zeros((4, 6, 8), np.uint8)
        file["volumes/labels"] = np.zeros((4, 3, 4), np.uint32)
    info = layer_info(tmp_path / "a.h5")
    assert [(one.name, one.shape, one.dtype.name) for one in info.members] == [
        ("raw", (4, 6, 8), "uint8"),
        ("volumes/labels", (4, 3, 4), "uint32"),
    ]
    assert "choose one with dataset=" in str(info)
    assert all("volumes/labels" in text for text in (str(info), info._repr_html_()))
    (level,) = layer_info(f"{tmp_path}/a.h5:raw").levels
    assert level.spec.box.shape == (4, 6, 8)


def group(attributes=None):
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes or {}}).encode()


@pytest.mark.parametrize("place", ["disk", "bucket"])
@pytest.mark.parametrize("kind", ["series", "plate", "labels", "arrays"])
def test_images_inside_groups_are_listed(tmp_path, place, kind):
    url = f"file://{tmp_path}/g.zarr" if place == "disk" else f"memory://info-{kind}/g.zarr"
    names = {"series": ["0", "1"], "plate": ["A/1/0", "A/1/1"], "labels": ["labels/x"], "arrays": ["raw", "v/x"]}[kind]
    spec = SPEC.replace(box=BoundingBox((0, 0, 0), (4, 6, 8)))
    for name in names:
        create_store(f"{url}/{name}", spec, format="zarr3" if kind == "arrays" else "ome-zarr")
    ome = {
        "series": {"bioformats2raw.layout": 3},
        "plate": {"plate": {"wells": [{"path": "A/1"}]}},
        "labels": {},
        "arrays": {},
    }[kind]
    kvstore.write_bytes(f"{url}/zarr.json", group({"ome": ome}))
    if kind == "plate":
        fields = [{"path": "0"}, {"path": "1"}]
        kvstore.write_bytes(f"{url}/A/1/zarr.json", group({"ome": {"well": {"images": fields}}}))
    if kind == "arrays" and place == "bucket":
        return  # which arrays there are, only a listing of every chunk would tell
    info = layer_info(url)
    assert [(one.name, one.shape, one.dtype.name) for one in info.members] == [(n, (4, 6, 8), "uint64") for n in names]


def damaged(tmp_path, size):
    spec = SPEC.replace(box=BoundingBox((-8, 0, 4), (40, 48, 60)))
    url = f"{tmp_path}/layer"
    create_store(url, spec, layout=Layout(chunk=(16, 16, 16))).write(spec.box, np.ones(spec.box.shape, spec.dtype))
    info = load_info(url)
    info["scales"][0]["size"] = size
    (tmp_path / "layer/info").write_text(json.dumps(info))
    return url


@pytest.mark.parametrize("size", [[32, 32, 32], [5, 40, 500], [9999, 9999, 9999], [0, 5, 5]])
def test_level_of_a_wrong_size_is_shown_with_the_bounds_of_its_chunks(tmp_path, size):
    info = layer_info(damaged(tmp_path, size))
    (level,) = info.levels
    assert level.stored <= level.expected
    assert level.stored + level.others == 36
    assert "-8-40_0-48_4-60" in str(info)


@pytest.mark.parametrize("size", [[-3, 4, 4], "x", None, [1, 2]])
def test_layer_whose_size_is_none_is_refused_with_the_bounds_of_its_chunks(tmp_path, size):
    with pytest.raises(StoreError, match="36 chunks in -8-40_0-48_4-60"):
        layer_info(damaged(tmp_path, size))


def test_where_each_value_is_stated_is_shown(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        raw = file.create_dataset("raw", data=np.zeros((4, 6, 8), np.uint8), chunks=(2, 6, 8), compression="gzip")
        raw.attrs["element_size_um"] = (0.04, 0.008, 0.004)
        file["alias"] = h5py.SoftLink("/raw")
    info = layer_info(tmp_path / "a.h5")
    assert "voxel size: 40x8x4 nm (attribute element_size_um" in str(info)
    assert "layer type: unknown (not stated)" in str(info)
    assert " gzip " in str(info)
    assert info.members == ()
    layer = make(f"{tmp_path}/layer")
    assert "voxel size: 40x4x4.5 nm (info)" in str(layer_info(layer))
