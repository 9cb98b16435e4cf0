"""Passes over a volume: the next levels of each block, from the level before them."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import daskflow
from daskflow.errors import MetadataMismatchError, PlanError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, Zyx
from daskflow.jobs.outputs import jobs_of
from daskflow.jobs.sinks import LayerSink
from daskflow.operators.stores.downsample.kernels import Array, Carried, Downsampling
from daskflow.stores import Layout, Store, kvstore
from daskflow.stores.counting import counting
from daskflow.volume import BlockResult, Estimate, Stage, Task
from daskflow.volume.kinds import refuse_negatives
from daskflow.volume.stage import Bound, Output, Own, Scope, Scopes, Storing, default_block, verify_all

Levels = tuple[list[Array], Carried]

_SCRATCH_BYTES = 2**24  # of a shard of scratch data, voxels of the volume
_PIECE_BYTES = 2**23  # read at once, so that a block never lies whole in memory, and memory is used again
_CHUNK_BYTES = 2**26  # up to which chunks are read whole


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
class Pass(Storing):
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
    verifiable = True
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

    @property
    def through(self) -> tuple[Storing, ...]:
        return self.levels

    def makes(self) -> tuple[Output, ...]:
        """Return its levels, made in blocks of the one before them."""
        base = self.levels[0].mip - 1
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

    def check(self) -> None:
        """Create the levels, or see that those there agree."""
        super().check()
        for layer in self.keep.layers if self.keep is not None else ():
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


@dataclass(frozen=True)
class Downsample(Task):
    """Write levels of a stored one: each block is read piece by piece, and only its levels are held whole.

    Attributes:
        levels: the pass.
        source: what is read: a store, the level that an earlier stage wrote, or what it kept in scratch data.
        chunk: voxels (zyx) in which the source is best read.
        whole: whether it writes whole levels, which then are of no other job.
        job: URL of the job's directory, once bound.
    """

    verifiable = True
    reads_outputs = True
    levels: Pass
    source: Store | LayerSink | Scratch
    chunk: Zyx
    whole: bool = True
    job: str = ""

    def __getstate__(self) -> dict[str, Any]:
        if self.levels.levels[0].url.startswith("memory://"):
            url = self.levels.levels[0].url
            raise PlanError(f"{url} lies in the memory of this process, which others cannot reach: run in threads")
        return self.__dict__

    @property
    def piece(self) -> Zyx:
        """Voxels (zyx) that are read at once: whole windows of the last level, and whole chunks if that is not much."""
        window = self.levels.how.total(len(self.levels.levels))
        size = self.levels.read_box.shape
        item = self.levels.finest.dtype.itemsize * (self.levels.finest.channels or 1)
        whole = [math.lcm(w, c) for w, c in zip(window, self.chunk, strict=True)]
        piece = whole if math.prod(whole) * item <= _CHUNK_BYTES else list(window)
        for axis in (2, 1, 0):
            left = _PIECE_BYTES // (math.prod(piece) * item)
            piece[axis] *= max(1, min(left, -(-size[axis] // piece[axis])))
        return piece[0], piece[1], piece[2]

    def _fetch(self, box: BoundingBox) -> Carried:
        if isinstance(self.source, Scratch):
            return self.source.read(self.levels.inside(box))
        store = self.source.store() if isinstance(self.source, LayerSink) else self.source
        array = store.read(box)
        if store.spec.kind == "segmentation":
            refuse_negatives(array, box)
        return Carried(array)

    def read(self, box: BoundingBox) -> tuple[Levels, dict[str, int]]:
        with counting() as counts:
            outputs = self._made(box)
        return outputs, dict(counts)

    def _made(self, box: BoundingBox) -> Levels:
        pieces = list(BlockGrid(box, self.piece))
        if len(pieces) == 1:
            return self.levels.run(box, self._fetch(box))
        numbers = range(1, len(self.levels.levels) + 1)
        wholes = [self.levels.inside(box, number) for number in numbers]
        arrays: list[Array] = []
        last: Carried | None = None
        for piece in pieces:
            made, carried = self.levels.run(piece, self._fetch(piece))
            if last is None:
                arrays = [_empty(one, whole) for one, whole in zip(made, wholes, strict=True)]
                counts = None if carried.counts is None else _empty(carried.counts, wholes[-1])
                last = Carried(_empty(carried.data, wholes[-1]), counts)
            for number, array, one, whole in zip(numbers, arrays, made, wholes, strict=True):
                place = (..., *self.levels.inside(piece, number).slices(whole))
                array[place] = one
            last.data[place] = carried.data
            if last.counts is not None:
                last.counts[place] = carried.counts
        assert last is not None
        return arrays, last

    def write(self, box: BoundingBox, outputs: tuple[Levels, dict[str, int]]) -> BlockResult:
        return dataclasses.replace(self.levels.write(box, outputs[0]), counts=outputs[1])

    @property
    def through(self) -> tuple[Storing, ...]:
        return (self.levels,)

    def estimate(self, box: BoundingBox) -> Estimate:
        voxel = self.levels.finest.dtype.itemsize * (self.levels.finest.channels or 1)
        piece = min(math.prod(self.piece), box.size)
        made = self.levels.estimate(box)
        return dataclasses.replace(
            made, bytes_read=box.size * voxel, memory=made.memory + 2 * piece * voxel, voxels_read=box.size
        )

    def refuse_to_replace(self, box: BoundingBox, own: Own) -> None:
        if self.whole and not self.levels.levels[0].overwrite:
            self._refuse_those_of_others()
        super().refuse_to_replace(box, own)

    def _refuse_those_of_others(self) -> None:
        """Raise when a job has made the levels otherwise, and say what removes them."""
        url = self.levels.levels[0].url
        ours = {(one.url, one.mip): one.how for one in map(Output.placed, self.makes())}
        for other in jobs_of(url):
            made = [one for one in other.outputs if one.kind == "level" and (one.url, one.mip) in ours]
            otherwise = [one for one in made if one.how != ours[one.url, one.mip]]
            if kvstore.resolved(other.url) != kvstore.resolved(self.job) and otherwise:
                common = sorted({one.mip for one in otherwise if one.mip is not None})
                raise MetadataMismatchError(
                    f"mip {','.join(map(str, common))} of {url} was made otherwise, by the job in {other.url};"
                    f" to recreate it: daskflow remove {url} --mip {self._to_remove(common, otherwise)}"
                )

    def _to_remove(self, mips: Sequence[int], made: Sequence[Output]) -> str:
        """Return what is to be removed before levels are made: all from there on, if voxels get other sizes."""
        factor = list(self.levels.how.factor)
        sized = any((one.how or {}).get("factor") != factor for one in made)
        if isinstance(self.source, Store) and sized and self.source.forgets:
            return f"{','.join(map(str, range(mips[0], len(self.source.mips))))} --forget"
        return ",".join(map(str, mips))

    def describe(self) -> dict[str, Any]:
        source = {"store": self.source.fingerprint()} if isinstance(self.source, Store) else {}
        return {"daskflow": daskflow.__version__, **source, **self.levels.describe()}


def stages_after(first: Pass, others: Sequence[Pass], region: BoundingBox | None = None) -> tuple[Stage, ...]:
    """Return the stages of further passes, each of which reads what the one before it has left."""
    stages = []
    before = first
    for one in others:
        level = before.levels[-1]
        assert level.layout.chunk is not None
        stages.append(stage(one, level if before.keep is None else before.keep, level.layout.chunk, region))
        before = one
    return tuple(stages)


def stage(one: Pass, source: Store | LayerSink | Scratch, chunk: Zyx, region: BoundingBox | None = None) -> Stage:
    """Return the stage of a pass that reads a source, best in chunks of so many voxels (zyx).

    The region is of voxels of the finest level, in whole chunks of every level; None for all.
    """
    whole = one.read_box
    box = whole
    if region is not None:
        total = one.how.total(one.done)
        inside = region.shift([-a for a in one.finest.box.start]).coarsen(total)
        box = inside.shift(whole.start).clip(whole)
    block = default_block(one.finest.replace(box=whole, chunk=one.unit, shard=None, chunk_origin=None))
    mips = sorted({one.levels[0].mip, one.levels[-1].mip})
    name = "-".join(["downsample-mip", *map(str, mips)]).replace("mip-", "mip")
    return Stage(name, BlockGrid(box, block, whole.start), Downsample(one, source, chunk, whole=region is None))


def _empty(like: Array, box: BoundingBox) -> Array:
    return np.empty((*like.shape[:-3], *box.shape), like.dtype)
