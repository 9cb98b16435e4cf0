"""The stage that evaluates volumes block by block and hands each block to the sinks."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

import daskflow
from daskflow.errors import AlignmentError, StoreNotFoundError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, Zyx
from daskflow.jobs.job import Job
from daskflow.stores import Layout, Store, kvstore
from daskflow.stores.opening import create_store, open_store, write_file
from daskflow.volume import BlockResult, Estimate, Expression, Stage, Volume
from daskflow.volume.expression import Fetched
from daskflow.volume.node import Array


class Sink(Protocol):
    """Where the blocks of one volume go."""

    @property
    def unit(self) -> Zyx | None:
        """The shape that one block must own, counted from the volume's corner; None when any block will do."""

    def check(self) -> None:
        """Raise what can be known to fail, and create what the blocks are written to."""

    def write(self, box: BoundingBox, array: Array) -> BlockResult:
        """Store one block."""

    def intact(self) -> bool:
        """Return whether what earlier runs wrote is still there."""

    def verify(self, box: BoundingBox) -> None:
        """Raise when what was stored for a block is missing or damaged."""

    def describe(self) -> dict[str, Any]:
        """Return all that the stored bytes depend on, the voxels apart, as JSON."""

    def bind(self, directory: str) -> Sink:
        """Return the sink with its scratch data placed below the URL `directory`."""


@dataclass(frozen=True)
class LayerSink:
    """A layer of chunks that many workers write.

    Attributes:
        url: the layer.
        spec: what it will hold.
        mip: the level written.
        format: name of the format, or None to go by the URL.
        layout: chunk, shard and encoding; the chunk is given.
    """

    url: str
    spec: VolumeSpec
    mip: int
    format: str | None
    layout: Layout

    @property
    def unit(self) -> Zyx | None:
        """The shard, else the chunk."""
        return self.layout.shard or self.layout.chunk

    def _store(self) -> Store:
        return create_store(self.url, self.spec, mip=self.mip, format=self.format, layout=self.layout)

    def check(self) -> None:
        store = self._store()
        store.check_writable()
        if store.spec.write_unit != self.unit:
            raise AlignmentError(
                f"{self.url} stores chunks of {store.spec.chunk} and shards of {store.spec.shard} voxels (zyx),"
                f" not {self.unit} as planned; pass them as chunk= and shard="
            )

    def intact(self) -> bool:
        try:
            open_store(self.url, mip=self.mip, format=self.format)
        except StoreNotFoundError:
            return False
        return True

    def write(self, box: BoundingBox, array: Array) -> BlockResult:
        self._store().write(box, array)
        return BlockResult(empty=not array.any())

    def verify(self, box: BoundingBox) -> None:
        self._store().read(box)

    def describe(self) -> dict[str, Any]:
        layout = dataclasses.asdict(self.layout)
        return {"url": self.url, "mip": self.mip, "format": self.format, "layout": layout, **_described(self.spec)}

    def bind(self, directory: str) -> LayerSink:  # noqa: ARG002
        return self


@dataclass(frozen=True)
class FileSink:
    """A file that one writer makes whole: blocks gather in a scratch layer, from which `Assemble` writes it.

    Attributes:
        url: the file.
        spec: what it will hold.
        format: name of the format, or None to go by the URL.
        layout: compression and chunk within the file.
        block: voxels per block (zyx), the chunk of the scratch layer.
        scratch: URL of the scratch layer, once bound.
    """

    url: str
    spec: VolumeSpec
    format: str | None
    layout: Layout
    block: Zyx
    scratch: str | None = None

    @property
    def unit(self) -> Zyx | None:
        """The chunk of the scratch layer."""
        return self.block

    def scratch_store(self) -> Store:
        """Return the layer in which the blocks gather."""
        assert self.scratch is not None
        layout = Layout(chunk=self.block, encoding="raw")
        return create_store(self.scratch, self.spec, format="zarr3", layout=layout)

    def check(self) -> None:
        kvstore.check_writable(self.url.rpartition("/")[0])
        self.scratch_store()

    def intact(self) -> bool:
        return True

    def write(self, box: BoundingBox, array: Array) -> BlockResult:
        self.scratch_store().write(box, array)
        return BlockResult(empty=not array.any())

    def verify(self, box: BoundingBox) -> None:
        """The scratch layer is gone once the file is written, which `Assemble` verifies."""

    def describe(self) -> dict[str, Any]:
        layout = dataclasses.asdict(self.layout)
        return {"url": self.url, "format": self.format, "layout": layout, **_described(self.spec)}

    def bind(self, directory: str) -> FileSink:
        return dataclasses.replace(self, scratch=kvstore.join(directory, f"{safe_name(self.url)}.zarr"))


@dataclass(frozen=True)
class Evaluate:
    """Evaluate some volumes over one grid and hand each block to its sink; every node is evaluated once per block.

    Attributes:
        expression: its outputs are the volumes.
        sinks: one per output.
    """

    expression: Expression
    sinks: tuple[Sink, ...]

    def _boxes(self, box: BoundingBox) -> list[BoundingBox]:
        return [box] * len(self.sinks)

    def read(self, box: BoundingBox) -> Fetched:
        return self.expression.fetch_counted(self._boxes(box))

    def compute(self, box: BoundingBox, inputs: Fetched) -> tuple[list[Array], dict[str, int]]:
        arrays, counts = self.expression.compute_counted(self._boxes(box), inputs)
        return [np.ascontiguousarray(array) for array in arrays], counts

    def write(self, box: BoundingBox, outputs: tuple[list[Array], dict[str, int]]) -> BlockResult:
        results = [sink.write(box, array) for sink, array in zip(self.sinks, outputs[0], strict=True)]
        counts = dict(outputs[1])
        for result in results:
            counts |= {name: counts.get(name, 0) + n for name, n in result.counts.items()}
        return BlockResult(empty=all(result.empty for result in results), counts=counts)

    def intact(self) -> bool:
        """Return whether what earlier runs wrote is still there; if not, every block runs again."""
        return all(sink.intact() for sink in self.sinks)

    def verify(self, box: BoundingBox) -> None:
        """Raise when what the sinks stored for a block is missing or damaged."""
        for sink in self.sinks:
            sink.verify(box)

    def estimate(self, box: BoundingBox) -> Estimate:
        written = sum(node.spec.nbytes_of(box) for node in self.expression.outputs)
        return dataclasses.replace(self.expression.estimate(self._boxes(box)), bytes_written=written)

    def check(self) -> None:
        self.expression.check()
        for sink in self.sinks:
            sink.check()

    def describe(self) -> dict[str, Any]:
        return {
            "daskflow": daskflow.__version__,
            "expression": self.expression.describe(),
            "sinks": [sink.describe() for sink in self.sinks],
        }

    def bind(self, directory: str) -> Evaluate:
        return Evaluate(self.expression.bind(directory), tuple(sink.bind(directory) for sink in self.sinks))


@dataclass(frozen=True)
class Assemble:
    """Write the file of a `FileSink` from its scratch layer; the one block is the whole volume."""

    sink: FileSink

    def read(self, box: BoundingBox) -> None:
        """Nothing is read ahead: the file takes slab after slab."""

    def compute(self, box: BoundingBox, inputs: None) -> None:
        """Nothing is computed."""

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        sink = self.sink
        write_file(sink.url, sink.spec, sink.scratch_store().read, format=sink.format, layout=sink.layout)
        return BlockResult()

    def intact(self) -> bool:
        """Return whether the file is still there."""
        return kvstore.exists(self.sink.url)

    def verify(self, box: BoundingBox) -> None:
        """Raise when the file is missing or damaged."""
        store = open_store(self.sink.url, format=self.sink.format)
        height = self.sink.block[0]
        for low in range(box.start[0], box.stop[0], height):
            high = min(low + height, box.stop[0])
            slab = BoundingBox((low, *box.start[1:]), (high, *box.stop[1:]))
            store.read(slab.shift([a - b for a, b in zip(store.spec.box.start, box.start, strict=True)]))

    def estimate(self, box: BoundingBox) -> Estimate:
        size = self.sink.spec.nbytes_of(box)
        slab = size // max(1, -(-box.shape[0] // self.sink.block[0]))
        return Estimate(bytes_read=size, bytes_written=size, memory=2 * slab, voxels_read=box.size)

    def check(self) -> None:
        """The sink that fills the scratch layer has checked."""

    def describe(self) -> dict[str, Any]:
        return {"assemble": self.sink.describe()}

    def bind(self, directory: str) -> Assemble:
        return Assemble(self.sink.bind(directory))


def safe_name(url: str) -> str:
    """Return the last component of a URL, fit to name a stage or an object."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", url.rstrip("/").rpartition("/")[2]).strip(".") or "volume"


def evaluate_stage(name: str, volume: Volume, sink: Sink, *, block: Zyx | None = None) -> Stage:
    """Return the stage that hands a volume to a sink.

    Args:
        name: of the stage.
        volume: what is evaluated.
        sink: where its blocks go.
        block: voxels per block (zyx); by default the volume's, rounded up to whole units of the sink.

    Raises:
        AlignmentError: `block` is not whole units of the sink; the message names the nearest that is.
    """
    return Stage(name, _grid(volume.box, block, volume.block, [sink]), Evaluate(volume.expression, (sink,)))


def merge(jobs: Sequence[Job], *, command: tuple[str, ...] | None = None) -> Job:
    """Return one job that does what several would, in which volumes over the same box share each block.

    Args:
        jobs: of sinks; the first one's directory is used.
        command: the command line that made them, by which the job can be retried.

    Raises:
        ParameterError: no jobs.
    """
    job = Job.merge(jobs)
    return dataclasses.replace(job, stages=fuse(job.stages), command=command)


def fuse(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return stages in which those that evaluate volumes over the same box have become one.

    First come the stages that volumes wait for, then evaluation, then what makes files of it.
    """
    groups: dict[tuple[BoundingBox, tuple[float, ...]], list[Stage]] = {}
    for stage in stages:
        if isinstance(stage.task, Evaluate):
            key = (stage.grid.box, stage.task.expression.outputs[0].spec.voxel_size)
            groups.setdefault(key, []).append(stage)
    before = [stage for stage in stages if not isinstance(stage.task, Evaluate | Assemble)]
    after = [stage for stage in stages if isinstance(stage.task, Assemble)]
    return (*before, *(_fused(group) for group in groups.values()), *after)


def _fused(group: Sequence[Stage]) -> Stage:
    if len(group) == 1:
        return group[0]
    tasks = [stage.task for stage in group if isinstance(stage.task, Evaluate)]
    sinks = tuple(sink for task in tasks for sink in task.sinks)
    largest = max((stage.grid.block for stage in group), key=math.prod)
    expression = Expression([node for task in tasks for node in task.expression.outputs])
    grid = _grid(group[0].grid.box, None, largest, sinks)
    return Stage("-and-".join(stage.name for stage in group), grid, Evaluate(expression, sinks))


def _grid(box: BoundingBox, block: Zyx | None, preferred: Zyx, sinks: Sequence[Sink]) -> BlockGrid:
    units = [sink.unit for sink in sinks if sink.unit is not None]
    z, y, x = (math.lcm(*(unit[axis] for unit in units)) for axis in range(3))
    nearest = [-(-b // u) * u for b, u in zip(block or preferred, (z, y, x), strict=True)]
    covers = [b >= s for b, s in zip(block or preferred, box.shape, strict=True)]
    if block is not None and any(b != n and not c for b, n, c in zip(block, nearest, covers, strict=True)):
        raise AlignmentError(
            f"block {block} zyx is not a multiple of {(z, y, x)}, the chunks or shards it writes;"
            f" nearest is {tuple(nearest)}"
        )
    return BlockGrid(box, (nearest[0], nearest[1], nearest[2]))


def _described(spec: VolumeSpec) -> dict[str, Any]:
    return {
        "box": str(spec.box),
        "dtype": spec.dtype.name,
        "channels": spec.channels,
        "voxel_size": list(spec.voxel_size),
        "layer_type": spec.layer_type,
    }
