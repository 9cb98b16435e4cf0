"""The two smallest and the two largest values of every section, or of a volume, found in a pass of its own."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.scratch.records import Arrays, Reduce
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Stage, Volume, in_order
from daskflow.volume.node import Array
from daskflow.volume.stage import Bound, Scope

_KEPT = 2


@dataclass(frozen=True)
class Extremes(Bound):
    """Different values, the smallest and largest two of each section; NaN counts for nothing.

    Attributes:
        merging: merges what blocks have found.
        by_section: whether sections have values of their own; else all are in section 0.
    """

    merging: Reduce
    by_section: bool

    def within(self, box: BoundingBox) -> list[Array]:
        """Return the ascending values, at most four, of each section of a box, after the stages ran."""
        found = _known(self.merging)
        wanted = range(box.start[0], box.stop[0])
        first, last = (np.searchsorted(found["sections"], wanted, side) for side in ("left", "right"))
        return [found["values"][a:b] for a, b in zip(first, last, strict=True)]

    def all(self) -> Array:
        """Return the ascending values, at most four, where sections have none of their own."""
        return _known(self.merging)["values"]


def extremes_of(volume: Volume, *, by_section: bool) -> tuple[Extremes, tuple[Stage, ...]]:
    """Return the extremes of a volume, and the stages that find them, those of the volume first.

    One channel alone can be searched by section.
    """
    scope = Scope("extremes" if by_section else "volume-extremes", (volume.expression, volume.grid))
    merging = Reduce(f"merge-{scope.name}", scope.name, len(volume.grid), merged, scope)
    finding = FindExtremes(merging, volume.grid, by_section)
    first = Stage(f"find-{scope.name}", volume.grid, EvaluateVolumes.into(volume.expression, finding))
    stages = volume.expression.stages
    return Extremes(merging, by_section), (*stages, *in_order((first, *merging.stages()), after=stages))


@dataclass(frozen=True)
class FindExtremes(Consumer):
    """Write the extremes of a block."""

    merging: Reduce
    blocks: BlockGrid
    by_section: bool

    @property
    def grid(self) -> BlockGrid:
        return self.blocks

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Arrays:
        parts = list(arrays[0].reshape(box.shape)) if self.by_section else [arrays[0]]
        found = [_outermost(part) for part in parts]
        first = box.start[0] if self.by_section else 0
        sections = np.repeat(np.arange(first, first + len(parts)), [len(values) for values in found])
        return {"sections": sections, "values": np.concatenate(found)}

    def write(self, box: BoundingBox, outputs: Arrays) -> BlockResult:
        (index,) = self.blocks.touching(box)
        self.merging.write(index, outputs)
        return BlockResult()

    def further(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=2 * box.size * 8)

    def check(self) -> None:
        kvstore.check_writable(self.merging.scope.url)

    def describe(self) -> dict[str, Any]:
        return {"extremes": self.merging.source}


def _outermost(values: Array) -> Array:
    """Return the smallest and largest two of the different values of an array, ascending."""
    left = values[values == values]
    found = []
    for smallest in (True, False):
        inner = left
        for _ in range(_KEPT):
            if inner.size:
                found.append(inner.min() if smallest else inner.max())
                inner = inner[inner > found[-1]] if smallest else inner[inner < found[-1]]
    return np.unique(np.array(found, values.dtype))


def merged(records: list[Arrays]) -> Arrays:
    """Return the outermost of the values of several records, by section and ascending."""
    sections, values = (np.concatenate([record[name] for record in records]) for name in ("sections", "values"))
    order = np.lexsort((values, sections))
    sections, values = sections[order], values[order]
    fresh = np.ones(len(order), bool)
    fresh[1:] = (sections[1:] != sections[:-1]) | (values[1:] != values[:-1])
    sections, values = sections[fresh], values[fresh]
    first, last = (np.searchsorted(sections, sections, side) for side in ("left", "right"))
    places = np.arange(len(sections))
    outer = (places - first < _KEPT) | (last - places <= _KEPT)
    return {"sections": sections[outer], "values": values[outer]}


@functools.lru_cache(maxsize=8)
def _result(scope: Scope, merging: str, source: str, count: int) -> Arrays:
    return Reduce(merging, source, count, merged, scope).result()


def _known(merging: Reduce) -> Arrays:
    return _result(merging.scope, merging.name, merging.source, merging.count)
