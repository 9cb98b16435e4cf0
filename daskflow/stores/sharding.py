"""Which boxes of chunks a precomputed shard can hold, and the bits that make it so.

Shards hold runs of compressed Morton codes: the bits of a chunk's grid position are interleaved x, y, z from the
lowest, and an axis takes part only while it has bits left (neuroglancer's sharded format, section "Volume chunk ids").
With the identity hash the lowest `preshift_bits + minishard_bits` bits of that code number the chunks of one shard,
so a shard is the box that these bits span, and the shapes that exist form one chain, each twice the one before:

    bits      0        1         2         3          4
    xyz     1x1x1    2x1x1     2x2x1     2x2x2      4x2x2 ...     (chunks)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from daskflow.errors import ParameterError, StoreError
from daskflow.geometry import Zyx
from daskflow.stores.refusals import check_forms, one_of, whole

MINISHARD_CHUNKS_BITS = 11  # 2048 chunks: an index of 49 kB before gzip, as other writers of image shards take
MAX_MINISHARD_BITS = 9  # 512 minishards: a shard index of 8 kB

_FORMS = {
    "@type": one_of("neuroglancer_uint64_sharded_v1"),
    "hash": one_of("identity", "murmurhash3_x86_128"),
    "preshift_bits": whole(0, 64),
    "minishard_bits": whole(0, 32),
    "shard_bits": whole(0, 64),
    "minishard_index_encoding": one_of("raw", "gzip"),
    "data_encoding": one_of("raw", "gzip"),
}


def check_sharding(sharding: Any, name: str = "sharding") -> dict[str, Any]:
    """Return the ``sharding`` JSON of an info, with all that it leaves to defaults."""
    if not isinstance(sharding, dict):
        raise StoreError(f"{name} is {sharding!r}, which must be a JSON object; correct it there")
    stated = {key: sharding[key] for key in _FORMS if key in sharding}
    filled: dict[str, Any] = {"preshift_bits": 0, "minishard_index_encoding": "raw", "data_encoding": "raw", **stated}
    check_forms(filled, _FORMS, name, required=tuple(_FORMS))
    if filled["minishard_bits"] + filled["shard_bits"] > 64:
        raise StoreError(f"{name} has more than 64 bits of minishards and shards together; correct it there")
    return filled


def sharding_spec(size: Zyx, chunk: Zyx, shard: Zyx, *, data_encoding: str = "raw") -> dict[str, Any]:
    """Return the ``sharding`` JSON of shards of `shard` voxels; an axis that covers the volume may be longer."""
    grid = _grid(size, chunk)
    total = sum(_bits(grid))
    spans = [_span(grid, bits) for bits in range(total + 1)]
    wanted = tuple(min(-(-s // c), g) for s, c, g in zip(shard, chunk, grid, strict=True))
    shapes = [tuple(min(s, g) for s, g in zip(span, grid, strict=True)) for span in spans]
    if any(s % c for s, c in zip(shard, chunk, strict=True)) or wanted not in shapes:
        nearest = min(shapes, key=lambda shape: _distance(shape, shard, chunk))
        raise ParameterError(
            f"shard {shard} voxels zyx of chunks {chunk} is not a Morton range of a precomputed volume of {size}; "
            f"nearest is {_times(nearest, chunk)}"
        )
    bits = shapes.index(wanted)
    minishard = min(max(bits - MINISHARD_CHUNKS_BITS, 0), MAX_MINISHARD_BITS)
    return {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": bits - minishard,
        "minishard_bits": minishard,
        "shard_bits": total - bits,
        "minishard_index_encoding": "gzip",
        "data_encoding": data_encoding,
    }


def default_shard(size: Zyx, chunk: Zyx, voxel_bytes: int, *, memory: int) -> Zyx:
    """Return the largest shard (zyx voxels) whose uncompressed chunks fit in some bytes, or about so.

    The chunks that fit in `memory` bytes are rounded down to a power of two, at least one; sizes are voxels zyx.
    """
    grid = _grid(size, chunk)
    chunks = math.ceil(memory / (math.prod(chunk) * voxel_bytes))
    bits = min(chunks.bit_length() - 1, (math.prod(grid) - 1).bit_length())
    z, y, x = (min(s, g) for s, g in zip(_span(grid, bits), grid, strict=True))
    return _times((z, y, x), chunk)


def shard_shape(size: Zyx, chunk: Zyx, sharding: dict[str, Any]) -> Zyx:
    """Return the voxels (zyx) of one shard, at most the volume rounded up to whole chunks.

    With another hash than identity, or too few bits for the volume, a shard takes chunks from everywhere, so one writer
    must own the whole volume.
    """
    grid = _grid(size, chunk)
    bits = sharding.get("preshift_bits", 0) + sharding["minishard_bits"]
    in_one_place = sharding["hash"] == "identity" and bits + sharding["shard_bits"] >= sum(_bits(grid))
    span = _span(grid, bits) if in_one_place else grid
    z, y, x = (min(s, g) for s, g in zip(span, grid, strict=True))
    return _times((z, y, x), chunk)


def chunk_id(size: Zyx, chunk: Zyx, position: Zyx) -> int:
    """Return the compressed Morton code of the chunk at a grid position (zyx)."""
    code, shifts = 0, [0, 0, 0]
    for bit, axis in enumerate(_axes_of_bits(_grid(size, chunk))):
        code |= (position[axis] >> shifts[axis] & 1) << bit
        shifts[axis] += 1
    return code


def _axes_of_bits(grid: Zyx) -> Iterator[int]:
    """Yield the axis (0 is z) of every bit of the compressed Morton code, the lowest first."""
    bits = _bits(grid)
    for bit in range(max(bits)):
        yield from (axis for axis in (2, 1, 0) if bit < bits[axis])


def _grid(size: Zyx, chunk: Zyx) -> Zyx:
    z, y, x = (max(1, -(-s // c)) for s, c in zip(size, chunk, strict=True))
    return z, y, x


def _bits(grid: Zyx) -> Zyx:
    z, y, x = ((n - 1).bit_length() for n in grid)
    return z, y, x


def _span(grid: Zyx, bits: int) -> Zyx:
    """Return the chunks (zyx) that the lowest `bits` bits of the compressed Morton code span."""
    span = [1, 1, 1]
    for axis in itertools.islice(_axes_of_bits(grid), bits):
        span[axis] *= 2
    return span[0], span[1], span[2]


def _distance(shape: tuple[int, ...], shard: Zyx, chunk: Zyx) -> float:
    return sum(abs(math.log(n * c / s)) for n, s, c in zip(shape, shard, chunk, strict=True))


def _times(shape: tuple[int, ...], chunk: Zyx) -> Zyx:
    z, y, x = (n * c for n, c in zip(shape, chunk, strict=True))
    return z, y, x
