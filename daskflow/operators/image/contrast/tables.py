"""What operators that look grey values up in tables of their own counting share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.sinks import KeptStore, ScratchSink
from daskflow.operators.image.contrast.levels import BINS, Counts
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import Table
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Stage, Volume
from daskflow.volume.mapping import MappedBoxes
from daskflow.volume.node import Array, Memory, Waiting, checked
from daskflow.volume.stage import Bound, Scope

_PAGE = 256
_MERGED_BYTES = 2**27


def grey_image(volume: Volume, name: str) -> None:
    """Raise unless a volume has one channel of uint8 or uint16, which the operator `name` counts."""
    if volume.channels not in (None, 1):
        raise ParameterError(f"{name} takes one channel, the volume has {volume.channels}; use pick-channels first")
    if volume.dtype.name not in BINS:
        raise ParameterError(
            f"{name} takes uint8 or uint16, the volume is {volume.dtype}; use astype, or quantize for probabilities"
        )


def with_few_sections(volume: Volume, per_section: int, most: int) -> Volume:
    """Return a volume whose blocks are halved along z, but stay whole chunks, until they need at most `most` bytes.

    A section of a block needs `per_section`.
    """
    deep, high, wide = volume.block
    unit = (volume.spec.write_unit or (1, 1, 1))[0]
    while deep % (2 * unit) == 0 and deep * per_section > most:
        deep //= 2
    return volume.with_block((deep, high, wide))


@dataclass(frozen=True)
class Histograms(Bound):
    """Histograms by number; a row of the table is a page, 256 neighbouring grey values of one histogram.

    Attributes:
        table: the pages in which there are any.
        bins: grey values that the dtype has.
    """

    table: Table
    bins: int

    @classmethod
    def named(cls, name: str, blocks: int, bins: int, most: int, scope: Scope) -> Histograms:
        """Return the histograms that blocks count, of which each has a part of at most so many."""
        fan_in = max(2, min(64, _MERGED_BYTES // (8 * bins * most)))
        return cls(Table(name, blocks, {"pages": "key", "counts": "sum"}, scope, fan_in=fan_in), bins)

    def rows(self, numbers: npt.ArrayLike, counts: npt.NDArray[np.integer]) -> Arrays:
        """Return the rows of some histograms, whose numbers ascend; their grey values are the last axis."""
        pages = counts.reshape(-1, _PAGE)
        present = pages.any(axis=1)
        return {"pages": self._pages(numbers)[present], "counts": pages[present]}

    def read(self, numbers: npt.ArrayLike) -> Counts:
        """Return some histograms, shape (numbers, bins), after the stages ran."""
        counts = self.table.of(self._pages(numbers))["counts"]
        return counts.reshape(-1, self.bins).astype(np.int64, copy=False)

    def _pages(self, numbers: npt.ArrayLike) -> npt.NDArray[np.uint64]:
        first = np.asarray(numbers, np.int64).reshape(-1, 1) * (self.bins // _PAGE)
        return (first + np.arange(self.bins // _PAGE)).ravel().astype(np.uint64)


@dataclass(frozen=True)
class CountHistograms(Consumer):
    """Writes the rows of the histograms that a block has a part of.

    Attributes:
        histograms: what is counted.
        blocks: in which they are counted.
    """

    histograms: Histograms
    blocks: BlockGrid

    @property
    def grid(self) -> BlockGrid:
        return self.blocks

    def write(self, box: BoundingBox, outputs: Arrays) -> BlockResult:
        (index,) = self.blocks.touching(box)
        self.histograms.table.write(index, outputs)
        return BlockResult()

    def check(self) -> None:
        kvstore.check_writable(self.histograms.table.scope.url)


@dataclass(frozen=True, eq=False)
class LookUp(MappedBoxes):
    """Voxels of a volume looked up in tables, the second input: `reads` gives the box of the tables for one of voxels.

    The function gets the voxels of `box` and the tables of `read_box`.
    """

    def needs(self, box: BoundingBox) -> tuple[BoundingBox, ...]:
        return (box, self.reads(box))

    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:
        result = self.function(*arrays, box=box, read_box=self.reads(box), **self.options)
        return checked(np.asarray(result), box, self.spec, self.function)


def look_up(
    volume: Volume,
    kept: ScratchSink,
    stages: Sequence[Stage],
    function: Callable[..., Array],
    *,
    where: Callable[[BoundingBox], BoundingBox],
    memory: Memory,
    **options: Any,
) -> Volume:
    """Return the volume whose blocks are ``function(block, table, box=, read_box=, **options)``.

    Args:
        volume: gives the blocks.
        kept: is given the tables.
        stages: those that make them, in order.
        function: returns the block, of the shape and dtype it got.
        where: the box of the tables that is needed for a box of the volume.
        memory: bytes that the function takes, as for `Volume.map_overlap`.
        **options: handed to the function.
    """
    tables = Waiting(kept.spec, KeptStore, kept, tuple(stages))
    node = LookUp(volume.spec, function, (volume.node, tables), options, memory, where)
    return Volume(node, block=volume.block)
