"""The boxes of an agglomeration, and the graphs that they leave for each other."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.operators.segmentation._contacts import Score
from daskflow.scratch.records import Arrays, required_records, write_record
from daskflow.scratch.tables import How, Table, found_in
from daskflow.volume.stage import Bound, Scope

Names = npt.NDArray[np.uint64]

# regions, and the first and last position (zyx) among the blocks of those that each occurs in
PLACES: dict[str, How] = {"regions": "key", "low": "min", "high": "max"}
EDGES: dict[str, How] = {"u": "key", "v": "key", "sums": "sum", "counts": "sum"}
FRAGMENT_VOXELS = 40  # in EM; each has about 3.6 contacts, and all that is known of it takes this many bytes:
FRAGMENT_BYTES = 700
_BORDER_LAYERS = 8  # voxels from a border within which regions are left to a larger box
_PART_BYTES = 2**31  # that one task of a large box is meant to take
_KEPT = 16


@dataclass(frozen=True)
class Agglomeration(Bound):
    """One agglomeration: its blocks, thresholds from 0 to 1, where its scratch data lie, whether the graph is kept."""

    grid: BlockGrid
    thresholds: tuple[float, ...]
    score: Score
    scope: Scope
    graph: bool = False

    @functools.cached_property
    def levels(self) -> tuple[BlockGrid, ...]:
        """The blocks, boxes of 2 x 2 x 2 of them, and so on to one box."""
        levels = [self.grid]
        while len(levels[-1]) > 1:
            levels.append(levels[-1].coarser(2))
        return tuple(levels)

    def known(self, level: int) -> int:
        """Guess the bytes that all that is known in a box of a level takes: fragments near the borders within it."""
        shape = [min(sides) for sides in zip(self.levels[level].block, self.grid.box.shape, strict=True)]
        voxels = size = int(np.prod(shape))
        if level:
            steps = self.levels[level - 1].block
            voxels = 2 * sum(-(-side // step) * (size // side) for side, step in zip(shape, steps, strict=True))
        return min(voxels * (_BORDER_LAYERS if level else 1), size) // FRAGMENT_VOXELS * FRAGMENT_BYTES

    def parts(self, level: int) -> int:
        """Return into how many tasks the merging in a box of a level is cut, each of some components."""
        return max(1, -(-self.known(level) // _PART_BYTES)) if level else 1

    def within(self, level: int, index: int) -> Iterable[int]:
        """Return the numbers of the boxes of the level below that lie in a box."""
        return self.levels[level - 1].touching(self.levels[level][index])

    @property
    def places(self) -> Table:
        """Where every region occurs."""
        return Table("places", len(self.grid), PLACES, self.scope)

    @property
    def pairs(self) -> Table:
        """The region graph, with sums and counts per axis."""
        return Table("graph", len(self.grid), EDGES, self.scope)

    def write(self, kind: str, level: int, index: int, arrays: Arrays) -> None:
        """Store what a box of a level has of a kind."""
        write_record(self.scope.url, f"{kind}-{level}", index, arrays)

    def read(self, kind: str, level: int, indexes: Iterable[int]) -> list[Arrays]:
        """Return what `write` stored."""
        return required_records(self.scope.url, f"{kind}-{level}", indexes)

    def received(self, level: int, index: int) -> Iterator[Arrays]:
        """Yield the graphs that the boxes within a box have left, of which one task holds one after another."""
        for box in self.within(level, index):
            yield from self._left(level - 1, box)

    def count_received(self, level: int, index: int) -> int:
        """Return how many graphs `received` yields."""
        return sum(self._count_left(level - 1, box) for box in self.within(level, index))

    def _count_left(self, level: int, index: int) -> int:
        parts = self.parts(level)
        return parts + (self.count_received(level, index) if parts > 1 else 0)

    def _left(self, level: int, index: int) -> Iterator[Arrays]:
        parts = self.parts(level)
        names = []
        for part in range(index * parts, (index + 1) * parts):
            (left,) = self.read("open", level, [part])
            yield left
            if parts > 1:
                ends = {name: left[name][left["now"]] for name in ("regions", "low", "high")}
                names.append({"was": left["was"], **ends})
        if parts > 1:
            called = {name: np.concatenate([one[name] for one in names]) for name in names[0]}
            order = np.argsort(called["was"])
            called = {name: column[order] for name, column in called.items()}
            for piece in range(self.count_received(level, index)):
                (across,) = self.read(f"across-{index}", level, [piece])
                yield _called(across, called)

    def names(self, box: BoundingBox, which: int, regions: Names) -> Names:
        """Return what regions that occur in a box are called at one of the thresholds; others keep their names."""
        names = regions.copy()
        for block in self.grid.touching(box):
            known = _kept(self.scope, block)
            at, there = found_in(known["regions"], regions)
            names[there] = known["names"][at[there], which]
        return names


@functools.lru_cache(maxsize=_KEPT)
def _kept(scope: Scope, block: int) -> Arrays:
    (record,) = required_records(scope.url, "names-0", [block])
    return record


def _called(across: Arrays, called: Arrays) -> Arrays:
    """Return edges between parts as a graph of what their ends became a part of, those left out that wait no more."""
    found = [found_in(called["was"], across["ends"][:, side]) for side in range(2)]
    stay = found[0][1] & found[1][1]
    at = np.stack([one[0][stay] for one in found], axis=1)
    regions, first, ends = np.unique(called["regions"][at], return_index=True, return_inverse=True)
    places = {name: called[name][at.reshape(-1)[first]] for name in ("low", "high")}
    totals = {name: across[name][stay] for name in ("sums", "counts")}
    return {"regions": regions, **places, "ends": ends.reshape(-1, 2).astype(np.int32), **totals}
