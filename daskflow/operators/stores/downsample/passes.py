"""One pass over a volume: the next levels of each block, from the level before them."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, Zyx
from daskflow.jobs.sinks import LayerSink, verify_all
from daskflow.operators.stores.downsample.kernels import Carried, Downsampling
from daskflow.operators.stores.downsample.levels import with_levels
from daskflow.operators.stores.downsample.windows import Array
from daskflow.stores import Layout, kvstore
from daskflow.volume import BlockResult, Estimate
from daskflow.volume.stage import Bound, Output, Own, Scope, Scopes

LOSSLESS = (None, "raw", "png", "compressed_segmentation", "zstd", "gzip", "blosc", "crackle", "compresso")

_SCRATCH_BYTES = 2**24  # of a shard of scratch data, voxels of the volume


@dataclass(frozen=True)
class Scratch(Bound):
    """What the next pass needs of a level beyond, or instead of, its stored voxels; kept until the job is done.

    Attributes:
        data: the layer that keeps `Carried.data`, counted from the volume's start.
        counts: the one that keeps `Carried.counts`, if there are any.
        scope: where they lie; until they are bound, their URLs are names.
    """

    data: LayerSink
    counts: LayerSink | None
    scope: Scope

    @classmethod
    def of(cls, level: LayerSink, number: int, how: Downsampling) -> Scratch:
        """Return the scratch data of level `number`, counted from the finest."""
        spec = level.spec
        inside = BoundingBox((0, 0, 0), spec.box.shape)
        shard = level.layout.shard and _split(level.layout.chunk, level.layout.shard, spec)
        layout = Layout(chunk=level.layout.chunk, shard=shard, encoding="raw")

        def layer(name: str, dtype: np.dtype[Any]) -> LayerSink:
            whole = VolumeSpec(inside, dtype, spec.channels)
            return LayerSink(f"{name}.zarr", whole, 0, "zarr3", layout)

        counted = how.method == "mean" and how.sparse
        data = layer("carried", how.carried_dtype(spec.dtype, number))
        counts = layer("counts", np.dtype(np.uint64)) if counted else None
        return cls(data, counts, Scope(f"mip{level.mip}", level.url))

    @property
    def layers(self) -> tuple[LayerSink, ...]:
        """The layers, one or two."""
        return (self.data,) if self.counts is None else (self.data, self.counts)

    def bind(self, scopes: Scopes) -> Scratch:
        scope = self.scope.bind(scopes)
        placed = [
            dataclasses.replace(layer, url=kvstore.join(scope.url, layer.url)).bind(scopes) for layer in self.layers
        ]
        return Scratch(placed[0], placed[1] if len(placed) > 1 else None, scope)

    def read(self, box: BoundingBox) -> Carried:
        """Return what was kept of a box, counted from the volume's start."""
        data, *counts = (layer.store().read(box) for layer in self.layers)
        return Carried(data, counts[0] if counts else None)

    def write(self, box: BoundingBox, carried: Carried) -> None:
        """Keep what is carried of a box, counted from the volume's start: shard by shard, each in memory twice."""
        for layer, array in zip(self.layers, (carried.data, carried.counts), strict=False):
            assert array is not None
            for piece in BlockGrid(box, box.shape if layer.layout.shard is None else layer.layout.shard):
                layer.write(piece, array[(..., *piece.slices(box))])


@dataclass(frozen=True)
class Pass(Bound):
    """Some levels, made of the one before them block by block.

    Boxes of blocks are in voxels of the level that is read.

    Attributes:
        how: from level to level.
        finest: the volume that the levels are of.
        done: the level that is read, counted from the finest.
        levels: where each goes that is written, finest first.
        keep: where to leave what the pass after this one needs; None if it needs nothing, or there is none.
    """

    how: Downsampling
    finest: VolumeSpec
    done: int
    levels: tuple[LayerSink, ...]
    keep: Scratch | None = None

    @property
    def unit(self) -> Zyx:
        """The smallest block (zyx) that owns whole chunks and shards of every level that is written."""
        units = []
        for number, level in enumerate(self.levels, start=1):
            assert level.unit is not None
            units.append([u * t for u, t in zip(level.unit, self.how.total(number), strict=True)])
        z, y, x = (math.lcm(*(unit[axis] for unit in units)) for axis in range(3))
        return z, y, x

    @property
    def read_box(self) -> BoundingBox:
        """All voxels of the level that is read."""
        total = self.how.total(self.done)
        start = tuple(a // t for a, t in zip(self.finest.box.start, total, strict=True))
        return BoundingBox.from_size(start, [-(-n // t) for n, t in zip(self.finest.box.shape, total, strict=True)])

    def inside(self, box: BoundingBox, number: int = 0) -> BoundingBox:
        """Return the box that a box of the level read is in the `number`-th level after it, from the volume's start."""
        return box.shift([-a for a in self.read_box.start]).coarsen(self.how.total(number))

    def makes(self, base: int) -> tuple[Output, ...]:
        """Return its levels, made in blocks of the level `base`."""
        how = json.loads(json.dumps(self.describe()["downsampling"]))  # as a job's directory has it
        return tuple(dataclasses.replace(level.output, base=base, how=how) for level in self.levels)

    def at(self, box: BoundingBox, number: int) -> BoundingBox:
        """Return the same in the level's own coordinates."""
        return self.inside(box, number).shift(self.levels[number - 1].spec.box.start)

    def run(self, box: BoundingBox, source: Carried) -> tuple[list[Array], Carried]:
        """Return the voxels of each level, and what is carried on."""
        total = self.how.total(self.done)
        behind = self.inside(box).refine(total).clip(BoundingBox((0, 0, 0), self.finest.box.shape))
        dtype = self.finest.dtype
        return self.how.run(source, len(self.levels), done=self.done, finest=behind.shape, dtype=dtype)

    def write(self, box: BoundingBox, outputs: tuple[list[Array], Carried]) -> BlockResult:
        """Store what `run` gave for a block."""
        arrays, carried = outputs
        results = [
            level.write(self.at(box, number), array)
            for number, (level, array) in enumerate(zip(self.levels, arrays, strict=True), start=1)
        ]
        if self.keep is not None:
            self.keep.write(self.inside(box, len(self.levels)), carried)
        return BlockResult(empty=all(result.empty for result in results))

    def verify(self, box: BoundingBox) -> None:
        """Raise when what was stored for a block is missing or damaged."""
        verify_all(
            functools.partial(level.verify, self.at(box, number)) for number, level in enumerate(self.levels, start=1)
        )

    def estimate(self, box: BoundingBox) -> Estimate:
        """Predict what the levels of a block take: bytes written and memory, what is read apart."""
        boxes = [self.at(box, number) for number in range(1, len(self.levels) + 1)]
        written = sum(level.spec.nbytes_of(part) for level, part in zip(self.levels, boxes, strict=True))
        carried = 0
        if self.keep is not None:
            carried = sum(layer.spec.nbytes_of(boxes[-1]) for layer in self.keep.layers)
        sharded = [
            level.spec.nbytes_of(part) for level, part in zip(self.levels, boxes, strict=True) if level.layout.shard
        ]
        assembled = 2 * max(sharded, default=0)  # chunks as they are encoded, and the file of them
        return Estimate(bytes_written=written + carried, memory=written + carried + assembled)

    def intact(self) -> bool:
        """Return whether the levels are still there."""
        return all(level.intact() for level in self.levels)

    def check(self) -> None:
        """Create the levels, or see that those there agree."""
        for layer in (*self.levels, *(self.keep.layers if self.keep is not None else ())):
            layer.check()

    def refuse_to_replace(self, box: BoundingBox, own: Own) -> None:
        """Raise when making the levels of `box` would replace what others have stored."""
        for number, level in enumerate(self.levels, start=1):
            level.refuse_to_replace(self.at(box, number), own)

    def describe(self) -> dict[str, Any]:
        """Return all that the stored bytes depend on, what is read apart, as JSON."""
        return {
            "downsampling": dataclasses.asdict(self.how),
            "finest": str(self.finest.box),
            "done": self.done,
            "levels": [level.describe() for level in self.levels],
        }


def _split(chunk: Zyx | None, shard: Zyx, spec: VolumeSpec) -> Zyx:
    """Return a part of a shard, whole chunks of about 16 MB, that shards can be tiled with."""
    assert chunk is not None
    part = list(shard)
    while math.prod(part) * spec.dtype.itemsize * (spec.channels or 1) > _SCRATCH_BYTES:
        even = [axis for axis in range(3) if part[axis] % (2 * chunk[axis]) == 0]
        if not even:
            break
        part[max(even, key=lambda axis: part[axis])] //= 2
    return part[0], part[1], part[2]


def passes(
    how: Downsampling, finest: VolumeSpec, levels: tuple[LayerSink, ...], *, memory: int, base: Zyx = (1, 1, 1)
) -> tuple[Pass, ...]:
    """Return the passes that write levels, as many in each as blocks of about `memory` bytes allow, at least one.

    Args:
        how: from level to level.
        finest: the volume.
        levels: where each goes, finest first.
        memory: bytes that a block's voxels may take, the levels' included.
        base: voxels (zyx) of the volume that the blocks of the first pass must own besides.
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
    return how.carries(finest.dtype) or level.drop is not None or level.layout.encoding not in LOSSLESS
