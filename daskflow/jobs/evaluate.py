"""The stage that evaluates volumes block by block and hands each block to the sinks, and the one that writes files."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

import daskflow
from daskflow.errors import PlanError
from daskflow.geometry import BoundingBox, Zyx
from daskflow.jobs.sinks import Deriving, FileSink, Sink, verify_all
from daskflow.stores.local_files import slabs
from daskflow.stores.opening import open_store, write_file
from daskflow.volume import BlockResult, Estimate, Expression
from daskflow.volume.expression import Fetched
from daskflow.volume.node import Array, Stored


@dataclass(frozen=True)
class Evaluate:
    """Evaluate some volumes over one grid and hand each block to its sink; every node is evaluated once per block.

    Attributes:
        expression: its outputs are the volumes.
        sinks: one per output.
        block: the block that was asked for (zyx), or None when it was chosen.
    """

    expression: Expression
    sinks: tuple[Sink, ...]
    block: Zyx | None = None

    def __getstate__(self) -> dict[str, Any]:
        sources = [
            node.store.url for node in self.expression.nodes if isinstance(node, Stored) and not node.store.shared
        ]
        for url in [*sources, *(sink.url for sink in self.sinks)]:
            if url in sources or url.startswith("memory://"):
                raise PlanError(f"{url} lies in the memory of this process, which others cannot reach: run in threads")
        return self.__dict__

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
        verify_all(functools.partial(sink.verify, box) for sink in self.sinks)

    def estimate(self, box: BoundingBox) -> Estimate:
        estimate = self.expression.estimate(self._boxes(box))
        further = [sink.further(box) for sink in self.sinks if isinstance(sink, Deriving)]
        written = sum(node.spec.nbytes_of(box) for node in self.expression.outputs)
        return dataclasses.replace(
            estimate,
            bytes_written=written + sum(one.bytes_written for one in further),
            memory=estimate.memory + max((one.memory for one in further), default=0),
        )

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
        sinks = tuple(sink.bind(directory) for sink in self.sinks)
        return dataclasses.replace(self, expression=self.expression.bind(directory), sinks=sinks)


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
        read = sink.scratch_store().read
        write_file(sink.url, sink.spec, read, format=sink.format, layout=sink.layout, dataset=sink.dataset)
        return BlockResult()

    def intact(self) -> bool:
        """Return whether the file is still there."""
        return self.sink.exists()

    def verify(self, box: BoundingBox) -> None:
        """Raise when the file is missing or damaged."""
        store = open_store(self.sink.url, format=self.sink.format, dataset=self.sink.dataset)
        height = self.sink.block[0]
        for low in range(box.start[0], box.stop[0], height):
            high = min(low + height, box.stop[0])
            slab = BoundingBox((low, *box.start[1:]), (high, *box.stop[1:]))
            store.read(slab.shift([a - b for a, b in zip(store.spec.box.start, box.start, strict=True)]))

    def estimate(self, box: BoundingBox) -> Estimate:
        spec = self.sink.spec
        slab = next(iter(slabs(spec)))
        size = spec.nbytes_of(box)
        return Estimate(size, size, memory=2 * spec.nbytes_of(slab), voxels_read=box.size)

    def check(self) -> None:
        """The sink that fills the scratch layer has checked."""

    def describe(self) -> dict[str, Any]:
        return {"assemble": self.sink.describe()}

    def bind(self, directory: str) -> Assemble:
        return Assemble(self.sink.bind(directory))
