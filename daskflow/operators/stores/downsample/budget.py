"""Memory for a shape, and a shape for memory: what a block and the levels made of it take."""

from __future__ import annotations

import math

from daskflow.errors import ParameterError
from daskflow.geometry import Zyx
from daskflow.operators.stores.downsample.levels import MOST_LEVELS, with_levels


def memory_for(shape: Zyx, voxel_bytes: int, factor: Zyx) -> int:
    """Return the bytes of a block (zyx voxels) and of all levels that can be made of it, e.g. 4/3 of it for 1 2 2.

    Raises:
        ParameterError: a shape or factor below 1.
    """
    _check(shape, factor)
    whole = math.prod(shape) * voxel_bytes
    return math.ceil(whole if factor == (1, 1, 1) else whole * with_levels(factor))


def shape_within(memory: int, chunk: Zyx, voxel_bytes: int, factor: Zyx, *, levels: int = 5) -> Zyx:
    """Return the block of whole chunks (zyx voxels) that gives the most levels within some bytes.

    The axes that shrink share the memory in such a way that all have about as many chunks; each has `factor` to some
    power of them, at most `levels`. Where nothing shrinks, y and x share it, and z has one chunk.

    Args:
        memory: bytes for the block and its levels.
        chunk: voxels per chunk (zyx).
        voxel_bytes: bytes of a voxel, all channels.
        factor: voxels per window (zyx).
        levels: the most levels that are wanted.

    Raises:
        ParameterError: less memory than a chunk takes, or a chunk or factor below 1.
    """
    _check(chunk, factor)
    least = memory_for(chunk, voxel_bytes, factor)
    if memory < least:
        raise ParameterError(f"{memory:,} bytes are less than one chunk of {chunk} voxels (zyx) takes, {least:,}")
    still = factor == (1, 1, 1)
    shrinking = [1, 2] if still else [axis for axis in range(3) if factor[axis] > 1]
    fixed = math.prod(c for axis, c in enumerate(chunk) if axis not in shrinking)
    voxels = memory / voxel_bytes / fixed / (1 if still else with_levels(factor))
    logs = {axis: math.log(chunk[axis]) for axis in shrinking}
    total = sum(logs.values())
    shape = list(chunk)
    for axis in shrinking:
        share = logs[axis] / total if total else 1 / len(shrinking)
        chunks = max(voxels, 1.0) ** share / chunk[axis] * (1 + 1e-9)
        power = 0 if still else min(levels, MOST_LEVELS, math.floor(math.log(chunks, factor[axis]) + 1e-9))
        shape[axis] *= math.floor(chunks) if still else factor[axis] ** power
    return (shape[0], shape[1], shape[2])


def _check(shape: Zyx, factor: Zyx) -> None:
    for name, values in (("shape", shape), ("factor", factor)):
        if min(values) < 1:
            raise ParameterError(f"{name} {values} zyx must be at least 1 on every axis")
