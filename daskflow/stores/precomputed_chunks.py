"""Chunks of a precomputed scale: their names, which are stored, and their voxels by tensorstore's driver, as (c)zyx.

The driver's Fortran-ordered xyzc is the same memory as C-ordered czyx: read through the transposed view it is four
times faster than as it lies. In shards tensorstore 0.1.86 mixes chunks of zeros up with missing ones: it drops
those of zeros when it writes, and with the identity hash reads chunks that were never written as zeros, whatever
`store_data_equal_to_fill_value` and `fill_missing_data_reads` say. Chunks with a voxel other than zero are certain to
exist; the others are looked up in, or put into, the shards by their ids.
"""

from __future__ import annotations

import functools
import json
import re
import struct
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from daskflow.errors import StoreError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.answers import plain_message, wait
from daskflow.stores.base import Array, StoredObject
from daskflow.stores.objects.files import sized_names
from daskflow.stores.objects.shards import shard_name
from daskflow.stores.sharding import chunk_id

_CHUNK = re.compile(r"(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)(?:\.gz|\.br|\.zstd)?")
_SHARD = re.compile(r"[0-9a-f]+\.shard")
_PROBES = 256
_AT_ONCE = 16


def open_view(store: dict[str, Any], metadata: str, spec: VolumeSpec, *, strict: bool = True) -> Any:
    """Return one scale as a tensorstore view czyx, or zyx when `spec` has no channels.

    Nothing is read to open it: `metadata` are text of `precomputed_info.driver_metadata`. A missing chunk is an error
    if `strict`, else it reads as zeros.
    """
    import tensorstore as ts

    request = {
        "driver": "neuroglancer_precomputed",
        "kvstore": store,
        "fill_missing_data_reads": not strict,
        "store_data_equal_to_fill_value": True,
        **json.loads(metadata),
    }
    try:
        handle = ts.open(request, open=True, assume_metadata=True, context=kvstore.context()).result()
    except (ValueError, OverflowError) as error:
        raise StoreError(f"cannot open {spec} as its info describes it: {plain_message(error)}") from error
    return handle[..., 0].T if spec.channels is None else handle.T


def shared_view(url: str, metadata: str, spec: VolumeSpec) -> Any:
    """Return the strict view of a layer's scale, opened once per process while it is in use."""
    return _shared_view(json.dumps(kvstore.kvstore_spec(url)), metadata, spec)


@functools.lru_cache(maxsize=256)
def _shared_view(store: str, metadata: str, spec: VolumeSpec) -> Any:
    return open_view(json.loads(store), metadata, spec)


@contextmanager
def view_in_memory(metadata: str, spec: VolumeSpec) -> Iterator[tuple[Any, Any]]:
    """Yield an empty key-value store, keyed by plain chunk names, and the scale as if its chunks were stored there.

    Chunks that are not put there read as zeros.
    """
    import tensorstore as ts

    given = json.loads(metadata)
    given["scale_metadata"]["sharding"] = None
    root = f"chunks-{uuid.uuid4().hex}/"
    location = {"driver": "memory", "path": root}
    beside = {"driver": "memory", "path": f"{root}{given['scale_metadata']['key']}/"}
    chunks = ts.KvStore.open(beside, context=kvstore.context()).result()
    try:
        yield chunks, open_view(location, json.dumps(given), spec, strict=False)
    finally:
        chunks.delete_range(ts.KvStore.KeyRange()).result()


def chunk_name(chunk: BoundingBox) -> str:
    """Return the name that precomputed gives to the object of an unsharded chunk."""
    return "_".join(f"{a}-{b}" for a, b in zip(reversed(chunk.start), reversed(chunk.stop), strict=True))


def chunks_of(spec: VolumeSpec, box: BoundingBox) -> list[BoundingBox]:
    """Return the chunks that share a voxel with `box`, whole but for the volume's edge."""
    assert spec.chunk is not None
    grid = BlockGrid(spec.box, spec.chunk, spec.chunk_origin)
    return [grid[index] for index in grid.touching(box)]


def part(view: Any, spec: VolumeSpec, box: BoundingBox) -> Any:
    """Return the part of a view that holds `box`."""
    slices = tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))
    return view[slices] if spec.channels is None else view[(slice(None), *slices)]


def read_box(view: Any, spec: VolumeSpec, box: BoundingBox, url: str = "memory://") -> Array:
    """Return the voxels of `box`, of the layer at `url`, as a new C-ordered array."""
    array: Array = wait(part(view, spec, box).read(order="C"), url)
    return array


def write_box(view: Any, spec: VolumeSpec, box: BoundingBox, array: Array, url: str = "memory://") -> None:
    """Write the voxels of `box` to the layer at `url` and wait until they are stored.

    The array is copied: tensorstore 0.1.86, allowed to keep it, stores zeros in shards of several channels.
    """
    wait(part(view, spec, box).write(array), url)


def zero_chunks(spec: VolumeSpec, box: BoundingBox, array: Array) -> list[BoundingBox]:
    """Return the pieces of `box`, one per chunk, whose voxels in `array` are all zero."""
    assert spec.chunk is not None
    return [
        piece
        for piece in BlockGrid(box, spec.chunk, spec.chunk_origin)
        if not (part := array[(..., *piece.slices(box))])[..., 0, :].any() and not part.any()
    ]


def missing_chunks(url: str, metadata: str, spec: VolumeSpec, pieces: list[BoundingBox]) -> list[BoundingBox]:
    """Return those of `pieces`, each inside one chunk, whose chunk is in no shard."""
    import tensorstore as ts

    shards, batch = open_shards(url, metadata), ts.Batch()
    reads = [shards.read(chunk_key(spec, piece), batch=batch) for piece in pieces]
    batch.submit()
    return [piece for piece, read in zip(pieces, reads, strict=True) if wait(read, url).state == "missing"]


def chunk_key(spec: VolumeSpec, piece: BoundingBox) -> bytes:
    """Return the key, in the shards, of the chunk that a piece is inside of."""
    assert spec.chunk is not None
    assert spec.chunk_origin is not None
    z, y, x = ((a - o) // c for a, o, c in zip(piece.start, spec.chunk_origin, spec.chunk, strict=True))
    return struct.pack(">Q", chunk_id(spec.box.shape, spec.chunk, (z, y, x)))


def open_shards(url: str, metadata: str, *, as_stored: bool = False) -> Any:
    """Return the chunks of a scale as a tensorstore key-value store, `as_stored` without unpacking them."""
    scale = json.loads(metadata)["scale_metadata"]
    base = kvstore.kvstore_spec(kvstore.join(url, scale["key"]))
    sharding = {**scale["sharding"], "data_encoding": "raw"} if as_stored else scale["sharding"]
    request = {"driver": "neuroglancer_uint64_sharded", "base": base, "metadata": sharding}
    return kvstore.opened(request)


def zipped(metadata: str) -> bool:
    """Return whether chunks are compressed by gzip in shards."""
    return ((json.loads(metadata)["scale_metadata"]["sharding"] or {}).get("data_encoding")) == "gzip"


def precomputed_objects(url: str) -> Iterator[StoredObject]:
    """Yield the chunks and shards in the directory of a precomputed level, whatever the info says of its size."""
    for name, size in sized_names(url):
        box = _box(name)
        if box is not None or _SHARD.fullmatch(name):
            yield StoredObject(kvstore.join(url, name), size, box)


def _box(name: str) -> BoundingBox | None:
    """Return the voxels of the chunk that a file is named after, None for other names."""
    match = _CHUNK.fullmatch(name)
    if match is None:
        return None
    x0, x1, y0, y1, z0, z1 = map(int, match.groups())
    return BoundingBox((z0, y0, x0), (z1, y1, x1)) if x0 < x1 and y0 < y1 and z0 < z1 else None


def precomputed_units(
    url: str, spec: VolumeSpec, sharding: dict[str, Any] | None, box: BoundingBox
) -> Iterator[BoundingBox]:
    """Yield chunks, or shards, of a precomputed level that share a voxel with `box` and are stored.

    On a local disk all of them. In a bucket, where to list millions takes minutes, at most 256 are looked for: the
    first, the last and others evenly between them, and all of unsharded ones whose x and y are those of the first.
    """
    unit, inside, local = spec.write_unit, box.clip(spec.box), kvstore.local_path(url) is not None
    assert unit is not None
    if inside.empty:
        return
    pieces = BlockGrid(inside, unit, spec.chunk_origin)

    def whole(number: int) -> BoundingBox:
        return pieces[number].align(unit, spec.chunk_origin or inside.start).clip(spec.box)

    if sharding is not None and (local or sharding["hash"] != "identity"):
        names = {name for name, _ in sized_names(url) if _SHARD.fullmatch(name)}
        if sharding["hash"] != "identity":
            yield from [spec.box] if names else []
        elif names:
            yield from (one for one in map(whole, range(len(pieces))) if _shard(spec, sharding, one) in names)
    elif local:
        found = (one.box for one in precomputed_objects(url) if one.box is not None)
        yield from (one for one in found if not one.clip(inside).empty)
    else:
        last = len(pieces) - 1
        probes = [whole(number) for number in dict.fromkeys(round(n * last / (_PROBES - 1)) for n in range(_PROBES))]

        def there(one: BoundingBox) -> list[str]:
            return kvstore.list_names(url, chunk_name(one) if sharding is None else _shard(spec, sharding, one))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from (one for one, names in zip(probes, pool.map(there, probes), strict=True) if names)
        if sharding is None and last >= _PROBES:
            beside = kvstore.list_names(url, f"{chunk_name(probes[0]).rpartition('_')[0]}_")
            boxes = (_box(name) for name in beside)
            yield from (one for one in boxes if one and one not in probes and not one.clip(inside).empty)


def _shard(spec: VolumeSpec, sharding: dict[str, Any], unit: BoundingBox) -> str:
    """Return the name of the file of a shard."""
    bits = sharding["preshift_bits"] + sharding["minishard_bits"]
    return shard_name(int.from_bytes(chunk_key(spec, unit), "big") >> bits, sharding)
