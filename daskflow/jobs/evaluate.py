"""Stages that evaluate volumes block by block for consumers, e.g. one that fills a table, and that write files."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

import daskflow
from daskflow.errors import PlanError
from daskflow.geometry import BlockGrid, BoundingBox, Zyx
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.sinks import FileSink, Sink
from daskflow.scratch.tables import Table
from daskflow.stores import kvstore
from daskflow.stores.local_files import slabs
from daskflow.stores.opening import open_store, write_file
from daskflow.volume import BlockResult, Estimate, Expression, Stage, Task, Volume, in_order
from daskflow.volume.expression import Fetched
from daskflow.volume.mapping import MappedBoxes
from daskflow.volume.node import Array, Stored
from daskflow.volume.stage import Output, Storing

Rows = Mapping[str, npt.NDArray[Any]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VoxelTask(Task):
    """A task that evaluates volumes: the outputs of an expression."""

    expression: Expression

    def __getstate__(self) -> dict[str, Any]:
        for node in self.expression.nodes:
            if isinstance(node, Stored) and not node.store.shared:
                raise unreachable(node.store.url)
        return self.__dict__

    def check(self) -> None:
        self.expression.check()
        super().check()

    @property
    def gpu(self) -> bool:
        return any(isinstance(node, MappedBoxes) and node.gpu for node in self.expression.nodes)

    def whole(self, grid: BlockGrid) -> list[BoundingBox | None]:
        """Return the box that all blocks together need of each output."""
        raise NotImplementedError

    def dear(self, grid: BlockGrid) -> Iterator[tuple[MappedBoxes, BoundingBox]]:
        """Yield the nodes that are not to be evaluated twice, and what is needed of each."""
        needed = self.expression.needed(self.whole(grid), gathered=True)
        for node in self.expression.nodes:
            if isinstance(node, MappedBoxes) and node.dear and self.expression[node] in needed:
                yield node, needed[self.expression[node]]


@dataclass(frozen=True)
class EvaluateVolumes(VoxelTask):
    """Evaluate volumes over one grid and hand each block to consumers; every node is evaluated once per block.

    Attributes:
        consumers: what becomes of the voxels.
        takes: for each of them, which of the outputs it takes.
        block: the block that was asked for (zyx), or None when it was chosen.
    """

    consumers: tuple[Consumer, ...]
    takes: tuple[tuple[int, ...], ...]
    block: Zyx | None = None

    def __getstate__(self) -> dict[str, Any]:
        for sink in self.sinks:
            if sink.url.startswith("memory://"):
                raise unreachable(sink.url)
        return super().__getstate__()

    @classmethod
    def into(cls, expression: Expression, consumer: Consumer, *, block: Zyx | None = None) -> Self:
        """Return the task that hands all outputs of an expression to one consumer."""
        return cls(expression, (consumer,), (tuple(range(len(expression.outputs))),), block)

    @property
    def gpu(self) -> bool:
        return super().gpu or any(one.gpu for one in self.consumers)

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """Those of the consumers that write a volume."""
        return tuple(one for one in self.consumers if isinstance(one, Sink))

    @property
    def verifiable(self) -> bool:  # type: ignore[override]
        """Whether what a consumer stored can be verified."""
        return any(one.verifiable for one in self.consumers)

    def whole(self, grid: BlockGrid) -> list[BoundingBox | None]:
        return self._needs(grid.box)

    def _needs(self, box: BoundingBox) -> list[BoundingBox | None]:
        """Return the box that is needed of each output."""
        found: list[BoundingBox | None] = [None] * len(self.expression.outputs)
        for consumer, places in zip(self.consumers, self.takes, strict=True):
            for place in places:
                found[place] = _union(found[place], consumer.needs(box))
        return found

    def read(self, box: BoundingBox) -> Fetched:
        return self.expression.fetch_counted(self._needs(box))

    def compute(self, box: BoundingBox, inputs: Fetched) -> tuple[list[list[Any]], dict[str, int]]:
        needed = self._needs(box)
        arrays, counts = self.expression.compute_counted(needed, inputs)
        outputs = []
        for consumer, places in zip(self.consumers, self.takes, strict=True):
            made = []
            for block in _blocks(consumer, box):
                wanted = consumer.needs(block)
                parts = [] if wanted is None else [_cut(arrays[place], wanted, needed[place]) for place in places]
                made.append(consumer.compute(block, parts))
            outputs.append(made)
        return outputs, counts

    def write(self, box: BoundingBox, outputs: tuple[list[list[Any]], dict[str, int]]) -> BlockResult:
        results = [
            consumer.write(block, output)
            for consumer, made in zip(self.consumers, outputs[0], strict=True)
            for block, output in zip(_blocks(consumer, box), made, strict=True)
        ]
        counts = Counter(outputs[1])
        for result in results:
            counts.update(result.counts)
        return BlockResult(empty=all(result.empty for result in results), counts=dict(counts))

    @property
    def through(self) -> tuple[Storing, ...]:
        return self.consumers

    def estimate(self, box: BoundingBox) -> Estimate:
        known = self.expression.estimate(self._needs(box))
        further = [one.further(box) for one in self.consumers]
        return dataclasses.replace(
            known,
            bytes_written=sum(one.bytes_written for one in further),
            memory=known.memory + sum(one.memory for one in further),
            locked_seconds=sum(one.locked_seconds for one in further),
            option=next((one.option for one in further if one.option), ""),
        )

    @property
    def unit(self) -> Zyx:
        """The voxels of the smallest block that is whole chunks and shards of all that is written."""
        units = [one.unit for one in self.consumers if one.unit is not None]
        z, y, x = (math.lcm(*(unit[axis] for unit in units)) for axis in range(3))
        return z, y, x

    def describe(self) -> dict[str, Any]:
        return {
            "daskflow": daskflow.__version__,
            "expression": self.expression.describe(),
            "takes": [[self.expression[self.expression.outputs[n]] for n in places] for places in self.takes],
            "sinks": [one.describe() for one in self.consumers],
        }


@dataclass(frozen=True)
class Tabulate(Consumer):
    """Write what is found in each block to a table.

    Attributes:
        table: has as many blocks as there are.
        blocks: in which voxels are taken.
        find: returns the rows of a block, given its box, the arrays (zyx) and the parameters; a module's function.
        parameters: JSON values.
        memory: bytes per voxel that it takes.
    """

    table: Table
    blocks: BlockGrid
    find: Callable[..., Rows]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    memory: int = 2

    def stages(self, name: str, expression: Expression) -> tuple[Stage, ...]:
        """Return all passes, in order, after what the expression waits for: the one that finds, and the table's."""
        finding = Stage(name, self.blocks, EvaluateVolumes.into(expression, self))
        return in_order((finding, *self.table.stages()), after=expression.stages)

    @property
    def grid(self) -> BlockGrid:
        return self.blocks

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Rows:
        return self.find(box, *(array.reshape(box.shape) for array in arrays), **self.parameters)

    def write(self, box: BoundingBox, outputs: Rows) -> BlockResult:
        (index,) = self.blocks.touching(box)
        self.table.write(index, outputs)
        keys = [name for name, how in self.table.columns.items() if how == "key"]
        return BlockResult(empty=not any(np.any(outputs[name]) for name in keys))

    def further(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=self.memory * box.size)

    def check(self) -> None:
        kvstore.check_writable(self.table.scope.url)

    def describe(self) -> dict[str, Any]:
        found = f"{self.find.__module__}.{self.find.__qualname__}"
        table = {"table": self.table.name, "columns": dict(self.table.columns)}
        return {"finds": found, "parameters": dict(self.parameters), **table}


def unreachable(url: str) -> PlanError:
    """Return the error for what only this process can read or write."""
    return PlanError(f"{url} lies in the memory of this process, which others cannot reach: run in threads")


def _blocks(consumer: Consumer, box: BoundingBox) -> list[BoundingBox]:
    grid = consumer.grid
    return [box] if grid is None else [grid[index] for index in grid.touching(box)]


def _union(one: BoundingBox | None, other: BoundingBox | None) -> BoundingBox | None:
    return one or other if one is None or other is None else one.union(other)


def _cut(array: Array | None, wanted: BoundingBox, have: BoundingBox | None) -> Array:
    assert array is not None
    assert have is not None
    return array[(..., *wanted.slices(have))]


@dataclass(frozen=True)
class Assemble(Task):
    """Write the file of a `FileSink` from its scratch layer; the one block is the whole volume."""

    verifiable = True
    sink: FileSink

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        sink = self.sink
        read = sink.gathered.store().read  # slab after slab
        write_file(sink.url, sink.spec, read, format=sink.format, layout=sink.layout, dataset=sink.dataset)
        return BlockResult()

    def makes(self) -> tuple[Output, ...]:
        return (self.sink.output,)

    def intact(self) -> bool:
        return self.sink.exists()

    def verify(self, box: BoundingBox) -> None:
        store = open_store(self.sink.url, format=self.sink.format, dataset=self.sink.dataset)
        offset = [a - b for a, b in zip(store.spec.box.start, box.start, strict=True)]
        for slab in BlockGrid(box, (self.sink.block[0], *box.shape[1:])):
            store.read(slab.shift(offset))

    def estimate(self, box: BoundingBox) -> Estimate:
        spec = self.sink.spec
        slab = next(iter(slabs(spec)))
        size = spec.nbytes_of(box)
        return Estimate(size, size, memory=2 * spec.nbytes_of(slab), voxels_read=box.size)

    def describe(self) -> dict[str, Any]:
        return {"assemble": self.sink.describe()}


def assumed_voxel_size(volume: Volume) -> tuple[str, ...]:
    """Return the warning for what needs nm of a volume of unknown voxel size, which is taken as 1 nm."""
    if volume.voxel_size is not None:
        return ()
    unknown = [n for n in sources(volume) if n.spec.voxel_size is None]
    urls = dict.fromkeys(kvstore.redact(n.store.url) for n in unknown if n.store.opened is not None)
    of = f" of {', '.join(urls)}" if urls else ""
    taken = f"the voxel size{of} is unknown and taken as 1 nm; say it where the volume is opened or made"
    return (f"{taken}: --voxel-size Z Y X, in nm (in Python: voxel_size=(z, y, x))",)


def sources(volume: Volume) -> list[Stored]:
    """Return the stored volumes that a volume is read from, also by the stages that it waits for."""
    tasks = [stage.task for stage in volume.expression.stages]
    expressions = [volume.expression, *(task.expression for task in tasks if isinstance(task, VoxelTask))]
    return [node for one in expressions for node in one.nodes if isinstance(node, Stored)]


def data_box(volume: Volume) -> BoundingBox:
    """Return the box of what a volume is read from, of that with its voxel size; the volume's where this has moved."""
    expression = volume.expression
    boxes = [one.store.spec.box for one in sources(volume) if one.store.spec.ratio(volume.spec) == (1, 1, 1)]
    found = functools.reduce(BoundingBox.union, boxes, volume.box if not boxes else boxes[0])
    inside = volume.box.clip(found)
    if any(isinstance(node, MappedBoxes) and _moves(node, inside.clip(node.spec.box)) for node in expression.nodes):
        return volume.box
    needed = expression.needed([inside]) if not inside.empty else {}
    own = [node for node in expression.nodes if isinstance(node, Stored) and node.store.spec.box in boxes]
    kept = all(inside.clip(node.spec.box) in needed.get(expression[node], node.spec.box) for node in own)
    return found if needed and kept else volume.box


def _moves(node: MappedBoxes, box: BoundingBox) -> bool:
    """Return whether voxels of a box have other coordinates in what a node of as large voxels reads."""
    if box.empty or node.spec.ratio(node.inputs[0].spec) != (1, 1, 1):
        return False
    (z, y, x), (_, _, end) = box.start, box.stop
    corners = [BoundingBox.from_size(corner, (1, 1, 1)) for corner in ((z, y, x), (z, y, end - 1))]
    return any(corner not in node.reads(corner) for corner in corners)


def warn(warnings: tuple[str, ...]) -> None:
    """Tell the user, once, what is taken for granted."""
    for line in warnings:
        _log.warning("warning: %s", line)
