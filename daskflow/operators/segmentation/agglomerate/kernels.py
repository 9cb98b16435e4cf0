"""The compiled loop of agglomeration: the merging of a region graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.operators._compiled import compiled, kept

Array = npt.NDArray[Any]

_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


@compiled
def _pair(one: int, other: int) -> np.uint64:
    """Return two numbers below 2^32 as one, the larger first."""
    return np.uint64(max(one, other)) << _HALF | np.uint64(min(one, other))


@compiled
def _push(scores: Array, names: Array, held: Array, at: int, score: float, name: np.uint64, edge: int) -> None:
    """Put an edge into a heap of `at` entries: a higher score comes first, then a lower pair of names."""
    while at > 0:
        above = (at - 1) >> 2
        if scores[above] > score or (scores[above] == score and names[above] <= name):
            break
        scores[at], names[at], held[at] = scores[above], names[above], held[above]
        at = above
    scores[at], names[at], held[at] = score, name, edge


@compiled
def _sink(scores: Array, names: Array, held: Array, at: int, size: int) -> None:
    """Move an entry of a heap of `size` down to where it belongs."""
    score, name, edge = scores[at], names[at], held[at]
    while True:
        best = 4 * at + 1
        if best >= size:
            break
        for child in range(best + 1, min(best + 4, size)):
            if scores[child] > scores[best] or (scores[child] == scores[best] and names[child] < names[best]):
                best = child
        if scores[best] < score or (scores[best] == score and names[best] >= name):
            break
        scores[at], names[at], held[at] = scores[best], names[best], held[best]
        at = best
    scores[at], names[at], held[at] = score, name, edge


@compiled
def _place(table: Array, edges: Array, one: int, other: int) -> int:
    """Return where in a hash table the edge between two regions stands, or the empty place (-1) where it belongs."""
    mask = np.uint64(len(table) - 1)
    mixed = _pair(one, other) * _MIX
    at = (mixed ^ (mixed >> _HALF)) & mask
    while True:
        edge = table[at]
        if edge < 0:
            return int(at)
        first, second = edges[edge, 4], edges[edge, 5]
        if (first == one and second == other) or (first == other and second == one):
            return int(at)
        at = (at + np.uint64(1)) & mask


@compiled
def _table(edges: Array, wide: Array, size: int) -> Array:
    """Return the hash table of the edges that are left, of their numbers, by the pair of their ends."""
    table = np.full(size, -1, np.int32)
    for edge in range(len(edges)):
        if wide[edge, 1] > 0:
            table[_place(table, edges, edges[edge, 4], edges[edge, 5])] = edge
    return table


@compiled
def _first(sums: Array, counts: Array, best: Array, taken: int) -> float:
    """Return the score of the edge that is first in order after some are taken, -1 if there is none."""
    return sums[best[taken]] / counts[best[taken]] if taken < len(best) else -1.0


@kept
def merge_regions(
    ends: Array, sums: Array, counts: Array, best: Array, extents: Array, waits: Array, least: float, adds: bool
) -> tuple[Array, Array, Array]:
    """Merge the regions of a graph from the best edge down, as far as everything that matters for it is known.

    The score of an edge is `sums / counts`; of equal scores that of the lower pair of regions, of which the larger one
    counts first, is better. A region that waits merges with none, nor does one whose best edge leads to such: it waits,
    too. Scores never rise by merging, so where an edge stands in the order it is never worse than that, and of two
    edges that become one, the place of the better one is enough.

    Args:
        ends: int32 (n, 2), the regions, numbered from 0 in the order of their names, of each edge; no pair twice.
        sums: int64 (n,).
        counts: int64 (n,).
        best: int32, edges in order, the best first, down to the score `least`.
        extents: int32 (regions, 2, 3), first and last block of each (zyx).
        waits: of each region, whether it has edges that are not known here.
        least: edges below this score do not merge.
        adds: whether two edges that become one add up; else the better one stays as it is.

    All arrays but `best` are changed: of edges that are gone the count is 0, the others are between the places that are
    kept, of regions that wait; `extents` and `waits` are those of the region that is kept in each place.

    Returns:
        The merges in order, int64 (m, 4): the region that ends, the larger one that it became a part of, sum and count
        of the edge; the region that is kept in each place; and whether it still is.
    """
    regions, many = len(waits), len(counts)
    # of an edge, side by side in memory: sum and count (int64), two ends, and the half edge that follows on each of
    # them, half edges being 2 * edge + which of its ends
    edges = np.empty((many, 8), np.int32)
    wide = edges.view(np.int64)
    first, degree = np.full(regions, -1, np.int32), np.zeros(regions, np.int32)
    for edge in range(many):
        wide[edge, 0], wide[edge, 1] = sums[edge], counts[edge]
        for side in range(2):
            end = ends[edge, side]
            edges[edge, 4 + side], edges[edge, 6 + side], first[end] = end, first[end], 2 * edge + side
            degree[end] += 1
    size = 1024
    while size < 3 * many:
        size *= 2
    table, used = _table(edges, wide, size), many
    scores, names, held = np.empty(many, np.float64), np.empty(many, np.uint64), np.empty(many, np.int32)
    heap, taken = 0, 0  # a heap of edges whose score fell, beside `best`
    name, kept = np.arange(regions), np.ones(regions, np.bool_)
    merges = np.empty((regions, 4), np.int64)
    done = 0
    while heap > 0 or taken < len(best):
        score, pair, edge = _first(sums, counts, best, taken), _HALF, best[min(taken, len(best) - 1)]
        if score >= 0:
            pair = _pair(ends[edge, 0], ends[edge, 1])
        if heap > 0 and (scores[0] > score or (scores[0] == score and names[0] < pair)):
            score, pair, edge = scores[0], names[0], held[0]
            heap -= 1
            if heap > 0:
                scores[0], names[0], held[0] = scores[heap], names[heap], held[heap]
                _sink(scores, names, held, 0, heap)
        else:
            taken += 1
        if wide[edge, 1] == 0:
            continue
        a, b = edges[edge, 4], edges[edge, 5]
        now, called = wide[edge, 0] / wide[edge, 1], _pair(name[a], name[b])
        tied = (heap > 0 and scores[0] == now) or _first(sums, counts, best, taken) == now
        if now != score or (tied and called != pair):
            if now >= least:
                _push(scores, names, held, heap, now, called, edge)
                heap += 1
            continue
        if waits[a] or waits[b]:
            waits[a] = waits[b] = True
            continue
        merges[done, 0], merges[done, 1] = min(name[a], name[b]), max(name[a], name[b])
        merges[done, 2], merges[done, 3] = wide[edge, 0], wide[edge, 1]
        done += 1
        wide[edge, 1] = 0
        degree[a] -= 1
        degree[b] -= 1
        if degree[a] > degree[b]:  # the one with fewer edges moves into the place of the other
            a, b = b, a
        name[b], kept[a] = max(name[a], name[b]), False
        for axis in range(3):
            extents[b, 0, axis] = min(extents[a, 0, axis], extents[b, 0, axis])
            extents[b, 1, axis] = max(extents[a, 1, axis], extents[b, 1, axis])
        half = first[a]
        while half >= 0:
            moved, side = half >> 1, half & 1
            after = edges[moved, 6 + side]
            if wide[moved, 1] > 0:
                other = edges[moved, 5 - side]
                slot = _place(table, edges, b, other)
                twin = table[slot]
                used += twin < 0
                stays = moved
                if twin >= 0 and wide[twin, 1] > 0:
                    better = wide[moved, 0] / wide[moved, 1] > wide[twin, 0] / wide[twin, 1]
                    stays, goes = (moved, twin) if better else (twin, moved)
                    wide[stays, 0] += adds * wide[goes, 0]
                    wide[stays, 1] += adds * wide[goes, 1]
                    wide[goes, 1] = 0
                    degree[other] -= 1
                else:
                    degree[b] += 1
                if stays == moved:
                    table[slot], edges[moved, 4 + side] = moved, b
                    edges[moved, 6 + side], first[b] = first[b], half
                if 2 * used > len(table):
                    # edges that `a` still has are found by pairs with `a`, which nobody looks for
                    table, used = _table(edges, wide, len(table)), many
            half = after
    for edge in range(many):
        a, b = edges[edge, 4], edges[edge, 5]
        ends[edge, 0], ends[edge, 1] = a, b
        sums[edge], counts[edge] = wide[edge, 0], wide[edge, 1] if waits[a] and waits[b] else 0
    return merges[:done], name, kept
