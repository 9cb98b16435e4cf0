"""Chunks of zeros and missing chunks inside precomputed shards, which tensorstore does not tell apart.

Its precomputed driver (0.1.86) drops chunks of zeros from shards that it writes, and in shards with the identity hash
reads chunks that were never written as zeros, whatever `store_data_equal_to_fill_value` and `fill_missing_data_reads`
say. Chunks with a voxel other than zero are certain to exist; the others are looked up in, or put into, the shards by
their ids.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.answers import wait
from daskflow.stores.base import Array
from daskflow.stores.precomputed_driver import chunk_name, chunks_of, view_in_memory, write_box
from daskflow.stores.sharding import chunk_id


def zero_chunks(spec: VolumeSpec, box: BoundingBox, array: Array) -> list[BoundingBox]:
    """Return the pieces of `box`, one per chunk, whose voxels in `array` are all zero."""
    assert spec.chunk is not None
    return [
        piece
        for piece in BlockGrid(box, spec.chunk, spec.chunk_origin)
        if not _any_nonzero(array[(..., *piece.slices(box))])
    ]


def missing_chunks(url: str, metadata: str, spec: VolumeSpec, pieces: list[BoundingBox]) -> list[BoundingBox]:
    """Return those of `pieces`, each inside one chunk, whose chunk is in no shard."""
    import tensorstore as ts

    shards, batch = open_shards(url, metadata), ts.Batch()
    reads = [shards.read(chunk_key(spec, piece), batch=batch) for piece in pieces]
    batch.submit()
    return [piece for piece, read in zip(pieces, reads, strict=True) if wait(read, url).state == "missing"]


def write_every_chunk(url: str, metadata: str, spec: VolumeSpec, box: BoundingBox, array: Array) -> None:
    """Write whole shards, chunks of zeros included: encoded in memory, then put into each shard in one transaction."""
    import tensorstore as ts

    shards = open_shards(url, metadata)
    with view_in_memory(metadata, spec) as (chunks, view):
        write_box(view, spec, box, array)
        with ts.Transaction() as transaction:
            target = shards.with_transaction(transaction)
            for chunk in chunks_of(spec, box):
                target[chunk_key(spec, chunk)] = chunks[chunk_name(chunk)]


def _any_nonzero(array: Array) -> bool:
    return bool(array[..., 0, :].any() or array.any())


def chunk_key(spec: VolumeSpec, piece: BoundingBox) -> bytes:
    """Return the key, in the shards, of the chunk that a piece is inside of."""
    assert spec.chunk is not None
    assert spec.chunk_origin is not None
    z, y, x = ((a - o) // c for a, o, c in zip(piece.start, spec.chunk_origin, spec.chunk, strict=True))
    return struct.pack(">Q", chunk_id(spec.box.shape, spec.chunk, (z, y, x)))


def open_shards(url: str, metadata: str, *, as_stored: bool = False) -> Any:
    """Return the chunks of a scale as a tensorstore key-value store, `as_stored` without unpacking them."""
    import tensorstore as ts

    scale = json.loads(metadata)["scale_metadata"]
    base = kvstore.kvstore_spec(kvstore.join(url, scale["key"]))
    sharding = {**scale["sharding"], "data_encoding": "raw"} if as_stored else scale["sharding"]
    request = {"driver": "neuroglancer_uint64_sharded", "base": base, "metadata": sharding}
    return ts.KvStore.open(request, context=kvstore.context()).result()


def zipped(metadata: str) -> bool:
    """Return whether chunks are compressed by gzip in shards."""
    return ((json.loads(metadata)["scale_metadata"]["sharding"] or {}).get("data_encoding")) == "gzip"
