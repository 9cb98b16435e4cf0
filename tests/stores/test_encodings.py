from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskflow.errors import CorruptChunkError, MissingChunkError, MissingDependencyError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.base import Layout
from daskflow.stores.counting import counting
from daskflow.stores.encodings import ENCODINGS
from daskflow.stores.opening import create_store, open_store
from daskflow.testing.stores import boxes_in, triples, voxels, write_all

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cloudvolume import CloudVolume

BOX = BoundingBox((5, 3, -7), (18, 24, 26))
CHUNK = (8, 16, 16)
SHARD = (16, 32, 32)
LABELS = ("uint8", "uint16", "uint32", "uint64")
ALL = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
LOSSLESS = {
    "raw": (ALL, (1, 2, 3)),
    "png": (("uint8", "uint16"), (1, 3)),
    "compressed_segmentation": (("uint32", "uint64"), (1,)),
    "jxl": (("uint8",), (1,)),
    "crackle": (LABELS, (1,)),
    "compresso": (LABELS, (1,)),
    "fpzip": (("float32",), (1, 2, 3)),
    "zfpc": (("float32",), (1, 2, 3)),
}
CASES = [
    (name, dtype, channels) for name, (dtypes, counts) in LOSSLESS.items() for dtype in dtypes for channels in counts
]
WRITTEN_BY_CLOUDVOLUME = [case for case in CASES if case[:2] != ("png", "uint16")]  # which its libraries refuse
READ_BY_CLOUDVOLUME = [c for c in WRITTEN_BY_CLOUDVOLUME if c[0] != "png" or c[2] == 1]  # it mixes up channels of pngs
ONE_EACH = [(name, dtypes[-1], counts[-1]) for name, (dtypes, counts) in LOSSLESS.items() if not ENCODINGS[name].driven]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def layout_of(encoding: str, **changes: Any) -> Layout:
    return Layout(**{"chunk": CHUNK, "encoding": encoding, "quality": 100 if encoding == "jxl" else None, **changes})


def spec_of(dtype: str, channels: int, box: BoundingBox = BOX) -> VolumeSpec:
    return VolumeSpec(box=box, dtype=dtype, channels=channels if channels > 1 else None, voxel_size=(40, 4, 4))


def content(spec: VolumeSpec, seed: int = 0) -> np.ndarray:
    """Voxels of every magnitude that the dtype has, in patches as labels lie, zeros among them."""
    noise = np.random.default_rng(seed)
    if spec.dtype.kind == "f":
        return noise.normal(0, 1000, spec.shape).astype(spec.dtype)
    limits = np.iinfo(spec.dtype)
    values = noise.integers(limits.min, limits.max, 6, spec.dtype, endpoint=True)
    return np.append(values, 0).astype(spec.dtype)[noise.integers(0, 7, spec.shape) * (noise.random(spec.shape) < 0.3)]


def cloud_volume(path: Path, **options: Any) -> Any:
    return CloudVolume(f"file://{path}", progress=False, fill_missing=False, **options)


def read_by_cloudvolume(path: Path) -> np.ndarray:
    return np.asarray(cloud_volume(path)[:]).T


def written_by_cloudvolume(path: Path, encoding: str, array: np.ndarray, *, shards: bool) -> None:
    """Write a czyx array at BOX as CloudVolume does, in chunks or in one shard."""
    info = CloudVolume.create_new_info(
        num_channels=array.shape[0],
        layer_type="image",
        data_type=array.dtype.name,
        encoding=encoding,
        resolution=(4, 4, 40),
        voxel_offset=BOX.start[::-1],
        volume_size=BOX.shape[::-1],
        chunk_size=CHUNK[::-1],
    )
    if encoding == "jxl":
        info["scales"][0] |= {"jxl_quality": 100, "jxl_effort": 3, "jxl_decodingspeed": 0}
    volume = cloud_volume(path, info=info, non_aligned_writes=True)
    if shards:
        volume.image.to_sharded()
    volume.commit_info()
    volume[tuple(slice(a, b) for a, b in zip(BOX.start[::-1], BOX.stop[::-1], strict=True))] = array.T


@pytest.mark.parametrize("shard", [None, SHARD], ids=["chunks", "shards"])
@pytest.mark.parametrize(("encoding", "dtype", "channels"), READ_BY_CLOUDVOLUME)
def test_cloudvolume_reads_every_lossless_encoding_exactly(
    tmp_path: Path, encoding: str, dtype: str, channels: int, shard: tuple[int, int, int] | None
) -> None:
    store = create_store(tmp_path, spec_of(dtype, channels), layout=layout_of(encoding, shard=shard))
    array = content(store.spec)
    write_all(store, array)
    np.testing.assert_array_equal(open_store(tmp_path).read(BOX), array)
    np.testing.assert_array_equal(read_by_cloudvolume(tmp_path).reshape(array.shape), array)


@pytest.mark.parametrize("shards", [False, True], ids=["chunks", "shards"])
@pytest.mark.parametrize(("encoding", "dtype", "channels"), WRITTEN_BY_CLOUDVOLUME)
def test_every_lossless_encoding_that_cloudvolume_writes_is_read_exactly(
    tmp_path: Path, encoding: str, dtype: str, channels: int, shards: bool
) -> None:
    spec = spec_of(dtype, channels)
    array = content(spec)
    written_by_cloudvolume(tmp_path, encoding, array.reshape(channels, *BOX.shape), shards=shards)
    store = open_store(tmp_path)
    assert store.spec.box == BOX
    np.testing.assert_array_equal(store.read(BOX), array)


@pytest.mark.parametrize("encoding", ["jpeg", "jxl"])
def test_lossy_images_are_near_and_nearer_with_more_quality(tmp_path: Path, encoding: str) -> None:
    z, y, x = np.ogrid[0 : BOX.shape[0], 0 : BOX.shape[1], 0 : BOX.shape[2]]
    array = (100 + 50 * np.sin(z / 4 + y / 7) + 40 * np.cos(x / 5)).astype(np.uint8)
    errors = []
    for quality in (30, 95):
        url = tmp_path / str(quality)
        store = create_store(url, spec_of("uint8", 1), layout=layout_of(encoding, quality=quality))
        write_all(store, array)
        found = store.read(BOX)
        np.testing.assert_array_equal(found, read_by_cloudvolume(url)[0])
        errors.append(np.abs(found.astype(int) - array).max())
    assert errors[1] <= errors[0] <= 60
    assert errors[1] <= 10


def test_numbers_cut_to_a_precision_are_near(tmp_path: Path) -> None:
    store = create_store(tmp_path, spec_of("float32", 2), layout=layout_of("fpzip", quality=16))
    array = content(store.spec)
    write_all(store, array)
    found = store.read(BOX)
    assert not np.array_equal(found, array)
    np.testing.assert_allclose(found, array, rtol=0.01)
    np.testing.assert_array_equal(read_by_cloudvolume(tmp_path), found)


@pytest.mark.parametrize("channels", [1, 3])
def test_kempressed_is_read_as_cloudvolume_reads_it(tmp_path: Path, channels: int) -> None:
    array = np.random.default_rng(0).random((channels, *BOX.shape), np.float32)
    written_by_cloudvolume(tmp_path, "kempressed", array, shards=False)
    found = open_store(tmp_path).read(BOX)
    np.testing.assert_array_equal(found, read_by_cloudvolume(tmp_path).reshape(found.shape))
    with pytest.raises(ParameterError, match="only read"):
        create_store(tmp_path / "new", spec_of("float32", 1), layout=layout_of("kempressed"))


def test_zfpc_streams_of_uncorrelated_axes_are_read(tmp_path: Path) -> None:
    array = content(spec_of("float32", 3))
    for correlated in ([True, True, False, False], [True, False, True, True]):
        url = tmp_path / str(correlated.index(False))
        store = create_store(url, spec_of("float32", 3), layout=layout_of("zfpc"))
        info = json.loads((url / "info").read_text())
        info["scales"][0]["zfpc_correlated_dims"] = correlated
        (url / "info").write_text(json.dumps(info))
        store = open_store(url)
        write_all(store, array)
        np.testing.assert_array_equal(store.read(BOX), array)
        np.testing.assert_array_equal(read_by_cloudvolume(url), array)


@given(data=st.data(), case=st.sampled_from(CASES), shard=st.booleans(), start=triples(-40, 40))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_box_of_any_encoding_reads_as_it_was_written(
    data: st.DataObject, case: tuple[str, str, int], shard: bool, start: tuple[int, int, int]
) -> None:
    encoding, dtype, channels = case
    chunk = data.draw(triples(1, 3).map(lambda t: (t[0] * 2, t[1] * 3, t[2] * 4)), "chunk")
    box = BoundingBox.from_size(start, data.draw(triples(1, 17), "size"))
    url = "memory://test-encodings/any-box"
    sharded = tuple(c * 2**20 for c in chunk) if shard else None
    try:
        layout = layout_of(encoding, chunk=chunk, shard=sharded)
        store = create_store(url, spec_of(dtype, channels, box), layout=layout)
        array = content(store.spec, data.draw(st.integers(0, 9)))
        write_all(store, array)
        part = data.draw(boxes_in(box), "read")
        np.testing.assert_array_equal(open_store(url).read(part), array[(..., *part.slices(box))])
    finally:
        kvstore.delete_tree(url)


@pytest.mark.parametrize("place", ["file", "memory"])
@pytest.mark.parametrize("shard", [None, SHARD], ids=["chunks", "shards"])
@pytest.mark.parametrize(("encoding", "dtype", "channels"), ONE_EACH)
def test_missing_chunks_are_errors_or_counted_zeros(
    tmp_path: Path, encoding: str, dtype: str, channels: int, shard: tuple[int, int, int] | None, place: str
) -> None:
    url = f"{tmp_path}/layer" if place == "file" else "memory://test-encodings/missing"
    kvstore.delete_tree(url)
    store = create_store(url, spec_of(dtype, channels), layout=layout_of(encoding, shard=shard))
    array = voxels(store.spec)
    first = BoundingBox.from_size(BOX.start, store.spec.write_unit or CHUNK).clip(BOX)
    store.write(first, array[(..., *first.slices(BOX))])
    np.testing.assert_array_equal(store.read(first), array[(..., *first.slices(BOX))])
    with pytest.raises(MissingChunkError, match="fill_missing"):
        store.read(BOX)
    with counting() as counts:
        found = open_store(url, fill_missing=True).read(BOX)
    assert np.count_nonzero(found) == first.size * channels
    assert counts["missing_chunks"] == 12 - len(BlockGrid(first, CHUNK))


@pytest.mark.parametrize(("encoding", "dtype", "channels"), ONE_EACH)
def test_a_chunk_cut_short_or_replaced_is_named(tmp_path: Path, encoding: str, dtype: str, channels: int) -> None:
    store = create_store(tmp_path, spec_of(dtype, channels), layout=layout_of(encoding))
    array = content(store.spec)
    write_all(store, array)
    path = tmp_path / "4_4_40" / "-7-9_3-19_5-13"
    whole = path.read_bytes()
    for damaged in (b"", b"x", whole[: len(whole) // 2], whole[:-9], b"nothing of the kind" * 9):
        path.write_bytes(damaged)
        with pytest.raises(CorruptChunkError, match="-7-9_3-19_5-13"):
            open_store(tmp_path, fill_missing=True).read(BOX)
    path.write_bytes((path.parent / "9-25_3-19_5-13").read_bytes())
    np.testing.assert_array_equal(open_store(tmp_path).read(BOX)[..., :8, :16, :16], array[..., :8, :16, 16:32])
    path.write_bytes((path.parent / "25-26_3-19_5-13").read_bytes())
    with pytest.raises(CorruptChunkError, match="-7-9_3-19_5-13"):
        open_store(tmp_path).read(BOX)


@given(data=st.data(), case=st.sampled_from(ONE_EACH))
@settings(deadline=None, max_examples=40)
def test_a_chunk_cut_short_anywhere_never_reads_as_other_voxels(
    data: st.DataObject, case: tuple[str, str, int]
) -> None:
    name, dtype, channels = case
    spec, encoding = spec_of(dtype, channels), ENCODINGS[name]
    array = content(spec, data.draw(st.integers(0, 3)))
    if data.draw(st.booleans(), "constant"):
        array[...] = array.reshape(-1)[0]
    scale = {"jxl_quality": 100}
    whole = encoding.encode(array, scale)
    np.testing.assert_array_equal(encoding.decode(whole, array.shape, array.dtype), array)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1), "length")]
    try:
        found = encoding.decode(cut, array.shape, array.dtype)
    except ValueError:
        return
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("encoding", "changes", "message"),
    [
        ("crackle", {"dtype": "float32"}, "encoding crackle cannot hold float32; cast with astype"),
        ("compresso", {"dtype": "int32"}, "encoding compresso cannot hold int32; cast with astype"),
        ("compressed_segmentation", {"dtype": "uint8"}, r"cannot hold uint8; cast with astype\('uint32'\)"),
        ("jxl", {"dtype": "uint16"}, r"encoding jxl cannot hold uint16; cast with astype\('uint8'\)"),
        ("fpzip", {"dtype": "uint8"}, r"encoding fpzip cannot hold uint8; cast with astype\('float32'\)"),
        ("zfpc", {"dtype": "uint64"}, r"encoding zfpc cannot hold uint64; cast with astype\('float32'\)"),
        ("crackle", {"channels": 2}, "encoding crackle holds 1 channels, not 2; use raw"),
        ("jpeg", {"layer_type": "segmentation", "dtype": "uint8"}, "changes values, which labels cannot bear"),
        ("jxl", {"layer_type": "segmentation", "dtype": "uint8", "quality": 99}, "changes values"),
        ("crackle", {"quality": 5}, "quality 5 with encoding crackle, which has none; png, jpeg, jxl, fpzip have one"),
        ("raw", {"effort": 5}, "effort 5 with encoding raw, which has none; jxl have one"),
        ("jxl", {"dtype": "uint8", "quality": 101}, "quality 101 of encoding jxl must be 1 to 100"),
        ("jxl", {"dtype": "uint8", "effort": 11}, "effort 11 of encoding jxl must be 1 to 10"),
        ("png", {"dtype": "uint8", "quality": 10}, "quality 10 of encoding png must be 0 to 9"),
    ],
)
def test_what_an_encoding_cannot_hold_is_refused_before_anything_is_made(
    tmp_path: Path, encoding: str, changes: dict[str, Any], message: str
) -> None:
    asked = {name: changes.pop(name) for name in ("quality", "effort") if name in changes}
    spec = VolumeSpec(**{"box": BOX, "dtype": "uint32", "voxel_size": (40, 4, 4), **changes})
    with pytest.raises(ParameterError, match=message):
        create_store(tmp_path / "layer", spec, layout=Layout(chunk=CHUNK, encoding=encoding, **asked))
    assert not (tmp_path / "layer").exists()


@pytest.mark.parametrize(
    ("encoding", "asked", "keys"),
    [
        ("jxl", {}, {"jxl_quality": 85, "jxl_effort": 3}),
        ("jxl", {"quality": 100, "effort": 7}, {"jxl_quality": 100, "jxl_effort": 7}),
        ("jpeg", {"quality": 70}, {"jpeg_quality": 70}),
        ("png", {"quality": 9}, {"png_level": 9}),
        ("png", {}, {}),
        ("crackle", {}, {}),
    ],
)
def test_options_are_kept_in_the_info_under_the_keys_that_cloudvolume_reads(
    tmp_path: Path, encoding: str, asked: dict[str, int], keys: dict[str, int]
) -> None:
    layout = Layout(chunk=CHUNK, encoding=encoding, **asked)
    store = create_store(tmp_path, spec_of("uint8", 1), layout=layout)
    scale = json.loads((tmp_path / "info").read_text())["scales"][0]
    known = {"key", "size", "resolution", "voxel_offset", "chunk_sizes", "encoding"}
    assert {key: value for key, value in scale.items() if key not in known} == keys
    again = create_store(tmp_path, store.spec, layout=store.layout)
    assert again.layout == store.layout
    assert again.layout.quality == next(iter(keys.values()), None)


def test_more_png_effort_gives_smaller_files_with_the_same_voxels(tmp_path: Path) -> None:
    array = (np.arange(BOX.size).reshape(BOX.shape) // 7 % 50).astype(np.uint8)
    sizes = []
    for level in (1, 9):
        store = create_store(tmp_path / str(level), spec_of("uint8", 1), layout=layout_of("png", quality=level))
        write_all(store, array)
        np.testing.assert_array_equal(store.read(BOX), array)
        sizes.append(sum(path.stat().st_size for path in (tmp_path / str(level) / "4_4_40").iterdir()))
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("encoding", "module", "dtype"),
    [
        ("crackle", "crackle", "uint32"),
        ("compresso", "compresso", "uint32"),
        ("jxl", "imagecodecs", "uint8"),
        ("fpzip", "fpzip", "float32"),
        ("zfpc", "zfpc", "float32"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, module: str, dtype: str
) -> None:
    store = create_store(tmp_path / "layer", spec_of(dtype, 1), layout=layout_of(encoding))
    write_all(store, content(store.spec))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'daskflow\[codecs\]'"):
        open_store(tmp_path / "layer").read(BOX)
    with pytest.raises(MissingDependencyError, match=r"pip install 'daskflow\[codecs\]'"):
        create_store(tmp_path / "new", spec_of(dtype, 1), layout=layout_of(encoding))
    assert not (tmp_path / "new").exists()


@given(data=st.data(), compression=st.sampled_from(["none", "gzip", "br"]), case=st.sampled_from(CASES))
@settings(deadline=None, max_examples=25)
def test_files_compressed_by_any_second_stage_keep_every_encoding(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, compression: str, case: tuple[str, str, int]
) -> None:
    encoding, dtype, channels = case
    url = tmp_path_factory.mktemp("layer")
    box = BoundingBox.from_size(data.draw(triples(-9, 9), "start"), data.draw(triples(1, 20), "size"))
    layout = layout_of(encoding, compression=compression)
    store = create_store(url, spec_of(dtype, channels, box), layout=layout)
    array = content(store.spec)
    write_all(store, array)
    ending = {"none": "", "gzip": ".gz", "br": ".br"}[compression]
    assert {path.suffix for path in (url / "4_4_40").iterdir()} == {ending}
    np.testing.assert_array_equal(open_store(url).read(box), array)
    if case in READ_BY_CLOUDVOLUME:
        np.testing.assert_array_equal(read_by_cloudvolume(url).reshape(array.shape), array)


def test_chunks_of_zeros_are_deleted_when_they_are_dropped(tmp_path: Path) -> None:
    for encoding, dtype, channels in ONE_EACH:
        for shard in (None, SHARD):
            url = tmp_path / f"{encoding}-{shard is None}"
            store = create_store(url, spec_of(dtype, channels), layout=layout_of(encoding, shard=shard))
            write_all(store, voxels(store.spec))
            array = np.zeros(store.spec.shape, dtype)
            array[..., 0, 0, 0] = 3
            for box in BlockGrid(BOX, store.spec.write_unit or CHUNK, store.spec.chunk_origin):
                store.write(box, array[(..., *box.slices(BOX))], drop=0)
            with counting() as counts:
                found = open_store(url, fill_missing=True).read(BOX)
            assert counts == {"missing_chunks": 11}
            np.testing.assert_array_equal(found, array)
