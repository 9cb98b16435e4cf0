"""The levels above a volume: where they lie, how they are stored, and how many one pass makes of so much memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx
from daskflow.jobs.sinks import LayerSink
from daskflow.operators.stores.downsample.kernels import Downsampling, Method
from daskflow.operators.stores.downsample.passes import Pass, Scratch
from daskflow.stores import Layout
from daskflow.stores.opening import find_store, format_named
from daskflow.stores.sharding import default_shard

MOST_LEVELS = 30
_LOSSLESS = (None, "raw", "png", "compressed_segmentation", "zstd", "gzip", "blosc", "crackle", "compresso")


def coarser(spec: VolumeSpec, factor: Zyx) -> VolumeSpec:
    """Return the next level of a volume, its chunks apart.

    Windows are counted from the volume's start, as Neuroglancer's precomputed layers have it:

        voxels      7 8|9 10|11          size   ceil(5 / 2) = 3
        level        3 |  4 | 5          start  floor(7 / 2) = 3
    """
    start = tuple(a // f for a, f in zip(spec.box.start, factor, strict=True))
    size = tuple(-(-n // f) for n, f in zip(spec.box.shape, factor, strict=True))
    box = BoundingBox.from_size(start, size)
    level = spec.coarsened(factor, box=box, chunk=None, shard=None, chunk_origin=None)
    return level.beginning_at(spec.corner)


def chosen_method(spec: VolumeSpec, method: str) -> Method:
    """Return the method that ``auto`` stands for: the mean of images, the mode of segmentations.

    The mean of a segmentation is refused, and ``auto`` for an image of 64-bit integers: labels, more often than not.
    """
    if method == "mean" and spec.layer_type == "segmentation":
        raise ParameterError("the mean of labels is not a label; use method='mode', or open the layer as an image")
    if method != "auto":
        return method  # type: ignore[return-value]  # Downsampling checks it
    if spec.kind == "segmentation" or spec.dtype.kind == "b":
        return "mode"
    if spec.dtype.kind in "ui" and spec.dtype.itemsize == 8:
        raise ParameterError(
            f"voxels of {spec.dtype} that call themselves {spec.layer_type}: say method='mode' if they are labels, "
            "or cast them"
        )
    return "mean"


def sensible_levels(size: Zyx, chunk: Zyx, factor: Zyx) -> int:
    """Return how many levels it takes until a chunk holds the volume along the axes that shrink; at least 1."""
    levels = 1
    while levels < MOST_LEVELS and any(
        f > 1 and -(-n // f**levels) > c for n, c, f in zip(size, chunk, factor, strict=True)
    ):
        levels += 1
    return levels


def levels_within(memory: int, unit: Zyx, voxel_bytes: int, factor: Zyx, size: Zyx | None = None) -> int:
    """Return how many levels a block can have whose voxels, the levels' included, take at most `memory` bytes.

    The unit is the voxels (zyx) of a chunk or shard, of every level; no block exceeds the size (zyx) of the volume.
    """
    levels = 0
    while levels < MOST_LEVELS:
        block = [u * f ** (levels + 1) for u, f in zip(unit, factor, strict=True)]
        if size is not None:
            block = [min(b, n) for b, n in zip(block, size, strict=True)]
        if math.prod(block) * voxel_bytes * with_levels(factor) > memory:
            break
        levels += 1
    return levels


def with_levels(factor: Zyx) -> float:
    """Return the size of a volume and all its levels over that of the volume, e.g. 4/3 for 1 2 2."""
    return 1 / (1 - 1 / math.prod(factor))


@dataclass(frozen=True)
class NewLevels:
    """What is asked of the levels above a volume.

    Attributes:
        url: of the layer.
        format: name of its format.
        mip: of the level that they are made of.
        count: how many.
        how: from level to level.
        layout: what was asked for; a level that exists says the rest.
        otherwise: the layout of a new level where `layout` leaves it open.
        shard_memory: bytes of the shards to choose; None takes those of the layouts.
        drop: as in `LayerSink`.
        overwrite: as in `LayerSink`.
    """

    url: str
    format: str
    mip: int
    count: int
    how: Downsampling
    layout: Layout
    otherwise: Layout
    shard_memory: int | None = None
    drop: float | None = None
    overwrite: bool = False

    def sinks(self, base: VolumeSpec) -> tuple[LayerSink, ...]:
        """Return where each level goes, finest first; nothing is created."""
        sinks: list[LayerSink] = []
        for number in range(1, self.count + 1):
            finer, base = base, coarser(base, self.how.factor)
            if base.box.shape == finer.box.shape:
                raise ParameterError(
                    f"level {number} by factor {self.how.factor} would have {base.box.shape} voxels zyx, as many as"
                    f" the one before it; ask for at most {number - 1} levels"
                )
            layout = self._layout(base, self.mip + number)
            sinks.append(LayerSink(self.url, base, self.mip + number, self.format, layout, self.drop, self.overwrite))
        return tuple(sinks)

    def _layout(self, spec: VolumeSpec, mip: int) -> Layout:
        asked, other = self.layout, self.otherwise
        chunk = asked.chunk or other.chunk
        assert chunk is not None
        shard = asked.shard or (None if asked.chunk else other.shard)
        if self.shard_memory is not None:
            voxel_bytes = spec.dtype.itemsize * (spec.channels or 1)
            shard = default_shard(spec.box.shape, chunk, voxel_bytes, memory=self.shard_memory)
        # quality and effort of the level below are of its encoding
        inherited = ("encoding", "quality", "effort", "compression") if asked.encoding is None else ("compression",)
        kept = {name: getattr(other, name) for name in inherited if getattr(asked, name) is None}
        there = find_store(self.url, mip=mip, format=self.format)
        if there is not None:  # what it says differs only where it was made otherwise: a second run asks for the same
            stated = there.layout
            kept = {name: None if value is None else getattr(stated, name) for name, value in kept.items()}
            chunk = asked.chunk or stated.chunk or chunk
            shard = shard if asked.shard or self.shard_memory is not None else stated.shard
        if shard is not None:
            shard = format_named(self.format).store.effective_shard(spec.box.shape, chunk, shard)
        return dataclasses.replace(asked, chunk=chunk, shard=shard, **kept)


def memory_for(shape: Zyx, voxel_bytes: int, factor: Zyx) -> int:
    """Return the bytes of a block (zyx voxels) and of all levels that can be made of it, e.g. 4/3 of it for 1 2 2."""
    _check(shape, factor)
    whole = math.prod(shape) * voxel_bytes
    return math.ceil(whole if factor == (1, 1, 1) else whole * with_levels(factor))


def shape_within(memory: int, chunk: Zyx, voxel_bytes: int, factor: Zyx, *, levels: int = 5) -> Zyx:
    """Return the block of whole chunks (zyx voxels) that gives the most levels within some bytes.

    The axes that shrink share the memory in such a way that all have about as many chunks; each has `factor` to some
    power of them, at most `levels`. Where nothing shrinks, y and x share it, and z has one chunk.
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


def passes(
    how: Downsampling, finest: VolumeSpec, levels: tuple[LayerSink, ...], *, memory: int, base: Zyx = (1, 1, 1)
) -> tuple[Pass, ...]:
    """Return the passes that write levels, as many in each as blocks of about `memory` bytes allow, at least one.

    These bytes are of a block's voxels, the levels' included. The blocks of the first pass own whole boxes of `base`
    voxels (zyx) of the volume besides.
    """
    found: list[Pass] = []
    done = 0
    while done < len(levels):
        first = Pass(how, finest, done, levels[done : done + 1])
        most = [
            trial
            for n in range(2, len(levels) - done + 1)
            if block_bytes(trial := Pass(how, finest, done, levels[done : done + n]), base) <= memory
        ]
        chosen = most[-1] if most else first
        done += len(chosen.levels)
        if done < len(levels) and _must_keep(how, finest, chosen.levels[-1]):
            chosen = dataclasses.replace(chosen, keep=Scratch.of(chosen.levels[-1], done, how))
        found.append(chosen)
        base = (1, 1, 1)
    return tuple(found)


def unit_of_all(all_passes: Sequence[Pass]) -> Zyx:
    """Return the smallest box of the finest volume (zyx) that every pass can work on alone."""
    units = [[u * t for u, t in zip(one.unit, one.how.total(one.done), strict=True)] for one in all_passes]
    z, y, x = (math.lcm(*axis) for axis in zip(*units, strict=True))
    return z, y, x


def block_bytes(one: Pass, base: Zyx = (1, 1, 1)) -> float:
    """Return the bytes of a pass's smallest block and all levels of it."""
    unit = [math.lcm(u, b) for u, b in zip(one.unit, base, strict=True)]
    block = [min(u, n) for u, n in zip(unit, one.read_box.shape, strict=True)]
    voxel_bytes = one.finest.dtype.itemsize * (one.finest.channels or 1)
    return math.prod(block) * voxel_bytes * with_levels(one.how.factor)


def _must_keep(how: Downsampling, finest: VolumeSpec, level: LayerSink) -> bool:
    return how.carries(finest.dtype) or level.drop is not None or level.layout.encoding not in _LOSSLESS
