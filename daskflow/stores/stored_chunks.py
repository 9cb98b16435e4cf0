"""Which chunks and shards are stored, by their names: no voxel is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.objects.files import sized_names
from daskflow.stores.objects.shards import shard_name
from daskflow.stores.precomputed_driver import chunk_name
from daskflow.stores.sharding import chunk_id

_CHUNK = re.compile(r"(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)(?:\.gz|\.br|\.zstd)?")
_SHARD = re.compile(r"[0-9a-f]+\.shard")
_PROBES = 256
_AT_ONCE = 16


@dataclass(frozen=True)
class StoredObject:
    """A chunk or shard in storage.

    Attributes:
        url: where it is.
        size: bytes; 0 in a bucket, where listings do not tell.
        box: voxels (zyx) of a precomputed chunk file, which its name tells; None of others.
    """

    url: str
    size: int
    box: BoundingBox | None = None


def precomputed_objects(url: str) -> Iterator[StoredObject]:
    """Yield the chunks and shards in the directory of a precomputed level, whatever the info says of its size.

    Raises:
        StoreAccessError: it cannot be listed.
    """
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

    Args:
        url: of the level.
        spec: of the level.
        sharding: of its info, None without shards.
        box: where to look.
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
    assert spec.chunk is not None
    assert spec.chunk_origin is not None
    z, y, x = ((a - o) // c for a, o, c in zip(unit.start, spec.chunk_origin, spec.chunk, strict=True))
    bits = sharding["preshift_bits"] + sharding["minishard_bits"]
    return shard_name(chunk_id(spec.box.shape, spec.chunk, (z, y, x)) >> bits, sharding)
