from __future__ import annotations

import math

import pytest
import tensorstore as ts
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import ParameterError
from daskflow.stores.sharding import chunk_id, default_shard, shard_shape, sharding_spec
from daskflow.testing.stores import triples


def written_together(size: tuple[int, ...], chunk: tuple[int, ...], sharding: dict) -> tuple[int, ...]:
    """Return the write chunk (zyx) that tensorstore derives from the same metadata."""
    request = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "memory"},
        "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 1},
        "scale_metadata": {
            "key": "k",
            "size": size[::-1],
            "resolution": [1, 1, 1],
            "chunk_size": chunk[::-1],
            "encoding": "raw",
            "sharding": sharding,
        },
    }
    handle = ts.open(request, open=True, assume_metadata=True).result()
    return handle.chunk_layout.write_chunk.shape[:3][::-1]


@st.composite
def shardings(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict]:
    size, chunk = draw(triples(1, 400)), draw(triples(1, 64))
    bits = [draw(st.integers(0, 9)) for _ in range(3)]
    sharding = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": draw(st.sampled_from(["identity", "murmurhash3_x86_128"])),
        "preshift_bits": bits[0],
        "minishard_bits": bits[1],
        "shard_bits": bits[2],
    }
    return size, chunk, sharding


@given(shardings())
def test_the_shape_of_a_shard_is_tensorstores(given_sharding: tuple) -> None:
    size, chunk, sharding = given_sharding
    assert shard_shape(size, chunk, sharding) == written_together(size, chunk, sharding)


@given(triples(1, 400), triples(1, 64), st.integers(0, 27))
def test_a_shard_shape_that_exists_is_made(size: tuple, chunk: tuple, bits: int) -> None:
    existing = shard_shape(size, chunk, {"hash": "identity", "minishard_bits": bits, "shard_bits": 60})
    sharding = sharding_spec(size, chunk, existing)
    assert shard_shape(size, chunk, sharding) == existing
    assert written_together(size, chunk, sharding) == existing
    total = sharding["preshift_bits"] + sharding["minishard_bits"] + sharding["shard_bits"]
    assert 2**total >= math.prod(-(-s // c) for s, c in zip(size, chunk, strict=True))


@given(triples(1, 400), triples(1, 64), triples(1, 9))
def test_any_other_shape_is_refused_with_one_that_works(size: tuple, chunk: tuple, times: tuple) -> None:
    shard = tuple(c * t for c, t in zip(chunk, times, strict=True))
    try:
        sharding_spec(size, chunk, shard)
    except ParameterError as error:
        nearest = tuple(int(n) for n in str(error).rpartition("(")[2].rstrip(")").split(","))
        assert shard_shape(size, chunk, sharding_spec(size, chunk, nearest)) == nearest


def test_a_shard_that_is_no_multiple_of_the_chunk_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"nearest is \(64, 64, 128\)"):
        sharding_spec((256, 256, 256), (64, 64, 64), (64, 64, 100))


def test_a_cube_of_chunks_is_a_shard() -> None:
    sharding = sharding_spec((1000, 1000, 1000), (64, 64, 64), (256, 256, 256))
    assert (sharding["preshift_bits"], sharding["minishard_bits"], sharding["shard_bits"]) == (6, 0, 6)


def test_large_shards_have_small_indices() -> None:
    sharding = sharding_spec((2**14,) * 3, (64, 64, 64), (2048, 2048, 2048))
    assert 24 * 2 ** sharding["preshift_bits"] <= 50_000
    assert 16 * 2 ** sharding["minishard_bits"] <= 8_192
    assert sharding["preshift_bits"] + sharding["minishard_bits"] == 15


@given(triples(1, 9))
def test_chunk_ids_are_distinct_and_fill_shards_as_boxes(grid: tuple) -> None:
    positions = [(z, y, x) for z in range(grid[0]) for y in range(grid[1]) for x in range(grid[2])]
    ids = [chunk_id(grid, (1, 1, 1), position) for position in positions]
    assert len(set(ids)) == len(ids)
    assert max(ids) < 2 ** sum((n - 1).bit_length() for n in grid)
    for bits in range(6):
        shape = shard_shape(grid, (1, 1, 1), {"hash": "identity", "minishard_bits": bits, "shard_bits": 60})
        for position, number in zip(positions, ids, strict=True):
            first = tuple(p // s * s for p, s in zip(position, shape, strict=True))
            assert chunk_id(grid, (1, 1, 1), first) >> bits == number >> bits


def test_chunk_ids_are_neuroglancers() -> None:
    # x, y and z of a 5 x 3 x 2 grid take 3, 2 and 1 bits: code bits are x0 y0 z0 x1 y1 x2.
    assert chunk_id((2, 3, 5), (1, 1, 1), (1, 2, 4)) == 0b110100
    assert chunk_id((2, 3, 5), (1, 1, 1), (0, 0, 3)) == 0b001001


@pytest.mark.parametrize(
    ("size", "chunk", "voxel_bytes", "bits"),  # xyz
    [
        ((1024, 1024, 512), (64, 64, 64), 1, (11, 0, 0)),
        ((100_000, 100_000, 20_000), (128, 128, 64), 1, (11, 0, 18)),
        ((100_000, 100_000, 20_000), (128, 128, 64), 8, (8, 0, 21)),
        ((100_000, 100_000, 2_000), (1024, 1024, 1), 1, (11, 0, 14)),
        ((5440, 4792, 194), (64, 64, 64), 1, (11, 2, 3)),
        ((300, 200, 50), (64, 64, 32), 8, (6, 0, 0)),
        ((513, 257, 70), (64, 64, 64), 1, (7, 0, 1)),
    ],
)
def test_shards_of_three_and_a_half_gigabytes_are_those_of_igneous(size, chunk, voxel_bytes, bits) -> None:
    shard = default_shard(size[::-1], chunk[::-1], voxel_bytes, memory=3_500_000_000)
    sharding = sharding_spec(size[::-1], chunk[::-1], shard)
    assert (sharding["preshift_bits"], sharding["minishard_bits"], sharding["shard_bits"]) == bits


@given(triples(1, 4000), triples(1, 64), st.sampled_from([1, 2, 8]), st.integers(1, 10**9))
def test_default_shards_exist_and_fit(size: tuple, chunk: tuple, voxel_bytes: int, memory: int) -> None:
    shard = default_shard(size, chunk, voxel_bytes, memory=memory)
    assert shard_shape(size, chunk, sharding_spec(size, chunk, shard)) == shard
    assert math.prod(shard) * voxel_bytes <= max(memory, 1) + math.prod(chunk) * voxel_bytes
