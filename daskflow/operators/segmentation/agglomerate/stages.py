r"""The passes of an agglomeration, and what they leave for each other.

    blocks         contacts of fragments ─► places: in which blocks each fragment is
    blocks         merge what is known  │      ▲ names of what it has
    2 x 2 x 2      merge what is left   │      │ names
    ...                                 ▼      │
    the volume     merge the rest ─────────────┘

The graph of a large box is first cut into parts, of which a task merges one at a time.

A region is known in a box of blocks when all blocks that it occurs in lie there, as then all its edges do. The mean of
two edges is never above the better one, nor is the greater, so merging the best pairs of known regions inside a box
gives what merging the best pair of the whole volume again and again gives: reducibility (Bruynooghe 1977; Sumengen et
al. 2021, arXiv 2105.11653). Sums of 16-bit affinities and their numbers are integers, so no order of adding changes a
mean; equal means are ordered by the names of the regions, of which a merged one keeps the larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.operators.segmentation._affinities import ONE
from daskflow.operators.segmentation._contacts import Score, added, crossings_of, unpacked
from daskflow.operators.segmentation.agglomerate.boxes import (
    EDGES,
    FRAGMENT_BYTES,
    FRAGMENT_VOXELS,
    PLACES,
    Agglomeration,
    Names,
)
from daskflow.operators.segmentation.connected_components.blocks import earliest, ends_of
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import found_in, merged
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage, Task, in_order, numbered

Array = npt.NDArray[Any]

_VOXEL_BYTES = 40  # of finding contacts: the fragments three times over, as they are numbered, and the table
_NAME_BYTES = 60  # of finding components, of each region
_MOST_EDGES = 2**30  # as their ends are numbered in 32 bits


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
        place = np.broadcast_to(np.array(self.grid.position(block), np.int32), (len(regions), 3))
        self.agglomeration.places.write(block, {"regions": regions, "low": place, "high": place})
        if graph:
            self.agglomeration.pairs.write(block, merged(EDGES, [graph]))
        return BlockResult(empty=not len(regions), counts={"contacts": len(contacts["ends"])})

    def further(self, box: BoundingBox) -> Estimate:
        known = box.size // FRAGMENT_VOXELS * FRAGMENT_BYTES
        return Estimate(bytes_written=known, memory=box.size * _VOXEL_BYTES + known)

    def check(self) -> None:
        kvstore.check_writable(self.agglomeration.scope.url)

    def describe(self) -> dict[str, Any]:
        return {"finds": "contacts of fragments", "graph": self.agglomeration.graph}


@dataclass(frozen=True)
class _BoxTask(Task):
    """Works on what is known in a box of a level, 0 being the blocks, above which blocks are boxes and their parts."""

    agglomeration: Agglomeration
    level: int

    def _box(self, box: BoundingBox) -> int:
        """Return the number of the box."""
        return box.start[0] if self.level else next(iter(self.agglomeration.grid.touching(box)))

    def _part(self, box: BoundingBox) -> int:
        """Return the number of the part among those of all boxes."""
        return self._box(box) * self.agglomeration.parts(self.level) + box.start[1] * (self.level > 0)

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        one = self.agglomeration
        return Estimate(memory=one.known(self.level) // one.parts(self.level))

    def describe(self) -> dict[str, Any]:
        one = self.agglomeration
        known = {"thresholds": list(one.thresholds), "score": one.score, "parts": one.parts(self.level)}
        return {"level": self.level, **known}


class PartRegions(_BoxTask):
    """Divide the graph of a box into parts of whole components over edges that may merge, one graph at a time.

    Between two components nothing merges, as a merged edge is never better than the best that it is made of. Edges
    between parts are kept for a larger box.
    """

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        one, index = self.agglomeration, self._box(box)
        regions, parts = self._parts(index)
        for piece, graph in enumerate(one.received(self.level, index)):
            part = parts[np.searchsorted(regions, graph["regions"])]
            ends = part[graph["ends"]]
            for number in range(one.parts(self.level)):
                mine, inside = part == number, (ends == number).all(axis=1)
                ranks = (np.cumsum(mine) - 1).astype(np.int32)
                kept = {name: graph[name][mine] for name in PLACES} | {"ends": ranks[graph["ends"][inside]]}
                kept |= {name: graph[name][inside] for name in ("sums", "counts")}
                one.write(f"part-{index}-{number}", self.level, piece, kept)
            apart = ends[:, 0] != ends[:, 1]
            across = {"ends": graph["regions"][graph["ends"][apart]]}
            across |= {name: graph[name][apart] for name in ("sums", "counts")}
            one.write(f"across-{index}", self.level, piece, across)
        return BlockResult()

    def _parts(self, index: int) -> tuple[Names, npt.NDArray[np.int64]]:
        """Return all regions of a box, rising, and the part of each."""
        one, found = self.agglomeration, [np.zeros((0, 2), np.uint64)]
        for graph in one.received(self.level, index):
            strong = graph["sums"] >= min(one.thresholds) * ONE * graph["counts"]
            root = earliest(len(graph["regions"]), graph["ends"][strong].astype(np.int64))
            found.append(np.stack((graph["regions"], graph["regions"][root]), axis=1))
        pairs = np.concatenate(found)
        regions, numbers = np.unique(pairs, return_inverse=True)
        root = earliest(len(regions), numbers.reshape(-1, 2))
        sizes = np.bincount(root, minlength=len(regions))
        middles = np.cumsum(sizes) - sizes / 2
        return regions, (middles * one.parts(self.level) // max(1, len(regions))).astype(np.int64)[root]

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        one = self.agglomeration
        names = one.known(self.level) // FRAGMENT_BYTES * _NAME_BYTES
        return Estimate(memory=names + one.known(self.level - 1) // one.parts(self.level - 1))


class MergeRegions(_BoxTask):
    """Merge the regions of a box, or of a part of it, that are known."""

    def read(self, box: BoundingBox) -> list[Arrays]:
        one, index = self.agglomeration, self._box(box)
        if self.level and one.parts(self.level) > 1:
            pieces = range(one.count_received(self.level, index))
            return one.read(f"part-{index}-{box.start[1]}", self.level, pieces)
        if self.level:
            return list(one.received(self.level, index))
        (contacts,) = one.read("contacts", 0, [index])
        return [contacts | one.places.of(contacts["regions"])]

    def compute(self, box: BoundingBox, inputs: list[Arrays]) -> tuple[Arrays, Arrays]:
        one = self.agglomeration
        blocks = list(one.grid.touching(one.levels[self.level][self._box(box)]))
        first, last = (np.array(one.grid.position(block)) for block in (blocks[0], blocks[-1]))
        known = joined(inputs, one.score) if self.level else inputs[0]
        waits = np.any((known["low"] < first) | (known["high"] > last), axis=1)
        done, left = merge_known(known, waits, min(one.thresholds) * ONE, adds=one.score == "mean")
        if one.parts(self.level) > 1:
            now, there = found_in(left["regions"], ends_by_name(done, 0))
            left |= {"was": done["regions"][there], "now": now[there]}
        return done, left

    def write(self, box: BoundingBox, outputs: tuple[Arrays, Arrays]) -> BlockResult:
        part, (done, left) = self._part(box), outputs
        last = self.level == len(self.agglomeration.levels) - 1
        assert not (last and len(left["regions"])), f"{len(left['regions'])} regions are left in the whole volume"
        self.agglomeration.write("merged", self.level, part, done)
        self.agglomeration.write("open", self.level, part, left)
        return BlockResult(counts={"merges": len(done["child"]), f"open_{self.level}": len(left["ends"])})


def joined(parts: list[Arrays], score: Score) -> Arrays:
    """Return the graph of several boxes as that of one; each as `merge_known` takes it, the order of edges aside."""
    places = merged(PLACES, parts)
    ends = [np.searchsorted(places["regions"], part["regions"])[part["ends"]] for part in parts]
    smaller, larger = np.sort(np.concatenate(ends), axis=1).astype(np.uint64).T
    keys = larger << np.uint64(31) | smaller
    order = np.argsort(keys)
    totals = (np.concatenate([part[name] for part in parts])[order] for name in ("sums", "counts"))
    pairs, sums, counts = added(keys[order], *totals, score=score)
    return {**places, "ends": unpacked(pairs), "sums": sums, "counts": counts}


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

    Raises:
        ParameterError: there are 2^30 edges or more.
    """
    from daskflow.operators.segmentation.agglomerate.kernels import merge_regions

    regions, waits = known["regions"], waits.copy()
    if len(known["ends"]) >= _MOST_EDGES:
        raise ParameterError(
            f"a part of the region graph has {len(known['ends']):,} edges that hang together, and a task takes"
            f" {_MOST_EDGES:,} at most; take a higher threshold, or fewer fragments (watershed --min-size)"
        )
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


def ends_by_name(done: Arrays, least: float) -> Names:
    """Return what each of the regions of some merges became a part of by those of a score of at least `least`."""
    regions = done["regions"]
    child, parent = (np.searchsorted(regions, done[end]) for end in ("child", "parent"))
    root, kept = np.arange(len(regions)), done["sums"] / done["counts"] >= least
    root[child[kept]] = parent[kept]
    names: Names = regions[ends_of(root)]
    return names


class NameRegions(_BoxTask):
    """Say what each region of a box, or of a part of it, is called in the end, at every threshold."""

    def read(self, box: BoundingBox) -> tuple[Arrays, list[Arrays]]:
        one, above = self.agglomeration, self.level + 1
        (done,) = one.read("merged", self.level, [self._part(box)])
        if above == len(one.levels):
            return done, []
        (around,) = one.levels[above].touching(one.levels[self.level][self._box(box)])
        return done, one.read("names", above, range(around * one.parts(above), (around + 1) * one.parts(above)))

    def compute(self, box: BoundingBox, inputs: tuple[Arrays, list[Arrays]]) -> Arrays:  # noqa: ARG002
        done, above = inputs
        names = [ends_by_name(done, threshold * ONE) for threshold in self.agglomeration.thresholds]
        for which, found in enumerate(names):
            for known in above:
                at, there = found_in(known["regions"], found)
                found[there] = known["names"][at[there], which]
        return {"regions": done["regions"], "names": np.stack(names, axis=1)}

    def write(self, box: BoundingBox, outputs: Arrays) -> BlockResult:
        self.agglomeration.write("names", self.level, self._part(box), outputs)
        return BlockResult()


def agglomeration_stages(one: Agglomeration, expression: Expression) -> tuple[Stage, ...]:
    """Return the passes of an agglomeration of edges and fragments, in order."""
    levels = range(len(one.levels))
    merging = []
    for level in levels:
        if one.parts(level) > 1:
            boxes = numbered(len(one.levels[level]))
            merging.append(Stage(f"part-regions-{level}", boxes, PartRegions(one, level), numbered=True))
        merging.append(_stage("merge-regions", MergeRegions(one, level)))
    stages = (
        Stage("find-contacts", one.grid, EvaluateVolumes.into(expression, FindContacts(one))),
        *one.places.stages(),
        *(one.pairs.stages() if one.graph else ()),
        *merging,
        *(_stage("name-regions", NameRegions(one, level)) for level in reversed(levels)),
    )
    return in_order(stages, after=expression.stages)


def _stage(name: str, task: _BoxTask) -> Stage:
    one, level = task.agglomeration, task.level
    grid = numbered(len(one.levels[level]), one.parts(level)) if level else one.grid
    return Stage(f"{name}-{level}", grid, task, numbered=level > 0)
