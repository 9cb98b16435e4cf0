r"""The passes of an agglomeration, and what they leave for each other.

    blocks         contacts of fragments ─► places: in which blocks each fragment is
    blocks         merge what is known  │      ▲ names of what it has
    2 x 2 x 2      merge what is left   │      │ names
    ...                                 ▼      │
    the volume     merge the rest ─────────────┘

A region is known in a box of blocks when all blocks that it occurs in lie there, as then all its edges do. The mean of
two edges is never above the better one, nor is the greater, so merging the best pairs of known regions inside a box
gives what merging the best pair of the whole volume again and again gives: reducibility (Bruynooghe 1977; Sumengen et
al. 2021, arXiv 2105.11653). Sums of 16-bit affinities and their numbers are integers, so no order of adding changes a
mean; equal means are ordered by the names of the regions, of which a merged one keeps the larger.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.operators.segmentation._affinities import ONE
from daskflow.operators.segmentation._contacts import Score, added, crossings_of
from daskflow.operators.segmentation.connected_components.blocks import ends_of
from daskflow.scratch.records import Arrays, required_records, write_record
from daskflow.scratch.tables import How, Table, found_in, merged
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage, Task, in_order
from daskflow.volume.stage import Bound, Scope

Array = npt.NDArray[Any]
Names = npt.NDArray[np.uint64]

# regions, and the first and last position (zyx) among the blocks of those that each occurs in
PLACES: dict[str, How] = {"regions": "key", "low": "min", "high": "max"}
EDGES: dict[str, How] = {"u": "key", "v": "key", "sums": "sum", "counts": "sum"}
_KEPT = 16
_VOXEL_BYTES = 40  # of finding contacts: the fragments three times over, as they are numbered, and the table
_FRAGMENT_VOXELS = 40  # in EM; each has about 3.6 contacts, and all that is known of it takes this many bytes:
_FRAGMENT_BYTES = 700
_BORDER_LAYERS = 8  # voxels from a border within which regions are left to a larger box


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


@dataclass(frozen=True)
class FindContacts(Consumer):
    """Find which fragments touch over the edges of every block's voxels to those before, and where fragments occur."""

    agglomeration: Agglomeration

    @property
    def grid(self) -> BlockGrid:
        return self.agglomeration.grid

    def needs(self, box: BoundingBox) -> BoundingBox:
        return box.grow(1, 0).clip(self.grid.box)

    def compute(self, box: BoundingBox, arrays: list[Array]) -> tuple[Arrays, Arrays]:
        edges, fragments = arrays
        around = self.needs(box)
        found = crossings_of(edges[(slice(None), *box.slices(around))], fragments.reshape(around.shape))
        graph = found.by_axis() if self.agglomeration.graph else {}
        return {"regions": found.regions, **found.totals(self.agglomeration.score)}, graph

    def write(self, box: BoundingBox, outputs: tuple[Arrays, Arrays]) -> BlockResult:
        (block,), (contacts, graph) = self.grid.touching(box), outputs
        self.agglomeration.write("contacts", 0, block, contacts)
        regions = contacts["regions"]
        place = np.broadcast_to(np.array(self.grid.position(block)), (len(regions), 3))
        self.agglomeration.places.write(block, {"regions": regions, "low": place, "high": place})
        if graph:
            self.agglomeration.pairs.write(block, merged(EDGES, [graph]))
        return BlockResult(empty=not len(regions), counts={"contacts": len(contacts["ends"])})

    def further(self, box: BoundingBox) -> Estimate:
        known = box.size // _FRAGMENT_VOXELS * _FRAGMENT_BYTES
        return Estimate(bytes_written=known, memory=box.size * _VOXEL_BYTES + known)

    def check(self) -> None:
        kvstore.check_writable(self.agglomeration.scope.url)

    def describe(self) -> dict[str, Any]:
        return {"finds": "contacts of fragments", "graph": self.agglomeration.graph}


@dataclass(frozen=True)
class _BoxTask(Task):
    """Works on what is known in one box of a level, 0 being the blocks."""

    agglomeration: Agglomeration
    level: int

    def _number(self, box: BoundingBox) -> int:
        (index,) = self.agglomeration.levels[self.level].touching(box)
        return index

    def _within(self, box: BoundingBox) -> list[int]:
        return list(self.agglomeration.levels[self.level - 1].touching(box))

    def estimate(self, box: BoundingBox) -> Estimate:
        """Guess the memory: that of fragments in the block, or of those at the borders of the boxes within."""
        voxels = box.size
        if self.level:
            blocks = zip(box.shape, self.agglomeration.levels[self.level - 1].block, strict=True)
            voxels = 2 * sum(-(-side // step) * (box.size // side) for side, step in blocks) * _BORDER_LAYERS
        return Estimate(memory=min(voxels, box.size) // _FRAGMENT_VOXELS * _FRAGMENT_BYTES)

    def describe(self) -> dict[str, Any]:
        one = self.agglomeration
        return {"level": self.level, "thresholds": list(one.thresholds), "score": one.score}


class MergeRegions(_BoxTask):
    """Merge the regions of a box that are known."""

    def read(self, box: BoundingBox) -> list[Arrays]:
        one = self.agglomeration
        if self.level:
            return one.read("open", self.level - 1, self._within(box))
        (contacts,) = one.read("contacts", 0, [self._number(box)])
        return [contacts | one.places.of(contacts["regions"])]

    def compute(self, box: BoundingBox, inputs: list[Arrays]) -> tuple[Arrays, Arrays]:
        one = self.agglomeration
        blocks = list(one.grid.touching(box))
        first, last = (np.array(one.grid.position(block)) for block in (blocks[0], blocks[-1]))
        known = joined(inputs, one.score) if self.level else inputs[0]
        waits = np.any((known["low"] < first) | (known["high"] > last), axis=1)
        return merge_known(known, waits, min(one.thresholds) * ONE, adds=one.score == "mean")

    def write(self, box: BoundingBox, outputs: tuple[Arrays, Arrays]) -> BlockResult:
        index, (done, left) = self._number(box), outputs
        last = self.level == len(self.agglomeration.levels) - 1
        assert not (last and len(left["regions"])), f"{len(left['regions'])} regions are left in the whole volume"
        self.agglomeration.write("merged", self.level, index, done)
        self.agglomeration.write("open", self.level, index, left)
        return BlockResult(counts={"merges": len(done["child"]), f"open_{self.level}": len(left["ends"])})


def joined(parts: list[Arrays], score: Score) -> Arrays:
    """Return the graph of several boxes as that of one; each as `merge_known` takes it, the order of edges aside."""
    places = merged(PLACES, parts)
    ends = [np.searchsorted(places["regions"], part["regions"])[part["ends"]] for part in parts]
    smaller, larger = np.sort(np.concatenate(ends), axis=1).astype(np.uint64).T
    keys = larger << np.uint64(32) | smaller
    order = np.argsort(keys)
    totals = (np.concatenate([part[name] for part in parts])[order] for name in ("sums", "counts"))
    pairs, sums, counts = added(keys[order], *totals, score=score)
    numbers = np.stack((pairs & np.uint64(2**32 - 1), pairs >> np.uint64(32)), axis=1).astype(np.int32)
    return {**places, "ends": numbers, "sums": sums, "counts": counts}


def merge_known(known: Arrays, waits: npt.NDArray[np.bool_], least: float, *, adds: bool) -> tuple[Arrays, Arrays]:
    """Merge the regions of a graph as far as all that bears on it is known.

    Args:
        known: regions, columns as in `PLACES`, rising; and of the edges in the order of the larger, then of the smaller
            end, `ends`, places of the regions, the smaller first, `sums` and `counts`.
        waits: of each region, whether further edges of it are elsewhere.
        least: score below which nothing merges.
        adds: whether two edges that become one add up; else the better one stays as it is.

    Returns:
        What is done: `regions`, and of each merge in order `child`, `parent`, `sums` and `counts`; and what is left for
        a larger box: the same as `known`, the order of edges and of their ends aside.
    """
    from daskflow.operators.segmentation.agglomerate.kernels import merge_regions

    regions, waits = known["regions"], waits.copy()
    ends, sums, counts = (known[name].copy() for name in ("ends", "sums", "counts"))
    scores = sums / counts
    best = np.flatnonzero(scores >= least)
    best = best[np.argsort(-scores[best], kind="stable")].astype(np.int32)
    extents = np.stack((known["low"], known["high"]), axis=1).astype(np.int32)
    merges, names, kept = merge_regions(ends, sums, counts, best, extents, waits, least, adds)
    done = {"child": regions[merges[:, 0]], "parent": regions[merges[:, 1]]}
    done |= {"sums": merges[:, 2], "counts": merges[:, 3]}
    places = np.flatnonzero(kept & waits)
    places = places[np.argsort(names[places])]
    ranks = np.empty(len(regions), np.int32)
    ranks[places] = np.arange(len(places))
    open_regions = {"regions": regions[names[places]], "low": extents[places, 0], "high": extents[places, 1]}
    stay = counts > 0
    left = {**open_regions, "ends": ranks[ends[stay]], "sums": sums[stay], "counts": counts[stay]}
    return {"regions": regions, **done}, left


class NameRegions(_BoxTask):
    """Say what each region of a box is called in the end, at every threshold."""

    def read(self, box: BoundingBox) -> tuple[Arrays, Arrays | None]:
        one = self.agglomeration
        (done,) = one.read("merged", self.level, [self._number(box)])
        if self.level == len(one.levels) - 1:
            return done, None
        (above,) = one.read("names", self.level + 1, one.levels[self.level + 1].touching(box))
        return done, above

    def compute(self, box: BoundingBox, inputs: tuple[Arrays, Arrays | None]) -> Arrays:  # noqa: ARG002
        done, above = inputs
        regions = done["regions"]
        child, parent = (np.searchsorted(regions, done[end]) for end in ("child", "parent"))
        scores = done["sums"] / done["counts"]
        names = np.empty((len(regions), len(self.agglomeration.thresholds)), np.uint64)
        for which, threshold in enumerate(self.agglomeration.thresholds):
            root = np.arange(len(regions))
            kept = scores >= threshold * ONE
            root[child[kept]] = parent[kept]
            names[:, which] = regions[ends_of(root)]
            if above is not None:
                at, there = found_in(above["regions"], names[:, which])
                names[there, which] = above["names"][at[there], which]
        return {"regions": regions, "names": names}

    def write(self, box: BoundingBox, outputs: Arrays) -> BlockResult:
        self.agglomeration.write("names", self.level, self._number(box), outputs)
        return BlockResult()


def agglomeration_stages(one: Agglomeration, expression: Expression) -> tuple[Stage, ...]:
    """Return the passes of an agglomeration of edges and fragments, in order."""
    levels = list(enumerate(one.levels))
    stages = (
        Stage("find-contacts", one.grid, EvaluateVolumes.into(expression, FindContacts(one))),
        *one.places.stages(),
        *(one.pairs.stages() if one.graph else ()),
        *(Stage(f"merge-regions-{level}", grid, MergeRegions(one, level)) for level, grid in levels),
        *(Stage(f"name-regions-{level}", grid, NameRegions(one, level)) for level, grid in reversed(levels)),
    )
    return in_order(stages, after=expression.stages)
