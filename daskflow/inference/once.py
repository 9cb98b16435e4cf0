"""A network over a volume in a job, each patch run by one block; see `daskflow.inference.division`."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.config import format_bytes
from daskflow.errors import ModelError
from daskflow.geometry import BoundingBox, Zyx
from daskflow.inference.blend import (
    Array,
    NanPolicy,
    answers,
    as_sources,
    check_image,
    refuse_non_finite,
    zero_non_finite,
)
from daskflow.inference.division import Division, Part
from daskflow.inference.engine import Accumulator, Engine, Mosaic
from daskflow.inference.network import Network
from daskflow.inference.patches import PatchGrid
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.jobs.sinks import ScratchSink
from daskflow.scratch.records import required_records, write_record
from daskflow.stores import kvstore
from daskflow.stores.memory import ScratchStore
from daskflow.volume import BlockResult, Estimate, Expression, Stage
from daskflow.volume.description import describe
from daskflow.volume.mapping import MappedBoxes, Once
from daskflow.volume.node import Waiting
from daskflow.volume.stage import Scope

_LONGEST_CHUNK = 128
_EVERYTHING = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class OncePerPatch(Once):
    """How a job runs a network so that each patch is run by one block alone."""

    grid: PatchGrid
    network: Network
    nan: NanPolicy

    def counts(self, box: BoundingBox) -> Zyx:
        return self._division(box, 1).counts(box)

    def kept(self, node: MappedBoxes, box: BoundingBox, block_bytes: float, otherwise: float) -> Waiting:
        first = Expression([node])
        division = self._division(box, block_bytes / node.spec.nbytes_of(BoundingBox((0, 0, 0), (1, 1, 1))))
        scope = Scope("patches", (first, box, division.blocks.block))
        blocks = division.blocks
        assert blocks.origin is not None
        spec = node.spec.replace(box=box.align(blocks.block, blocks.origin), chunk=None, shard=None)
        strides = (axis.stride for axis in self.grid.axes)
        z, y, x = (_chunk(b, s) for b, s in zip(blocks.block, strides, strict=True))
        core = ScratchSink("core", spec, (z, y, x), scope)
        runs = RunPatches(division, self.network, self.nan, core, str(describe(node.describe())), otherwise)
        expression = Expression(node.inputs)
        stage = Stage("keep-in-scratch", blocks, EvaluateVolumes.into(expression, runs), after=expression.stages)
        return Waiting(node.spec, PatchStore, runs, (stage,))

    def _division(self, box: BoundingBox, voxels: float) -> Division:
        return Division.of(self.grid, box, voxels, blended=self.network.blend == "bump")


def _chunk(block: int, stride: int) -> int:
    """Return the longest chunk of whole strides in a block that is not too long to be read in part."""
    count = block // stride
    fitting = (block // n for n in range(1, count + 1) if count % n == 0)
    return next((one for one in fitting if one <= _LONGEST_CHUNK), stride)


@dataclass(frozen=True)
class RunPatches(Consumer):
    """Runs the patches of each block, and stores the sum of its core and what they answer for borders.

    Attributes:
        division: which block runs which patch.
        network: what is run.
        nan: as for `infer`.
        core: where the cores go.
        answer: describes what is answered.
        otherwise: how often a patch would be run if every block ran all that it needs.
    """

    division: Division
    network: Network
    nan: NanPolicy
    core: ScratchSink
    answer: str
    otherwise: float

    @property
    def grid(self) -> Any:
        return self.division.blocks

    @property
    def gpu(self) -> bool:
        return self.network.gpu

    def needs(self, box: BoundingBox) -> BoundingBox | None:
        """Return what the patches of a block see; none where no patch begins."""
        found = list(self.division.blocks.touching(box))
        if len(found) != 1:
            return self.division.patches.reads(box)
        run = self.division.run_by(found[0])
        seen = [patch.input.clip(self.division.patches.box) for patch in run]
        return seen[0].union(seen[-1]) if seen else None

    def compute(self, box: BoundingBox, arrays: list[Array]) -> tuple[Array, dict[int, Array], int]:
        (block,) = self.division.blocks.touching(box)
        run, read_box = self.division.run_by(block), self.needs(box)
        handed = {receiver: self._sent(receiver, block) for receiver in self.division.receivers(run)}
        records = {receiver: self._empty(parts) for receiver, parts in handed.items() if parts}
        cell = self._cell(box)
        summed = np.zeros(self.core.spec.shape_of(cell), self.core.spec.dtype)
        if read_box is None:
            return summed, records, 0
        sources = as_sources(arrays)
        answered = self.division.reach(run[0]).union(self.division.reach(run[-1]))
        if self.nan == "error":
            hidden = not np.issubdtype(summed.dtype, np.floating)
            for source in sources:
                check_image(source, read_box, read_box if hidden else answered)
        places: dict[Zyx, list[tuple[int, int, BoundingBox]]] = {}
        for receiver, parts in handed.items():
            start = 0
            for part in parts:
                places.setdefault(part.patch.output.start, []).append((receiver, start, part.box))
                start += part.box.size
        refuse = functools.partial(
            refuse_non_finite, sources=sources, read_box=read_box, grid=self.division.patches, network=self.network
        )
        core = self.division.core(block)
        engine = self.network.engine()
        with engine.guard:
            total = self._accumulator(engine, core.shape)
            for patch, output in answers(sources, read_box, self.division.patches, run, self.network):
                reach = self.division.reach(patch)
                inside = reach.clip(core)
                if not inside.empty:
                    total.add(inside.slices(core), output, inside.slices(patch.output), patch)
                if patch.output.start not in places:
                    continue
                alone = self._accumulator(engine, reach.shape)
                alone.add(_EVERYTHING, output, reach.slices(patch.output), patch)
                values = alone.result
                if self.nan == "error":
                    refuse(values, reach, alone.suspects)
                for receiver, start, where in places[patch.output.start]:
                    cut = values[(slice(None), *where.slices(reach))]
                    records[receiver][:, start : start + where.size] = cut.reshape(len(cut), -1)
            result, suspects = total.result, total.suspects
        if self.nan == "error":
            refuse(result, core, suspects)
        elif self.nan == "zero" and suspects:
            zero_non_finite(result)
        summed[(slice(None), *core.slices(cell))] = result
        return summed, records, len(run)

    def write(self, box: BoundingBox, outputs: tuple[Array, dict[int, Array], int]) -> BlockResult:
        summed, records, patches = outputs
        (block,) = self.division.blocks.touching(box)
        result = self.core.write(self._cell(box), summed)
        for receiver, values in records.items():
            write_record(self.core.scope.url, self._name(receiver, block), receiver, {"values": values})
        empty = result.empty and not any(values.any() for values in records.values())
        return BlockResult(empty=empty, counts={"patches": patches} if patches else {})

    def further(self, box: BoundingBox) -> Estimate:
        voxel = self.core.spec.nbytes_of(BoundingBox((0, 0, 0), (1, 1, 1)))
        handed = 0
        for block in self.division.blocks.touching(box):
            core = self.division.core(block)
            reaches = [self.division.reach(patch) for patch in self.division.run_by(block)]
            handed += sum(reach.size - reach.clip(core).size for reach in reaches)
        written = voxel * (box.size + handed)
        return Estimate(bytes_written=written, memory=written + math.ceil(self.network.memory(box)))

    def border(self, block: int, box: BoundingBox) -> Iterator[tuple[BoundingBox, Array]]:
        """Yield the voxels of a block's border that lie in a box, piece by piece: where, and their values."""
        parts = list(self.division.parts(block))
        senders = sorted({part.sender for part in parts})
        url = self.core.scope.url
        records = {sender: required_records(url, self._name(block, sender), [block])[0]["values"] for sender in senders}
        at = dict.fromkeys(senders, 0)
        total = np.zeros(self.core.spec.shape_of(box), self.core.spec.dtype)
        for part in parts:
            start = at[part.sender]
            at[part.sender] = start + part.box.size
            inside = part.box.clip(box)
            if inside.empty:
                continue
            values = records[part.sender][:, start : start + part.box.size].reshape(len(total), *part.box.shape)
            where = (slice(None), *inside.slices(box))
            cut = values[(slice(None), *inside.slices(part.box))]
            if self.division.blended:
                total[where] += cut
            else:
                total[where] = cut
        for piece in self.division.beside(block):
            inside = piece.clip(box)
            if not inside.empty:
                yield inside, self._finite(total[(slice(None), *inside.slices(box))], inside)

    def kept(self, box: BoundingBox) -> str:
        patches = math.prod(self.division.counts(box))
        size = format_bytes(self.core.spec.nbytes_of(box))
        return (
            f"{patches:,} patches, passes per patch 1.00 instead of {self.otherwise:.2f};"
            f" {size}, and borders, kept in scratch data"
        )

    def check(self) -> None:
        self.network.check()
        self.core.check()

    def describe(self) -> dict[str, Any]:
        blocks = self.division.blocks
        return {"runs": self.answer, "of": str(blocks.box), "in": [list(blocks.block), list(blocks.origin or ())]}

    def _cell(self, box: BoundingBox) -> BoundingBox:
        """Return a block as it would be if the volume did not end in it: whole chunks."""
        assert self.division.blocks.origin is not None
        return box.align(self.division.blocks.block, self.division.blocks.origin)

    def _finite(self, values: Array, box: BoundingBox) -> Array:
        if self.nan == "zero":
            zero_non_finite(values)
        elif self.nan == "error" and not np.isfinite(values).all():
            raise ModelError(f"what network {self.network.name} answered for {box} adds up to NaN or infinity")
        return values

    def _accumulator(self, engine: Engine, shape: Zyx) -> Accumulator:
        if self.division.blended:
            return engine.accumulator(self.network.channels, shape)
        return Mosaic(self.network.channels, shape, self.core.spec.dtype, self.network.name)

    def _sent(self, receiver: int, sender: int) -> list[Part]:
        return [part for part in self.division.parts(receiver) if part.sender == sender]

    def _empty(self, parts: list[Part]) -> Array:
        return np.zeros((self.network.channels, sum(part.box.size for part in parts)), self.core.spec.dtype)

    def _name(self, receiver: int, sender: int) -> str:
        """Return the name of the records that blocks hand to those that lie so from them."""
        places = (self.division.blocks.position(block) for block in (receiver, sender))
        return "-".join(["from", *(str(to - of) for to, of in zip(*places, strict=True))])


class PatchStore(ScratchStore):
    """What the network answers, once its patches were run."""

    def __init__(self, runs: RunPatches) -> None:
        spec = runs.core.spec.replace(box=runs.division.blocks.box)
        super().__init__(kvstore.join(runs.core.scope.url or "patches", "core.zarr"), [spec])
        self._runs = runs

    def _read(self, box: BoundingBox) -> Array:
        runs, blocks = self._runs, self._runs.division.blocks
        result = np.empty(self.spec.shape_of(box), self.spec.dtype)
        core = runs.core.store()
        for block in blocks.touching(box):
            inside = blocks[block].clip(box)
            summed = runs.division.core(block).clip(box)
            if not summed.empty:
                result[(slice(None), *summed.slices(box))] = core.read(summed)
            if summed != inside:
                for where, values in runs.border(block, inside):
                    result[(slice(None), *where.slices(box))] = values
        return result

    def fingerprint(self) -> dict[str, Any]:
        return {"patches": self._runs.core.scope.name}
