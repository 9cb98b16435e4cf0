"""Small objects that unpack to far more than there can be are damaged, by whichever way they come in."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import struct

import brotli
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import igzip
from numcodecs import Zstd

from daskflow.errors import CorruptChunkError, JobError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.jobs.ledger import Ledger
from daskflow.stores import kvstore
from daskflow.stores.base import Layout
from daskflow.stores.compressed import MOST_ALWAYS, decompress
from daskflow.stores.objects.files import read_file
from daskflow.stores.objects.intmap import read_intmap
from daskflow.stores.objects.layer_objects import Meshes, Skeletons
from daskflow.stores.objects.shards import Shards, object_sharding, write_shard
from daskflow.stores.objects.skeleton_files import skeleton_info
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.stores.opening import create_store, open_store

PACKERS = {".gz": igzip.compress, ".br": functools.partial(brotli.compress, quality=1), ".zstd": Zstd().encode}
MUCH = 2 * MOST_ALWAYS
SPEC = VolumeSpec(BoundingBox((0, 0, 0), (16, 16, 16)), np.dtype(np.uint32), voxel_size=(4, 4, 4), layer_type="image")
VOXELS = np.arange(1, 16**3 + 1, dtype=np.uint32).reshape(16, 16, 16)
too_much = functools.partial(pytest.raises, CorruptChunkError)


@functools.cache
def bomb(suffix=".gz"):
    packed = PACKERS[suffix](bytes(MUCH))
    assert 200 * len(packed) < MUCH
    return packed


@given(st.sampled_from(list(PACKERS)), st.binary(min_size=1, max_size=400), st.integers(1, 200))
def test_what_has_the_size_at_most_is_returned_and_more_refused(suffix, data, times):
    content = data * times
    packed = PACKERS[suffix](content)
    assert decompress(packed, suffix, "it", len(content)) == content == decompress(packed, suffix, "it")
    with too_much(match=f"^cannot decompress it: its {len(packed):,} bytes hold more than the {len(content) - 1:,} "):
        decompress(packed, suffix, "it", len(content) - 1)


def test_all_members_of_gzip_are_unpacked_and_none_is_lost():
    data = igzip.compress(b"a" * 1000) + igzip.compress(b"b" * 500)
    assert decompress(data, ".gz", "it") == b"a" * 1000 + b"b" * 500
    assert decompress(data + bytes(3), ".gz", "it", 1500)[-1:] == b"b"
    for wrong, most in ((data, 1499), (data[:-3], 1500), (data + b"junk", 1500)):
        with pytest.raises(CorruptChunkError):
            decompress(wrong, ".gz", "it", most)


@given(st.sampled_from(list(PACKERS)), st.binary(max_size=99))
def test_bytes_that_are_cut_are_damaged_and_any_others_raise_nothing_else(suffix, data):
    with contextlib.suppress(CorruptChunkError):  # a byte or two can be an empty brotli stream
        decompress(data, suffix, "it")
    with too_much(match="cannot decompress it"):
        decompress(PACKERS[suffix](data)[:-1], suffix, "it")


@pytest.mark.parametrize("suffix", [".gz", ".br"])
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_a_chunk_object(tmp_path, place, suffix):
    url = f"file://{tmp_path}" if place == "disk" else f"memory://bombs{suffix}"
    store = create_store(url, SPEC, layout=Layout(chunk=(16, 16, 16)))
    kvstore.write_bytes(f"{store.url}/4_4_4/0-16_0-16_0-16{suffix}", bomb(suffix))
    with too_much(match=rf"0-16_0-16_0-16\{suffix}: .* more than the 98,304 expected"):
        open_store(url).read(SPEC.box)


@pytest.mark.parametrize("encoding", ["raw", "png", "compressed_segmentation"])
def test_a_chunk_in_a_shard(tmp_path, encoding):
    spec = SPEC.replace(dtype="uint16") if encoding == "png" else SPEC
    layout = Layout(chunk=(8, 16, 16), shard=(16, 16, 16), encoding=encoding, compression="gzip")
    store = create_store(tmp_path, spec, layout=layout)
    store.write(spec.box, VOXELS.astype(spec.dtype))
    np.testing.assert_array_equal(open_store(tmp_path).read(spec.box), VOXELS)
    scale = json.loads((tmp_path / "info").read_text())["scales"][0]
    kept = Shards(f"{tmp_path}/4_4_4", scale["sharding"]).read(0)
    write_shard(f"{tmp_path}/4_4_4", 0, scale["sharding"], {0: kept, 1: bytes(MUCH)})
    store = open_store(tmp_path)
    np.testing.assert_array_equal(store.read(BoundingBox((0, 0, 0), (8, 16, 16))), VOXELS[:8])
    with too_much(match=r"8-16_0-16_0-16 .* in the shards of .* more than the"):
        store.read(spec.box)


def test_a_chunk_that_a_server_unpacks_is_too_long(http_files):
    url, directory = http_files
    store = create_store(directory, SPEC, layout=Layout(chunk=(16, 16, 16)))
    store.write(SPEC.box, VOXELS)
    (directory / "4_4_4/0-16_0-16_0-16").write_bytes(bytes(MUCH))
    with too_much(match="0-16_0-16_0-16"):
        open_store(url).read(SPEC.box)


@pytest.mark.parametrize("suffix", [".gz", ".br"])
def test_files_of_objects(tmp_path, suffix):
    for name in ("5:0", "5:0:half", "5", "6.index", "info", "0-64_0-64_0-64.spatial"):
        (tmp_path / f"{name}{suffix}").write_bytes(bomb(suffix))
        with too_much(match=f"{name}{suffix}: .* more than the"):
            read_file(str(tmp_path), name)
    with too_much(match="spatial"):
        SpatialIndex(BoundingBox((0, 0, 0), (64, 64, 64)), (64, 64, 64), (1, 1, 1)).query(f"file://{tmp_path}")


def test_a_file_in_a_bucket():
    kvstore.write_bytes("memory://object-bombs/5", bomb())
    with too_much(match="memory://object-bombs/5"):
        read_file("memory://object-bombs", "5")


def test_fragments_of_meshes_and_skeletons_and_their_infos(tmp_path):
    create_store(tmp_path, SPEC.replace(layer_type="segmentation"))
    info = json.loads((tmp_path / "info").read_text()) | {"mesh": "mesh", "skeletons": "skeletons"}
    (tmp_path / "info").write_text(json.dumps(info))
    for name, content in {"mesh/5:0": b'{"fragments": ["5:0:half"]}', "skeletons/info": skeleton_info()}.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        kvstore.write_bytes(f"file://{tmp_path}/{name}", data)
    for name in ("mesh/5:0:half", "skeletons/5"):
        (tmp_path / f"{name}.gz").write_bytes(bomb())
    for objects in (Meshes(str(tmp_path)), Skeletons(str(tmp_path))):
        with too_much(match=r"5.*\.gz: .* more than the"):
            objects.read(5)
    shutil.move(tmp_path / "skeletons/5.gz", tmp_path / "skeletons/info.gz")
    (tmp_path / "skeletons/info").unlink()
    with too_much(match=r"skeletons/info\.gz"):
        Skeletons(str(tmp_path))


def test_objects_in_shards(tmp_path):
    sharding = object_sharding(1, data_encoding="gzip")
    write_shard(str(tmp_path), 0, sharding, {5: bytes(MUCH)})
    with too_much(match=r"label 5 in .*0\.shard: .* more than the"):
        Shards(str(tmp_path), sharding).read(5)


def test_the_index_of_a_minishard(tmp_path):
    (tmp_path / "0.shard").write_bytes(struct.pack("<QQ", 0, len(bomb())) + bomb())
    with too_much(match=r"index of minishard 0 of .*0\.shard: .* more than the"):
        Shards(str(tmp_path), object_sharding(1)).read(5)


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_map_of_voxel_counts(tmp_path, suffix):
    (tmp_path / f"counts.im{suffix}").write_bytes(bomb(suffix))
    with too_much(match=rf"counts\.im\{suffix}: .* more than the"):
        read_intmap(str(tmp_path / "counts.im"))


def test_a_ledger():
    kvstore.write_bytes("memory://ledger-bomb/c/0/0/0", bomb())
    with pytest.raises(JobError, match="more than the"):
        Ledger.load("memory://ledger-bomb", BlockGrid(SPEC.box, (8, 8, 8)))
