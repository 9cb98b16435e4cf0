"""The levels above a volume: where they lie, how many make sense, and how they are stored."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx
from daskflow.jobs.sinks import LayerSink
from daskflow.operators.stores.downsample.kernels import Downsampling, Method
from daskflow.stores import Layout
from daskflow.stores.opening import format_named, open_store
from daskflow.stores.sharding import default_shard

MOST_LEVELS = 30


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

    Raises:
        ParameterError: the mean of a segmentation, or an image of 64-bit integers: labels, more often than not.
    """
    if method == "mean" and spec.layer_type == "segmentation":
        raise ParameterError("the mean of labels is no label; use method='mode', or open the layer as an image")
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

    Args:
        memory: bytes.
        unit: voxels (zyx) of a chunk or shard, of every level.
        voxel_bytes: bytes of a voxel, all channels.
        factor: voxels per window (zyx).
        size: of the volume (zyx), which no block exceeds.
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
        """Return where each level goes, finest first; nothing is created.

        Raises:
            ParameterError: a level would be no smaller than the one before it.
        """
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
        unsaid = {name: getattr(asked, name) is None for name in ("encoding", "quality", "effort", "compression")}
        if not unsaid["encoding"]:
            unsaid["quality"] = unsaid["effort"] = False  # of another encoding
        kept = {name: getattr(other, name) for name, open_ in unsaid.items() if open_}
        try:
            there = open_store(self.url, mip=mip, format=self.format)
        except StoreNotFoundError:
            pass
        else:  # what it says differs only where it was made otherwise: a second run asks for the same as the first
            stated = there.layout
            kept = {
                name: value if value in (None, getattr(stated, name)) else getattr(stated, name)
                for name, value in kept.items()
            }
            chunk = asked.chunk or stated.chunk or chunk
            shard = shard if asked.shard or self.shard_memory is not None else stated.shard
        if shard is not None:
            shard = format_named(self.format).store.effective_shard(spec.box.shape, chunk, shard)
        return dataclasses.replace(asked, chunk=chunk, shard=shard, **kept)
