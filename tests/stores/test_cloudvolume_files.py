from __future__ import annotations

import gzip
import os
import warnings
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import igzip_lib

from daskflow.errors import CorruptChunkError, MissingChunkError, ParameterError, StoreAccessError, UnknownFormatError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.layers.verify import verify
from daskflow.stores.base import Layout
from daskflow.stores.compressed import compress, decompress
from daskflow.stores.counting import counting
from daskflow.stores.opening import create_store, open_store
from daskflow.testing.stores import StoreSuite, triples, voxels, write_all

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cloudvolume import CloudVolume

SUFFIXES = {"gzip": ".gz", "br": ".br", None: ""}
BOX = BoundingBox((5, 3, -7), (18, 24, 26))
CHUNK = (8, 16, 16)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def cloud_volume(path: Path, **options: Any) -> Any:
    return CloudVolume(f"file://{path}", progress=False, fill_missing=False, **options)


def written_by_cloudvolume(
    path: Path, *, compress: str | None, encoding: str = "raw", dtype: str = "uint8", channels: int = 1
) -> np.ndarray:
    """Write a layer as CloudVolume does and return its voxels, czyx."""
    info = CloudVolume.create_new_info(
        num_channels=channels,
        layer_type="segmentation" if encoding == "compressed_segmentation" else "image",
        data_type=dtype,
        encoding=encoding,
        resolution=(4, 4, 40),
        voxel_offset=BOX.start[::-1],
        volume_size=BOX.shape[::-1],
        chunk_size=CHUNK[::-1],
    )
    volume = cloud_volume(path, info=info, compress=compress or False, non_aligned_writes=True)
    volume.commit_info()
    array = np.random.default_rng(0).integers(1, 200, (channels, *BOX.shape)).astype(dtype)
    volume[tuple(slice(a, b) for a, b in zip(BOX.start[::-1], BOX.stop[::-1], strict=True))] = array.T
    return array


def read_by_cloudvolume(path: Path) -> np.ndarray:
    return np.asarray(cloud_volume(path)[:]).T


ENCODINGS = [
    ("raw", "uint8", 1),
    ("raw", "float32", 3),
    ("raw", "uint64", 2),
    ("raw", "int16", 1),
    ("png", "uint8", 1),
    ("compressed_segmentation", "uint32", 1),
    ("compressed_segmentation", "uint64", 1),
]


@pytest.mark.parametrize("compression", SUFFIXES)
@pytest.mark.parametrize(("encoding", "dtype", "channels"), ENCODINGS)
def test_what_cloudvolume_writes_is_read(
    tmp_path: Path, compression: str | None, encoding: str, dtype: str, channels: int
) -> None:
    array = written_by_cloudvolume(tmp_path, compress=compression, encoding=encoding, dtype=dtype, channels=channels)
    names = [p.name for p in (tmp_path / "4_4_40").iterdir()]
    assert all(name.endswith(SUFFIXES[compression] or name[-1]) for name in names)
    store = open_store(tmp_path)
    assert store.spec.box == BOX
    assert store.spec.voxel_size == (40, 4, 4)
    np.testing.assert_array_equal(store.read(BOX), array if channels > 1 else array[0])


@pytest.mark.parametrize("compression", SUFFIXES)
@pytest.mark.parametrize(("encoding", "dtype", "channels"), ENCODINGS)
def test_cloudvolume_reads_what_is_written(
    tmp_path: Path, compression: str | None, encoding: str, dtype: str, channels: int
) -> None:
    spec = VolumeSpec(box=BOX, dtype=dtype, channels=channels if channels > 1 else None, voxel_size=(40, 4, 4))
    store = create_store(tmp_path, spec, layout=Layout(chunk=CHUNK, encoding=encoding, compression=compression))
    array = voxels(spec)
    write_all(store, array)
    found = read_by_cloudvolume(tmp_path)
    np.testing.assert_array_equal(found if channels > 1 else found[0], array)
    assert {p.suffix for p in (tmp_path / "4_4_40").iterdir()} == {SUFFIXES[compression]}


@pytest.mark.parametrize("compression", SUFFIXES)
def test_jpeg_is_read_as_cloudvolume_reads_it(tmp_path: Path, compression: str | None) -> None:
    written_by_cloudvolume(tmp_path, compress=compression, encoding="jpeg")
    np.testing.assert_array_equal(open_store(tmp_path).read(BOX), read_by_cloudvolume(tmp_path)[0])


@pytest.mark.parametrize("compression", ["gzip", "br"])
def test_layers_are_continued_under_the_names_they_have(tmp_path: Path, compression: str) -> None:
    written_by_cloudvolume(tmp_path, compress=compression)
    store = open_store(tmp_path)
    array = voxels(store.spec, seed=5)
    write_all(store, array)
    assert {p.suffix for p in (tmp_path / "4_4_40").iterdir()} == {SUFFIXES[compression]}
    np.testing.assert_array_equal(read_by_cloudvolume(tmp_path)[0], array)


def a_layer(path: Path, compression: str = "gzip") -> np.ndarray:
    spec = VolumeSpec(box=BOX, dtype="uint8", voxel_size=(40, 4, 4))
    store = create_store(path, spec, layout=Layout(chunk=CHUNK, encoding="raw", compression=compression))
    array = voxels(spec)
    write_all(store, array)
    return array


def first_chunk(path: Path) -> tuple[Path, BoundingBox]:
    box = BoundingBox.from_size(BOX.start, CHUNK)
    name = "_".join(f"{a}-{b}" for a, b in zip(box.start[::-1], box.stop[::-1], strict=True))
    found = [p for p in (path / "4_4_40").iterdir() if p.name.startswith(name)]
    assert len(found) == 1
    return found[0], box


def test_a_layer_of_plain_and_compressed_files_is_read_whole(tmp_path: Path) -> None:
    array = a_layer(tmp_path)
    for i, path in enumerate(sorted((tmp_path / "4_4_40").iterdir())):
        plain = decompress(path.read_bytes(), ".gz", "it")
        path.unlink()
        suffix = ("", ".gz", ".br")[i % 3]
        data = plain if not suffix else compress(plain, "gzip" if suffix == ".gz" else "br")
        path.with_name(path.name.removesuffix(".gz") + suffix).write_bytes(data)
    for stated in ("gzip", None):
        store = open_store(tmp_path, fill_missing=True)
        store._compression = stated
        np.testing.assert_array_equal(store.read(BOX), array)


def test_plain_files_in_a_layer_said_to_be_compressed_are_read(tmp_path: Path) -> None:
    array = a_layer(tmp_path)
    for path in list((tmp_path / "4_4_40").iterdir()):
        path.with_suffix("").write_bytes(decompress(path.read_bytes(), ".gz", "it"))
        path.unlink()
    np.testing.assert_array_equal(open_store(tmp_path).read(BOX), array)


@pytest.mark.parametrize("compression", ["gzip", "br"])
def test_a_missing_chunk_file_is_an_error_or_zeros_that_are_counted(tmp_path: Path, compression: str) -> None:
    array = a_layer(tmp_path, compression)
    path, box = first_chunk(tmp_path)
    path.unlink()
    with pytest.raises(MissingChunkError, match=path.name.removesuffix(path.suffix)):
        open_store(tmp_path).read(BOX)
    array[box.slices(BOX)] = 0
    with counting() as counts:
        np.testing.assert_array_equal(open_store(tmp_path, fill_missing=True).read(BOX), array)
    assert counts == {"missing_chunks": 1}


@pytest.mark.parametrize("compression", ["gzip", "br"])
@pytest.mark.parametrize("kept", [0, 1, 10, 0.5, 0.99])
def test_a_chunk_file_cut_short_is_named(tmp_path: Path, compression: str, kept: float) -> None:
    a_layer(tmp_path, compression)
    path, _ = first_chunk(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: kept if kept in (0, 1, 10) else int(kept * len(data))])
    with pytest.raises(CorruptChunkError, match=f"{path}"):
        open_store(tmp_path, fill_missing=True).read(BOX)


def test_a_flipped_byte_in_a_gzip_file_is_noticed(tmp_path: Path) -> None:
    a_layer(tmp_path)
    path, _ = first_chunk(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CorruptChunkError, match=f"{path}"):
        open_store(tmp_path).read(BOX)


def test_a_whole_file_of_the_wrong_length_is_named(tmp_path: Path) -> None:
    a_layer(tmp_path)
    path, _ = first_chunk(tmp_path)
    path.write_bytes(gzip.compress(b"too short"))
    with pytest.raises(CorruptChunkError, match=f"{path}: holds 9 bytes instead of"):
        open_store(tmp_path).read(BOX)


def test_a_compression_that_is_not_known_is_refused(tmp_path: Path) -> None:
    a_layer(tmp_path, "none")
    for path in list((tmp_path / "4_4_40").iterdir()):
        path.rename(path.with_name(path.name + ".zstd"))
    with pytest.raises(UnknownFormatError, match=r"\.zstd; daskflow reads"):
        open_store(tmp_path, fill_missing=True).read(BOX)


def test_rewriting_a_chunk_removes_it_under_its_other_names(tmp_path: Path) -> None:
    a_layer(tmp_path, "br")
    path, box = first_chunk(tmp_path)
    path.rename(path.with_suffix(".gz"))
    store = open_store(tmp_path)
    store._compression = "br"
    array = voxels(store.spec.replace(box=box, chunk_origin=None), seed=9)
    store.write(box, array)
    assert first_chunk(tmp_path)[0].suffix == ".br"
    np.testing.assert_array_equal(open_store(tmp_path).read(box), array)


def test_no_temporary_files_are_left(tmp_path: Path) -> None:
    a_layer(tmp_path)
    files = [p.name for p in (tmp_path / "4_4_40").iterdir()]
    assert len(files) == len(BlockGrid(BOX, CHUNK))
    assert all(name.endswith(".gz") and not name.startswith(".") for name in files)


def test_the_same_voxels_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        a_layer(tmp_path / name)
    assert first_chunk(tmp_path / "a")[0].read_bytes() == first_chunk(tmp_path / "b")[0].read_bytes()


def test_writing_where_a_file_is_in_the_way_is_an_access_error(tmp_path: Path) -> None:
    spec = VolumeSpec(box=BOX, dtype="uint8", voxel_size=(40, 4, 4))
    store = create_store(tmp_path, spec, layout=Layout(chunk=CHUNK, compression="gzip"))
    (tmp_path / "4_4_40").write_text("in the way")
    with pytest.raises(StoreAccessError, match="4_4_40"):
        store.write(BOX, voxels(spec))


def test_compression_away_from_local_disk_is_refused() -> None:
    spec = VolumeSpec(box=BOX, dtype="uint8")
    with pytest.raises(ParameterError, match="local files"):
        create_store("memory://cv-files", spec, layout=Layout(compression="gzip"))


@given(st.binary(max_size=2000), st.sampled_from(["gzip", "br"]))
def test_compressed_bytes_come_back_and_are_standard(data: bytes, compression: str) -> None:
    packed = compress(data, compression)
    assert decompress(packed, SUFFIXES[compression], "it") == data
    assert (gzip.decompress if compression == "gzip" else brotli.decompress)(packed) == data


@given(st.binary(max_size=2000), st.integers(0, 9))
@settings(max_examples=30)
def test_gzip_of_any_level_is_read(data: bytes, level: int) -> None:
    assert decompress(gzip.compress(data, level), ".gz", "it") == data


def test_gzip_is_isals_level_1() -> None:
    data = bytes(voxels(VolumeSpec(box=BoundingBox((0, 0, 0), (16, 16, 16)), dtype="uint8")))
    assert len(compress(data, "gzip")) == len(igzip_lib.compress(data, 1, igzip_lib.COMP_GZIP))


class LocalCloudVolumeSuite(StoreSuite):
    format = "precomputed"
    location = StoreSuite.local_location


class TestGzipFiles(LocalCloudVolumeSuite):
    plain_layout = Layout(chunk=(4, 4, 4), compression="gzip")

    def layouts(self) -> st.SearchStrategy[Layout]:
        return triples(2, 8).map(lambda chunk: Layout(chunk=chunk, encoding="raw", compression="gzip"))


class TestBrotliFiles(LocalCloudVolumeSuite):
    plain_layout = Layout(chunk=(4, 4, 4), compression="br")

    def layouts(self) -> st.SearchStrategy[Layout]:
        return triples(2, 8).map(lambda chunk: Layout(chunk=chunk, encoding="raw", compression="br"))


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("newer", ["plain", "gzip"])
def test_of_two_files_of_a_chunk_the_newer_counts_and_verify_lists_it(tmp_path, encoding, newer):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (8, 8, 16)), np.dtype(np.uint8), layer_type="image", voxel_size=(1, 1, 1))
    store = create_store(tmp_path / "a", spec, format="precomputed", layout=Layout(chunk=(8, 8, 8), encoding=encoding))
    store.write(spec.box, np.full(spec.shape, 1, np.uint8))
    plain = tmp_path / "a/1_1_1/0-8_0-8_0-8"
    data = plain.read_bytes()
    store.write(BoundingBox((0, 0, 0), (8, 8, 8)), np.full((8, 8, 8), 2, np.uint8))
    twin = plain.with_name(f"{plain.name}.gz")
    twin.write_bytes(gzip.compress(plain.read_bytes()))
    plain.write_bytes(data)
    for age, path in enumerate((plain, twin) if newer == "gzip" else (twin, plain)):
        os.utime(path, (1000 + age, 1000 + age))
    voxels = open_store(tmp_path / "a").read(spec.box)
    assert (voxels[..., :8] == (2 if newer == "gzip" else 1)).all()
    assert (voxels[..., 8:] == 1).all()
    found = verify(str(tmp_path / "a"), progress=False).results["chunks_of_two_names"]
    assert found == [f"mip 0 {BoundingBox((0, 0, 0), (8, 8, 8))}"]
