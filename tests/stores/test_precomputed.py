from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import (
    CorruptChunkError,
    MetadataMismatchError,
    MissingChunkError,
    ParameterError,
    StoreNotFoundError,
    UnknownFormatError,
)
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.base import Layout
from daskflow.stores.counting import counting
from daskflow.stores.opening import create_store, open_store
from daskflow.testing.stores import StoreSuite, boxes_in, triples, voxels, write_all

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cloudvolume import CloudVolume

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

BOX = BoundingBox((5, 3, -7), (18, 24, 26))
CHUNK = (8, 16, 16)
SPEC = VolumeSpec(box=BOX, dtype="uint8", voxel_size=(40, 4, 4), layer_type="image")


def read_by_cloudvolume(path: Path, mip: int = 0) -> np.ndarray:
    """Return what CloudVolume reads, czyx."""
    return np.asarray(CloudVolume(f"file://{path}", mip=mip, progress=False, fill_missing=False)[:]).T


def smooth(spec: VolumeSpec) -> np.ndarray:
    z, y, x = np.indices(spec.box.shape)
    ramp = (2 * z + 3 * y + x + 40).astype(spec.dtype)
    return ramp if spec.channels is None else np.stack([ramp + 20 * c for c in range(spec.channels)])


class TestPrecomputed(StoreSuite):
    format = "precomputed"

    def layouts(self) -> st.SearchStrategy[Layout]:
        return triples(2, 8).map(lambda chunk: Layout(chunk=chunk, encoding="raw"))


class TestShards(StoreSuite):
    format = "precomputed"
    plain_layout = Layout(chunk=(4, 4, 4), shard=(4, 8, 8))

    def layouts(self) -> st.SearchStrategy[Layout]:
        def layout(chunk: tuple[int, int, int], compression: str | None) -> Layout:
            return Layout(chunk=chunk, shard=tuple(c << 4 for c in chunk), encoding="raw", compression=compression)

        return st.builds(layout, triples(2, 8), st.sampled_from([None, "gzip"]))


class TestLabels(StoreSuite):
    format = "precomputed"
    dtypes = ("uint32", "uint64")

    def layouts(self) -> st.SearchStrategy[Layout]:
        return triples(2, 8).map(lambda chunk: Layout(chunk=chunk, encoding="compressed_segmentation"))


class TestPng(StoreSuite):
    format = "precomputed"
    dtypes = ("uint8", "uint16")

    def layouts(self) -> st.SearchStrategy[Layout]:
        return triples(2, 8).map(lambda chunk: Layout(chunk=chunk, encoding="png"))


@given(data=st.data())
def test_shards_written_one_by_one_read_whole(data: st.DataObject) -> None:
    spec = data.draw(TestPrecomputed().specs())
    chunk = data.draw(triples(1, 4))
    bits = data.draw(st.integers(0, 7))
    grid = [-(-s // c) for s, c in zip(spec.box.shape, chunk, strict=True)]
    factors, left = [1, 1, 1], [(n - 1).bit_length() for n in grid]
    while bits and any(left):
        for axis in (2, 1, 0):
            if left[axis] and bits:
                factors[axis], left[axis], bits = factors[axis] * 2, left[axis] - 1, bits - 1
    shard = tuple(f * c for f, c in zip(factors, chunk, strict=True))
    array = voxels(spec) * (
        np.random.default_rng(1).random(spec.shape) > data.draw(st.sampled_from([0, 0.5, 0.999, 1]))
    )
    array = array.astype(spec.dtype)
    url = "memory://test-precomputed/shards"
    try:
        store = create_store(url, spec, layout=Layout(chunk=chunk, shard=shard, encoding="raw"))
        write_all(store, array)
        box = data.draw(boxes_in(spec.box))
        np.testing.assert_array_equal(open_store(url).read(box), array[(..., *box.slices(spec.box))])
        np.testing.assert_array_equal(open_store(url).read(spec.box), array)
    finally:
        kvstore.delete_tree(url)


@pytest.mark.parametrize("shard", [None, (16, 32, 32)], ids=["chunks", "shards"])
@pytest.mark.parametrize(
    ("encoding", "dtype", "channels"),
    [
        ("raw", "uint8", None),
        ("raw", "uint8", 3),
        ("raw", "float32", 3),
        ("raw", "int32", None),
        ("png", "uint8", None),
        ("compressed_segmentation", "uint32", None),
        ("compressed_segmentation", "uint64", None),
    ],
)
def test_cloudvolume_reads_what_is_written(
    tmp_path: Path, encoding: str, dtype: str, channels: int | None, shard: tuple[int, int, int] | None
) -> None:
    spec = SPEC.replace(dtype=dtype, channels=channels)
    store = create_store(tmp_path, spec, layout=Layout(chunk=CHUNK, shard=shard, encoding=encoding))
    array = voxels(spec)
    array[..., :8, :16, :16] = 0
    write_all(store, array)
    np.testing.assert_array_equal(read_by_cloudvolume(tmp_path), array if channels else array[None])
    assert CloudVolume(f"file://{tmp_path}", progress=False).voxel_offset.tolist() == [-7, 3, 5]


@pytest.mark.parametrize("shard", [None, (16, 32, 32)], ids=["chunks", "shards"])
def test_jpeg_loses_little_and_cloudvolume_reads_the_same(tmp_path: Path, shard: tuple[int, int, int] | None) -> None:
    spec = SPEC.replace(box=BoundingBox((0, 0, 0), (16, 32, 32)), chunk_origin=None)
    store = create_store(tmp_path, spec, layout=Layout(chunk=CHUNK, shard=shard, encoding="jpeg", quality=95))
    write_all(store, smooth(spec))
    found = open_store(tmp_path).read(spec.box)
    assert np.abs(found.astype(int) - smooth(spec)).max() <= 3
    np.testing.assert_array_equal(read_by_cloudvolume(tmp_path)[0], found)
    info = json.loads((tmp_path / "info").read_text())
    assert info["scales"][0]["jpeg_quality"] == 95


def test_jpeg_of_three_channels_keeps_their_order(tmp_path: Path) -> None:
    spec = SPEC.replace(channels=3)
    array = np.broadcast_to(np.array([30, 120, 210], np.uint8)[:, None, None, None], spec.shape)
    store = create_store(tmp_path, spec, layout=Layout(chunk=CHUNK, encoding="jpeg", quality=95))
    write_all(store, array)
    assert np.abs(store.read(BOX).astype(int) - array).max() <= 3


def test_cloudvolumes_shards_are_read(tmp_path: Path) -> None:
    info = CloudVolume.create_new_info(
        num_channels=1,
        layer_type="image",
        data_type="uint8",
        encoding="raw",
        resolution=(4, 4, 40),
        voxel_offset=(10, 20, -30),
        volume_size=(64, 64, 32),
        chunk_size=(16, 16, 8),
    )
    info["scales"][0]["sharding"] = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": 3,
        "minishard_bits": 3,
        "shard_bits": 0,
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    }
    volume = CloudVolume(f"file://{tmp_path}", info=info, progress=False)
    volume.commit_info()
    array = np.random.default_rng(0).integers(1, 255, (32, 64, 64), dtype=np.uint8)
    name, data = volume.image.make_shard(array.T[..., None], volume.bounds, 0)
    (tmp_path / "4_4_40").mkdir()
    (tmp_path / "4_4_40" / name).write_bytes(data)
    store = open_store(tmp_path)
    assert store.spec.shard == (32, 64, 64)
    np.testing.assert_array_equal(store.read(store.spec.box), array)


def test_default_layouts_suit_the_meaning(tmp_path: Path) -> None:
    def scale(name: str, **changes: Any) -> dict[str, Any]:
        create_store(tmp_path / name, SPEC.replace(**changes))
        return json.loads((tmp_path / name / "info").read_text())["scales"][0]

    assert scale("image")["encoding"] == "raw"
    assert scale("labels", dtype="uint64", layer_type="segmentation")["encoding"] == "compressed_segmentation"
    assert scale("small labels", dtype="uint8", layer_type="segmentation")["encoding"] == "raw"
    assert scale("chunked", chunk=(8, 8, 16))["chunk_sizes"] == [[16, 8, 8]]


def test_unknown_keys_survive_a_new_mip(tmp_path: Path) -> None:
    create_store(tmp_path, SPEC, layout=Layout(chunk=CHUNK))
    info = json.loads((tmp_path / "info").read_text())
    info |= {"mesh": "mesh_dir", "skeletons": "skel", "mine": {"a": [1, 2]}}
    info["scales"][0] |= {"hidden": True}
    (tmp_path / "info").write_text(json.dumps(info))
    coarse = SPEC.replace(box=BOX.coarsen(2), voxel_size=(80, 8, 8), chunk_origin=None)
    create_store(tmp_path, coarse, mip=1, layout=Layout(chunk=CHUNK))
    after = json.loads((tmp_path / "info").read_text())
    assert {name: value for name, value in after.items() if name != "scales"} == {
        name: value for name, value in info.items() if name != "scales"
    }
    assert after["scales"][0] == info["scales"][0]
    assert after["scales"][1]["resolution"] == [8, 8, 80]
    assert after["scales"][1]["voxel_offset"] == list(BOX.coarsen(2).start[::-1])


def test_reopening_does_not_touch_the_info(tmp_path: Path) -> None:
    create_store(tmp_path, SPEC, layout=Layout(chunk=CHUNK))
    (tmp_path / "info").write_text(json.dumps(json.loads((tmp_path / "info").read_text()), indent=7))
    before = (tmp_path / "info").read_text()
    create_store(tmp_path, SPEC, layout=Layout(chunk=CHUNK))
    create_store(tmp_path, SPEC)
    assert (tmp_path / "info").read_text() == before


@pytest.mark.parametrize(
    ("changes", "layout", "shown"),
    [
        ({"dtype": "uint16"}, Layout(), "data_type: stored 'uint8', wanted 'uint16'"),
        ({"channels": 2}, Layout(), "num_channels: stored 1, wanted 2"),
        ({"layer_type": "segmentation"}, Layout(), "type: stored 'image', wanted 'segmentation'"),
        ({"voxel_size": (40, 4, 5)}, Layout(), "resolution: stored [4, 4, 40], wanted [5, 4, 40]"),
        ({"box": BOX.shift((0, 0, 1))}, Layout(), "voxel_offset: stored [-7, 3, 5], wanted [-6, 3, 5]"),
        ({}, Layout(chunk=(8, 8, 8)), "chunk_sizes: stored [[16, 16, 8]], wanted [[8, 8, 8]]"),
        ({}, Layout(encoding="png"), "encoding: stored 'raw', wanted 'png'"),
        ({}, Layout(chunk=CHUNK, shard=(16, 32, 32)), "shard (zyx): stored None, wanted (16, 32, 32)"),
    ],
)
def test_every_disagreement_is_shown(tmp_path: Path, changes: dict[str, Any], layout: Layout, shown: str) -> None:
    create_store(tmp_path, SPEC, layout=Layout(chunk=CHUNK))
    before = (tmp_path / "info").read_text()
    with pytest.raises(MetadataMismatchError) as caught:
        create_store(tmp_path, SPEC.replace(chunk_origin=None, **changes), layout=layout)
    assert shown in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert (tmp_path / "info").read_text() == before


def test_a_richer_meaning_is_not_held_against_a_plain_layer(tmp_path: Path) -> None:
    create_store(tmp_path, SPEC, layout=Layout(chunk=CHUNK))
    create_store(tmp_path, SPEC.replace(layer_type="probability_map"), layout=Layout(chunk=CHUNK))
    create_store(tmp_path / "affinities", SPEC.replace(layer_type="affinity_map"))
    with pytest.raises(MetadataMismatchError, match="layer_type: stored 'affinity_map', wanted 'probability_map'"):
        create_store(tmp_path / "affinities", SPEC.replace(layer_type="probability_map"))


@pytest.mark.parametrize(
    ("changes", "layout", "said"),
    [
        ({"dtype": "float64"}, Layout(), r"float64; cast with astype\('float32'\)"),
        ({"dtype": "float16"}, Layout(), r"float16; cast with astype\('float32'\)"),
        ({"dtype": "bool"}, Layout(), r"bool; cast with astype\('uint8'\)"),
        ({"dtype": "int64"}, Layout(), r"int64; cast with astype\('uint64'\)"),
        ({"dtype": "uint16"}, Layout(encoding="jpeg"), r"jpeg cannot hold uint16; cast with astype\('uint8'\)"),
        ({}, Layout(encoding="compressed_segmentation"), r"cast with astype\('uint32'\)"),
        ({"channels": 2}, Layout(encoding="jpeg"), "not 2; use raw"),
        ({}, Layout(encoding="webp"), "'webp' of precomputed chunks is none of raw, png"),
        ({}, Layout(encoding="raw", quality=3), "raw, which has none; png, jpeg"),
        ({}, Layout(encoding="jpeg", quality=101), "must be 0 to 100"),
        ({}, Layout(compression="zstd"), "'zstd' of precomputed chunks; use gzip, br or none"),
        ({}, Layout(chunk=CHUNK, shard=(16, 32, 32), compression="br"), "in precomputed shards; use gzip or none"),
        ({}, Layout(chunk=CHUNK, shard=(8, 16, 64)), "is not a Morton range"),
    ],
)
def test_what_precomputed_cannot_hold_is_refused(
    tmp_path: Path, changes: dict[str, Any], layout: Layout, said: str
) -> None:
    with pytest.raises(ParameterError, match=said):
        create_store(tmp_path, SPEC.replace(**changes), layout=layout)
    assert list(tmp_path.iterdir()) == []


def test_mips_come_one_after_the_other_and_differ(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="has 0 mips; create mip 0 before mip 1"):
        create_store(tmp_path, SPEC, mip=1)
    create_store(tmp_path, SPEC)
    with pytest.raises(ParameterError, match="has a mip of voxel size"):
        create_store(tmp_path, SPEC, mip=1)


@pytest.mark.parametrize("mip", [1, 7])
def test_a_mip_that_is_not_there_names_those_that_are(tmp_path: Path, mip: int) -> None:
    create_store(tmp_path, SPEC)
    with pytest.raises(StoreNotFoundError, match=f"{tmp_path} has no mip {mip}; it has only mip 0"):
        open_store(tmp_path, mip=mip)
    with pytest.raises(StoreNotFoundError, match="has no mip -2; it has 1 mips"):
        open_store(tmp_path, mip=-2)


def test_a_directory_of_annotations_is_no_volume(tmp_path: Path) -> None:
    (tmp_path / "info").write_text('{"@type": "neuroglancer_annotations_v1", "spatial": []}')
    with pytest.raises(UnknownFormatError, match="neuroglancer_annotations_v1, not a volume"):
        open_store(tmp_path)


def test_an_encoding_that_is_not_decoded_is_named(tmp_path: Path) -> None:
    create_store(tmp_path, SPEC)
    info = json.loads((tmp_path / "info").read_text())
    info["scales"][0]["encoding"] = "webp"
    (tmp_path / "info").write_text(json.dumps(info))
    with pytest.raises(UnknownFormatError, match="encoded as webp; daskflow decodes raw, png"):
        open_store(tmp_path)


def test_a_scale_key_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    create_store(tmp_path / "layer", SPEC)
    info = json.loads((tmp_path / "layer" / "info").read_text())
    info["scales"][0]["key"] = "../secret"
    (tmp_path / "layer" / "info").write_text(json.dumps(info))
    with pytest.raises(ParameterError, match="safe name"):
        open_store(tmp_path / "layer")


@pytest.mark.parametrize("hashing", ["identity", "murmurhash3_x86_128"])
def test_missing_chunks_inside_shards_are_noticed(tmp_path: Path, hashing: str) -> None:
    create_store(tmp_path, SPEC, layout=Layout(chunk=CHUNK, shard=(16, 32, 32)))
    info = json.loads((tmp_path / "info").read_text())
    info["scales"][0]["sharding"]["hash"] = hashing
    (tmp_path / "info").write_text(json.dumps(info))
    request = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{tmp_path}/"}
    view = ts.open(request, open=True).result()[..., 0].T
    inside = BoundingBox.from_size(BOX.start, CHUNK)
    view[tuple(slice(a, b) for a, b in zip(inside.start, inside.stop, strict=True))].write(7).result()
    store = open_store(tmp_path)
    assert (store.read(inside) == 7).all()
    with pytest.raises(MissingChunkError, match=r"chunk .*fill_missing"):
        store.read(BOX)
    with counting() as counts:
        found = open_store(tmp_path, fill_missing=True).read(BOX)
    assert counts == {"missing_chunks": len(BlockGrid(BOX, CHUNK)) - 1}
    assert (found == 7).sum() == inside.size
    assert found.sum() == 7 * inside.size


def test_a_hashed_shard_is_owned_by_one_writer(tmp_path: Path) -> None:
    create_store(tmp_path, SPEC, layout=Layout(chunk=CHUNK, shard=(16, 32, 32)))
    info = json.loads((tmp_path / "info").read_text())
    info["scales"][0]["sharding"]["hash"] = "murmurhash3_x86_128"
    (tmp_path / "info").write_text(json.dumps(info))
    store = open_store(tmp_path)
    assert store.spec.shard == (16, 32, 48)
    write_all(store, voxels(SPEC))
    np.testing.assert_array_equal(read_by_cloudvolume(tmp_path)[0], voxels(SPEC))


def test_a_damaged_chunk_is_no_missing_one(tmp_path: Path) -> None:
    store = create_store(tmp_path, SPEC, layout=Layout(chunk=CHUNK, encoding="png"))
    write_all(store, voxels(SPEC))
    name = "-7-9_3-19_5-13"
    (tmp_path / "4_4_40" / name).write_bytes(b"not a picture")
    with pytest.raises(CorruptChunkError, match=name):
        open_store(tmp_path, fill_missing=True).read(BOX)


def test_a_rewritten_layer_is_read_anew(tmp_path: Path) -> None:
    store = create_store(tmp_path, SPEC, layout=Layout(chunk=CHUNK))
    write_all(store, voxels(SPEC))
    store.read(BOX)
    write_all(open_store(tmp_path), voxels(SPEC, seed=1))
    np.testing.assert_array_equal(store.read(BOX), voxels(SPEC, seed=1))


def test_stores_stay_small_with_many_mips(tmp_path: Path) -> None:
    spec = SPEC
    for mip in range(6):
        create_store(tmp_path, spec, mip=mip, layout=Layout(chunk=CHUNK))
        spec = spec.replace(box=spec.box.coarsen(2), voxel_size=[2 * v for v in spec.voxel_size], chunk_origin=None)
    assert len(pickle.dumps(open_store(tmp_path, mip=5))) < 4000


def test_a_layer_of_cloudvolume_opens_with_the_meaning_it_has(tmp_path: Path) -> None:
    info = CloudVolume.create_new_info(
        num_channels=1,
        layer_type="segmentation",
        data_type="uint64",
        encoding="raw",
        resolution=(3.5, 4, 40.25),
        voxel_offset=(0, -1, 2),
        volume_size=(10, 11, 12),
        chunk_size=(4, 5, 6),
    )
    CloudVolume(f"file://{tmp_path}", info=info).commit_info()
    assert open_store(tmp_path).spec == VolumeSpec(
        box=BoundingBox((2, -1, 0), (14, 10, 10)),
        dtype="uint64",
        voxel_size=(40.25, 4, 3.5),
        chunk=(6, 5, 4),
        layer_type="segmentation",
    )
