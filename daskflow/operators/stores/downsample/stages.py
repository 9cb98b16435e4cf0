"""The sink that writes a volume with its levels, and the stages that make levels of stored ones."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import daskflow
from daskflow.errors import MetadataMismatchError, PlanError
from daskflow.geometry import BlockGrid, BoundingBox, Zyx
from daskflow.jobs.outputs import jobs_of
from daskflow.jobs.sinks import LayerSink, Sink, verify_all
from daskflow.operators.stores.downsample.kernels import Carried
from daskflow.operators.stores.downsample.passes import Pass, Scratch
from daskflow.operators.stores.downsample.windows import Array
from daskflow.stores import Store, kvstore
from daskflow.stores.counting import counting
from daskflow.volume import BlockResult, Estimate, Stage, Task
from daskflow.volume.kinds import refuse_negatives
from daskflow.volume.stage import Output, Own, Scopes, default_block

_PIECE_BYTES = 2**23  # read at once, so that a block never lies whole in memory, and memory is used again
_CHUNK_BYTES = 2**26  # up to which chunks are read whole

Levels = tuple[list[Array], Carried]


@dataclass(frozen=True)
class PyramidSink(Sink):
    """Where the blocks of a volume go together with their levels.

    Attributes:
        base: where the volume itself goes.
        levels: the pass that makes levels of it.
    """

    verifiable = True
    base: LayerSink
    levels: Pass

    @classmethod
    def of(cls, base: LayerSink, levels: Pass) -> PyramidSink:
        """Return the sink for a layer and the pass that makes levels of it."""
        return cls(base.url, base.spec, base, levels)

    @property
    def unit(self) -> Zyx | None:
        assert self.base.unit is not None
        z, y, x = map(math.lcm, self.base.unit, self.levels.unit)
        return z, y, x

    @property
    def origin(self) -> Zyx:
        return self.base.origin

    def check(self) -> None:
        self.base.check()
        self.levels.check()

    def compute(self, box: BoundingBox, arrays: list[Array]) -> tuple[Array, Levels]:
        array = self.base.compute(box, arrays)
        return array, self.levels.run(box, Carried(array))

    def write(self, box: BoundingBox, outputs: tuple[Array, Levels]) -> BlockResult:
        array, made = outputs
        result = self.base.write(box, array)
        self.levels.write(box, made)
        return result

    def further(self, box: BoundingBox) -> Estimate:
        levels = self.levels.estimate(box)
        return dataclasses.replace(levels, bytes_written=levels.bytes_written + self.spec.nbytes_of(box))

    def refuse_to_replace(self, box: BoundingBox, own: Own) -> None:
        self.base.refuse_to_replace(box, own)
        self.levels.refuse_to_replace(box, own)

    def makes(self) -> tuple[Output, ...]:
        return (self.base.output, *self.levels.makes(self.base.mip))

    def intact(self) -> bool:
        return self.base.intact() and self.levels.intact()

    def verify(self, box: BoundingBox) -> None:
        verify_all(functools.partial(one.verify, box) for one in (self.base, self.levels))

    def describe(self) -> dict[str, Any]:
        return {**self.base.describe(), "levels": self.levels.describe()}


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

    def makes(self) -> tuple[Output, ...]:
        return self.levels.makes(self.levels.levels[0].mip - 1)

    def intact(self) -> bool:
        """Return whether the levels are still there."""
        return self.levels.intact()

    def verify(self, box: BoundingBox) -> None:
        """Raise when what was stored for a block is missing or damaged."""
        self.levels.verify(box)

    def estimate(self, box: BoundingBox) -> Estimate:
        voxel = self.levels.finest.dtype.itemsize * (self.levels.finest.channels or 1)
        piece = min(math.prod(self.piece), box.size)
        made = self.levels.estimate(box)
        return dataclasses.replace(
            made, bytes_read=box.size * voxel, memory=made.memory + 2 * piece * voxel, voxels_read=box.size
        )

    def check(self) -> None:
        self.levels.check()

    def refuse_to_replace(self, box: BoundingBox, own: Own) -> None:
        if self.whole and not self.levels.levels[0].overwrite:
            self._refuse_those_of_others()
        self.levels.refuse_to_replace(box, own)

    def _refuse_those_of_others(self) -> None:
        """Raise when a job has made the levels otherwise.

        Raises:
            MetadataMismatchError: one has; the message names it, and what removes them.
        """
        url = self.levels.levels[0].url
        ours = {(one.url, one.mip): one.how for one in map(Output.placed, self.makes())}
        for other in jobs_of(url):
            made = [one for one in other.outputs if one.kind == "level" and (one.url, one.mip) in ours]
            otherwise = [one for one in made if one.how != ours[one.url, one.mip]]
            if kvstore.resolved(other.url) != kvstore.resolved(self.job) and otherwise:
                common = sorted({one.mip for one in otherwise if one.mip is not None})
                raise MetadataMismatchError(
                    f"mip {','.join(map(str, common))} of {url} was made otherwise, by the job in {other.url};"
                    f" to make it anew: daskflow remove {url} --mip {self._to_remove(common, otherwise)}"
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

    def bind(self, scopes: Scopes) -> Downsample:
        return dataclasses.replace(super().bind(scopes), job=scopes.job)


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
    """Return the stage of a pass.

    Args:
        one: the pass.
        source: what it reads.
        chunk: voxels (zyx) in which that is best read.
        region: the voxels of the finest level that are worked on, in whole chunks of every level; None for all.
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
