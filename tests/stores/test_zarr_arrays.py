from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import (
    CorruptChunkError,
    GeometryError,
    MetadataMismatchError,
    MissingChunkError,
    ParameterError,
    StoreNotFoundError,
    UnknownFormatError,
)
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.base import Layout
from daskflow.stores.counting import counting
from daskflow.stores.opening import create_store, open_store
from daskflow.stores.zarr_metadata import new_group, write_node
from daskflow.testing.stores import StoreSuite, triples, voxels, write_all

ALL_DTYPES = (
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "bool"),
)


class TestZarr3(StoreSuite):
    format = "zarr3"
    suffix = ".zarr"
    dtypes = ALL_DTYPES
    several_mips = False

    def layouts(self) -> st.SearchStrategy[Layout]:
        codecs = st.sampled_from((None, "zstd", "gzip", "blosc", "raw"))
        return st.builds(Layout, chunk=triples(2, 8), encoding=codecs)


class TestZarr3Shards(StoreSuite):
    format = "zarr3"
    dtypes = ALL_DTYPES
    several_mips = False
    plain_layout = Layout(chunk=(4, 4, 4), shard=(4, 8, 8))

    def layouts(self) -> st.SearchStrategy[Layout]:
        def layout(chunk: tuple[int, int, int], times: tuple[int, int, int]) -> Layout:
            z, y, x = (c * t for c, t in zip(chunk, times, strict=True))
            return Layout(chunk=chunk, shard=(z, y, x))

        return st.builds(layout, triples(2, 6), triples(1, 3))


class TestZarr2(StoreSuite):
    format = "zarr2"
    dtypes = ALL_DTYPES
    several_mips = False

    def layouts(self) -> st.SearchStrategy[Layout]:
        codecs = st.sampled_from((None, "zstd", "gzip", "blosc", "raw"))
        return st.builds(Layout, chunk=triples(2, 8), encoding=codecs)


def noise(shape: tuple[int, ...], dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(0).integers(1, 200, shape).astype(dtype)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("order", ["zyx", "xyz", "yxz"])
@settings(max_examples=10)
@given(start=triples(-3, 3), dtype=st.sampled_from(("uint8", ">u2", "<f4", "uint64")))
def test_arrays_of_zarr_python_are_read_in_any_axis_order(tmp_path_factory, version, order, start, dtype):
    path = tmp_path_factory.mktemp("zarr") / "peer.zarr"
    volume = noise((5, 7, 9)).astype(dtype)
    stored = volume.transpose(["zyx".index(axis) for axis in order])
    names = {"dimension_names": list(order)} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": list(order)}}
    array = zarr.create_array(path, shape=stored.shape, chunks=(4, 3, 2), dtype=dtype, zarr_format=version, **names)
    array[:] = stored
    store = open_store(path, voxel_offset=start)
    assert store.spec.box == BoundingBox.from_size(start, (5, 7, 9))
    assert store.spec.chunk == tuple((4, 3, 2)[order.index(axis)] for axis in "zyx")
    found = store.read(store.spec.box)
    np.testing.assert_array_equal(found, volume)
    assert found.flags.c_contiguous
    assert found.dtype == np.dtype(dtype).newbyteorder("=")


def test_shards_of_zarr_python_give_chunk_and_shard(tmp_path):
    volume = noise((2, 20, 20, 20))
    zarr.create_array(
        tmp_path / "a.zarr", shape=volume.shape, chunks=(1, 5, 4, 2), shards=(2, 10, 8, 4), dtype="uint16"
    )[:] = volume
    store = open_store(tmp_path / "a.zarr", axes="czyx")
    assert (store.spec.channels, store.spec.chunk, store.spec.shard) == (2, (5, 4, 2), (10, 8, 4))
    np.testing.assert_array_equal(store.read(store.spec.box), volume)


def test_a_transposed_layer_is_written_through_its_view(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(9, 7, 5), chunks=(3, 4, 2), dtype="uint16", dimension_names=["x", "y", "z"]
    )
    store = open_store(tmp_path / "a.zarr")
    volume = noise((5, 7, 9))
    write_all(store, volume)
    np.testing.assert_array_equal(array[:].T, volume)


def test_the_layout_of_chunkflow_save_zarr_is_read_as_zyx(tmp_path):
    volume = noise((4, 6, 8), "uint8")
    array = zarr.create_array(tmp_path / "c.zarr", shape=(8, 6, 4), chunks=(4, 4, 4), dtype="uint8", zarr_format=2)
    array[:] = volume.transpose()
    array.attrs.update({"_ARRAY_DIMENSIONS": ["x", "y", "z"], "dimension_units": ["4 nm", "4 nm", "40 nm"]})
    store = open_store(tmp_path / "c.zarr")
    assert store.spec.voxel_size == (40.0, 4.0, 4.0)
    np.testing.assert_array_equal(store.read(store.spec.box), volume)


@pytest.mark.parametrize(
    ("shape", "names", "channels"),
    [
        ((2, 4, 4, 4), ["c", "z", "y", "x"], 2),
        ((1, 2, 4, 4, 4), ["t", "c", "z", "y", "x"], 2),
        ((1, 4, 4, 4), ["t", "z", "y", "x"], None),
        ((4, 4, 4, 2), ["z", "y", "x", "channel"], 2),
        ((4, 4, 4), ["dim_0", "dim_1", "dim_2"], None),
        ((2, 4, 4, 4), ["c^", "z", "y", "x"], 2),
    ],
)
def test_channels_come_first_and_one_time_point_is_dropped(tmp_path, shape, names, channels):
    array = zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype="uint16", dimension_names=names)
    array[:] = noise(shape)
    store = open_store(tmp_path / "a.zarr")
    assert store.spec.channels == channels
    expected = array[:].reshape(store.spec.shape) if shape[-1] == 4 else np.moveaxis(array[:], -1, 0)
    np.testing.assert_array_equal(store.read(store.spec.box), expected)


@pytest.mark.parametrize("ome", [False, True])
@pytest.mark.parametrize("names", [["y", "x"], ["c", "y", "x"]])
def test_an_image_without_z_is_read_and_written_as_one_section(tmp_path, names, ome):
    voxels = np.arange(2 * 9 * 7, dtype=np.uint16).reshape(2, 9, 7)[0 if len(names) == 2 else slice(None)]
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=3)
    chunks = (2, 4, 4)[-voxels.ndim :]
    array = group.create_array("0", shape=voxels.shape, dtype="uint16", chunks=chunks, dimension_names=names)
    array[:] = voxels
    if ome:
        scale = {"type": "scale", "scale": [1.0, 0.5, 0.25][-voxels.ndim :]}
        kinds = {"c": {"type": "channel"}}
        axes = [{"name": n, **kinds.get(n, {"type": "space", "unit": "micrometer"})} for n in names]
        datasets = [{"path": "0", "coordinateTransformations": [scale]}]
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    store = open_store(tmp_path / ("a.zarr" if ome else "a.zarr/0"))
    assert (store.spec.box.shape, store.spec.chunk) == ((1, 9, 7), (1, 4, 4))
    assert store.spec.voxel_size is None
    np.testing.assert_array_equal(store.read(store.spec.box), voxels[..., np.newaxis, :, :])
    store.write(store.spec.box, store.read(store.spec.box) + np.uint16(1))
    np.testing.assert_array_equal(array[:], voxels + 1)


@pytest.mark.parametrize(
    ("shape", "names", "message"),
    [
        ((4, 4), None, "2 axes .*--axes yx"),
        ((3, 1, 4, 4, 4), ["t", "c", "z", "y", "x"], "3 time points"),
        ((2, 4, 4, 4), None, "--axes zyxc"),
        ((2, 4, 4, 4), ["angle", "z", "y", "x"], "angle"),
        ((4, 4, 4), ["a", "b", "c"], "axes a, b, c"),
    ],
)
def test_axes_that_are_no_volume_are_refused(tmp_path, shape, names, message):
    zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype="uint16", dimension_names=names)
    with pytest.raises(GeometryError, match=message):
        open_store(tmp_path / "a.zarr")


@pytest.mark.parametrize("version", ["zarr2", "zarr3"])
@pytest.mark.parametrize("codec", [None, "gzip", "blosc", "raw"])
def test_zarr_python_reads_what_is_written(tmp_path, version, codec):
    spec = VolumeSpec(BoundingBox((-2, 3, 5), (9, 20, 30)), np.dtype("uint16"), channels=2, voxel_size=(40, 4, 4))
    shard = (8, 8, 8) if version == "zarr3" else None
    layout = Layout(chunk=(4, 4, 4), shard=shard, encoding=codec)
    store = create_store(tmp_path / "a.zarr", spec, format=version, layout=layout)
    write_all(store, voxels(spec))
    array = zarr.open_array(tmp_path / "a.zarr", mode="r")
    np.testing.assert_array_equal(array[:], voxels(spec))
    assert array.attrs["resolution"] == [40, 4, 4]
    assert array.attrs["offset"] == [-80, 12, 20]
    assert array.shards == (None if shard is None else (2, 8, 8, 8))


@pytest.mark.parametrize("level", [1, 9])
def test_the_level_of_a_codec_is_stored(tmp_path, level):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (4, 4, 4)), np.dtype("uint8"))
    create_store(tmp_path / "a.zarr", spec, format="zarr3", layout=Layout(encoding="gzip", quality=level))
    codecs = json.loads((tmp_path / "a.zarr/zarr.json").read_text())["codecs"]
    assert codecs[-1] == {"name": "gzip", "configuration": {"level": level}}


def test_zstd_of_zarr_python_v2_with_its_checksum_option_is_read(tmp_path):
    import numcodecs

    zarr.create_array(
        tmp_path / "a.zarr", shape=(4, 4, 4), dtype="u1", zarr_format=2, compressors=numcodecs.Zstd(checksum=True)
    )[:] = 7
    store = open_store(tmp_path / "a.zarr")
    assert (store.read(store.spec.box) == 7).all()


@pytest.mark.parametrize("shard", [None, (8, 8, 8)])
@pytest.mark.parametrize("codec", ["zstd", "gzip", "blosc", "raw"])
def test_a_flipped_byte_in_zarr3_is_noticed_and_the_file_named(tmp_path, shard, codec):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (8, 8, 8)), np.dtype("uint16"))
    layout = Layout(chunk=(8, 8, 8), shard=shard, encoding=codec)
    store = create_store(tmp_path / "a.zarr", spec, format="zarr3", layout=layout)
    write_all(store, voxels(spec))
    chunk = tmp_path / "a.zarr/c/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 3] ^= 16
    chunk.write_bytes(data)
    with pytest.raises(CorruptChunkError, match=r"a\.zarr/c/0/0/0"):
        store.read(spec.box)


def test_background_is_not_deleted_where_missing_chunks_are_no_background(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(8, 8, 8), chunks=(4, 4, 4), dtype="uint8", fill_value=9)
    store = open_store(tmp_path / "a.zarr")
    with pytest.raises(ParameterError, match="read as 9"):
        store.write(store.spec.box, np.zeros((8, 8, 8), np.uint8), drop=0)
    store.write(store.spec.box, np.zeros((8, 8, 8), np.uint8))
    assert not store.read(store.spec.box).any()


def test_missing_chunks_take_the_fill_value_and_each_is_counted(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(2, 8, 8, 8), chunks=(1, 4, 4, 4), dtype="uint8", fill_value=9)
    array[0, :4, :4, :4] = 1
    store = open_store(tmp_path / "a.zarr", fill_missing=True, axes="czyx")
    box = BoundingBox((0, 0, 0), (8, 8, 5))
    with counting() as counts:
        found = store.read(box)
    np.testing.assert_array_equal(found, array[..., :5])
    assert counts["missing_chunks"] == 15
    with pytest.raises(MissingChunkError, match="fill_missing"):
        open_store(tmp_path / "a.zarr", axes="czyx").read(box)


def test_a_read_without_missing_chunks_counts_nothing(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(4, 4, 4), dtype="uint8")[:] = 3
    with counting() as counts:
        store = open_store(tmp_path / "a.zarr", fill_missing=True)
        store.read(store.spec.box)
    assert counts["missing_chunks"] == 0


def test_a_group_opens_its_only_array_and_else_lists_them(tmp_path):
    group = zarr.open_group(tmp_path / "g.zarr", mode="w", zarr_format=2)
    group.create_array("volumes/raw", shape=(4, 4, 4), dtype="uint8")[:] = 5
    assert open_store(tmp_path / "g.zarr").read(BoundingBox((0, 0, 0), (1, 1, 1))).item() == 5
    group.create_array("volumes/labels/ids", shape=(4, 4, 4), dtype="uint64")[:] = 6
    with pytest.raises(ParameterError, match="volumes/labels/ids, volumes/raw"):
        open_store(tmp_path / "g.zarr")
    store = open_store(tmp_path / "g.zarr", dataset="volumes/labels/ids")
    assert store.spec.dtype == np.uint64
    assert store.read(store.spec.box).max() == 6


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
def test_the_arrays_of_a_group_are_found_in_either_version(tmp_path, version, consolidated):
    group = zarr.open_group(tmp_path / "g.zarr", mode="w", zarr_format=version)
    for name in ("b/c", "a"):
        group.create_array(name, shape=(4, 4, 4), dtype="uint8")
    if consolidated:
        zarr.consolidate_metadata(tmp_path / "g.zarr")
    with pytest.raises(ParameterError, match="among: a, b/c"):
        open_store(tmp_path / "g.zarr")


def test_a_group_in_a_bucket_asks_for_the_array_without_listing_every_chunk(monkeypatch):
    write_node(new_group("memory://group-only/g.zarr", 3, {}))
    monkeypatch.setattr(kvstore, "list_names", None)
    with pytest.raises(ParameterError, match="choose an array with dataset="):
        open_store("memory://group-only/g.zarr")


@pytest.mark.parametrize("version", [2, 3])
def test_arrays_of_text_are_refused(tmp_path, version):
    metadata = {
        2: {"zarr_format": 2, "shape": [4, 4, 4], "chunks": [4, 4, 4], "dtype": "|O", "compressor": None},
        3: {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [4, 4, 4],
            "data_type": "string",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 4, 4]}},
            "codecs": [],
        },
    }[version]
    _write(tmp_path / "a.zarr", metadata)
    with pytest.raises(UnknownFormatError, match="not a voxel type"):
        open_store(tmp_path / "a.zarr")


def _write(path: Path, metadata: dict[str, object]) -> None:
    path.mkdir()
    (path / ("zarr.json" if metadata["zarr_format"] == 3 else ".zarray")).write_text(json.dumps(metadata))


def test_filters_and_codecs_that_are_not_decoded_are_named(tmp_path):
    common = {"zarr_format": 2, "shape": [4, 4, 4], "chunks": [4, 4, 4], "dtype": "<u2", "order": "C", "fill_value": 0}
    _write(tmp_path / "a.zarr", {**common, "compressor": None, "filters": [{"id": "delta", "dtype": "<u2"}]})
    with pytest.raises(UnknownFormatError, match="delta"):
        open_store(tmp_path / "a.zarr")
    _write(tmp_path / "b.zarr", {**common, "compressor": {"id": "jpeg2k"}, "filters": None})
    with pytest.raises(UnknownFormatError, match="jpeg2k"):
        open_store(tmp_path / "b.zarr")


@pytest.mark.parametrize("content", ["{", "[1]", '{"zarr_format": 3, "node_type": "array"}'])
def test_metadata_that_are_torn_are_refused(tmp_path, content):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr/zarr.json").write_text(content)
    with pytest.raises(CorruptChunkError, match=r"a\.zarr"):
        open_store(tmp_path / "a.zarr", format="zarr3")


@pytest.mark.parametrize(
    ("layout", "version", "message"),
    [
        (Layout(chunk=(4, 4, 4), shard=(8, 8, 8)), "zarr2", "no shards"),
        (Layout(encoding="jpeg"), "zarr3", "jpeg"),
        (Layout(encoding="gzip", quality=17), "zarr3", "level 17"),
        (Layout(chunk=(4, 4, 4), shard=(6, 8, 8)), "zarr3", "not a multiple"),
    ],
)
def test_a_layout_that_zarr_cannot_hold_is_refused(tmp_path, layout, version, message):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (4, 4, 4)), np.dtype("uint8"))
    with pytest.raises((ParameterError, GeometryError), match=message):
        create_store(tmp_path / "a.zarr", spec, format=version, layout=layout)
    assert not (tmp_path / "a.zarr").exists()


def test_an_existing_layer_keeps_its_chunks_where_none_are_stated(tmp_path):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (16, 16, 16)), np.dtype("uint8"))
    create_store(tmp_path / "a.zarr", spec, format="zarr3", layout=Layout(chunk=(4, 8, 2)))
    assert create_store(tmp_path / "a.zarr", spec, format="zarr3").spec.chunk == (4, 8, 2)


def test_a_meaning_is_not_held_against_a_layer_that_states_none(tmp_path):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (16, 16, 16)), np.dtype("uint8"))
    create_store(tmp_path / "a.zarr", spec, format="zarr3")
    create_store(tmp_path / "a.zarr", spec.replace(layer_type="segmentation"), format="zarr3")
    create_store(tmp_path / "b.zarr", spec.replace(layer_type="image"), format="zarr3")
    with pytest.raises(MetadataMismatchError, match="layer_type: stored 'image', wanted 'segmentation'"):
        create_store(tmp_path / "b.zarr", spec.replace(layer_type="segmentation"), format="zarr3")


def test_another_version_of_zarr_at_the_place_is_a_mismatch(tmp_path):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (16, 16, 16)), np.dtype("uint8"))
    create_store(tmp_path / "a.zarr", spec, format="zarr2")
    with pytest.raises(MetadataMismatchError, match="zarr v2 array already"):
        create_store(tmp_path / "a.zarr", spec, format="zarr3")


def test_nothing_there_is_not_found(tmp_path):
    with pytest.raises(StoreNotFoundError):
        open_store(tmp_path / "none.zarr")
    with pytest.raises(StoreNotFoundError):
        open_store(tmp_path / "none.zarr", format="zarr3")


@pytest.mark.parametrize("killed_before", [".zattrs", ".zarray"])
def test_an_array_whose_writer_was_killed_between_its_files_is_completed(tmp_path, monkeypatch, killed_before):
    spec = VolumeSpec(BoundingBox((1, 2, 3), (9, 9, 9)), np.dtype("uint8"), voxel_size=(40, 4, 4))
    write_bytes = kvstore.write_bytes

    def killed(url: str, data: bytes) -> None:
        if url.endswith(killed_before):
            raise KeyboardInterrupt
        write_bytes(url, data)

    with monkeypatch.context() as patch:
        patch.setattr(kvstore, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            create_store(tmp_path / "a.zarr", spec, format="zarr2")
    store = create_store(tmp_path / "a.zarr", spec, format="zarr2")
    assert (store.spec.box, store.spec.voxel_size) == (spec.box, spec.voxel_size)


def test_channels_that_do_not_fill_the_last_chunk_are_read_where_chunks_are_missing(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(3, 4, 4, 8), chunks=(2, 4, 4, 4), dtype="uint8")
    array[:, :, :, :4] = 7
    with counting() as counts:
        store = open_store(tmp_path / "a.zarr", fill_missing=True, axes="czyx")
        voxels_read = store.read(store.spec.box)
    assert (voxels_read[..., :4] == 7).all()
    assert not voxels_read[..., 4:].any()
    assert counts["missing_chunks"] == 2


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("encoding", ["zarr2", "v2", "default"])
def test_a_chunk_rewritten_by_others_changes_the_fingerprint_wherever_chunks_are(tmp_path, encoding, separator):
    version = 2 if encoding == "zarr2" else 3
    keys = {"name": "v2" if version == 2 else encoding, "separator": separator}
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=(2, 8, 8, 8),
        chunks=(1, 4, 4, 4),
        dtype="u1",
        zarr_format=version,
        chunk_key_encoding=keys,
    )
    array[:] = 1
    before = open_store(tmp_path / "a.zarr", axes="czyx").fingerprint()
    assert open_store(tmp_path / "a.zarr", axes="czyx").fingerprint() == before
    time.sleep(0.02)
    array[1, 4:, 4:, 4:] = 2
    assert open_store(tmp_path / "a.zarr", axes="czyx").fingerprint() != before
