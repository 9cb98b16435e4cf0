"""Compiled loops of agglomeration: the contacts of the fragments of a block, and the merging of a region graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.operators._compiled import compiled, kept

Array = npt.NDArray[Any]

_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


@compiled
def _slot(keys: Array, key: np.uint64) -> int:
    """Return where a key stands in a table of a power of two of keys, or the empty place where it belongs."""
    mask = np.uint64(len(keys) - 1)
    mixed = key * _MIX
    at = (mixed ^ (mixed >> _HALF)) & mask
    while keys[at] != key and keys[at] != _EMPTY:
        at = (at + np.uint64(1)) & mask
    return int(at)


@kept
def contacts(affinities: Array, fragments: Array, low: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    """Return which fragments of a block touch, over the edges from its voxels to the ones before, and how.

    Args:
        affinities: uint16, (3, z, y, x), as `_affinities.edges` has them.
        fragments: numbers of the fragments, uint32, with `low` more voxels (zyx) before the block; 0 is none.
        low: 1 on axes where the block has neighbours before it, else 0.

    Returns:
        Pairs of numbers, the lower one first, packed in 64 bits; and, int64 (n, 3), per axis the sum of the affinities
        of the edges between the two and how many these are.
    """
    keys = np.full(1024, _EMPTY, np.uint64)
    places = np.zeros(1024, np.int64)
    pairs = np.empty(512, np.uint64)
    sums = np.zeros((512, 3), np.int64)
    counts = np.zeros((512, 3), np.int64)
    found = 0
    _, depth, height, width = affinities.shape
    last, place = _EMPTY, 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                here = fragments[z + low[0], y + low[1], x + low[2]]
                if here == 0:
                    continue
                for axis in range(3):
                    back = (z + low[0] - (axis == 0), y + low[1] - (axis == 1), x + low[2] - (axis == 2))
                    if back[axis] < 0:
                        continue
                    there = fragments[back]
                    if there == 0 or there == here:
                        continue
                    a, b = (here, there) if here < there else (there, here)
                    key = np.uint64(a) << _HALF | np.uint64(b)
                    if key != last:
                        at = _slot(keys, key)
                        if keys[at] == _EMPTY:
                            if found == len(pairs):
                                pairs = np.concatenate((pairs, np.empty(found, np.uint64)))
                                sums = np.concatenate((sums, np.zeros((found, 3), np.int64)))
                                counts = np.concatenate((counts, np.zeros((found, 3), np.int64)))
                                keys = np.full(4 * found, _EMPTY, np.uint64)
                                places = np.zeros(4 * found, np.int64)
                                for one in range(found):
                                    moved = _slot(keys, pairs[one])
                                    keys[moved], places[moved] = pairs[one], one
                                at = _slot(keys, key)
                            keys[at], places[at], pairs[found] = key, found, key
                            found += 1
                        last, place = key, places[at]
                    sums[place, axis] += affinities[axis, z, y, x]
                    counts[place, axis] += 1
    return pairs[:found], sums[:found], counts[:found]


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
def _table(ends: Array, counts: Array, size: int) -> tuple[Array, Array]:
    """Return the hash table of the edges that are left, by the pair of their ends."""
    keys, places = np.full(size, _EMPTY, np.uint64), np.empty(size, np.int32)
    for edge in range(len(counts)):
        if counts[edge] > 0:
            key = _pair(ends[edge, 0], ends[edge, 1])
            slot = _slot(keys, key)
            keys[slot], places[slot] = key, edge
    return keys, places


@kept
def merge_regions(
    ends: Array, sums: Array, counts: Array, extents: Array, waits: Array, least: float
) -> tuple[Array, Array, Array]:
    """Merge the regions of a graph from the best edge down, as far as everything that matters for it is known.

    The score of an edge is `sums / counts`; of equal scores that of the lower pair of regions, of which the larger one
    counts first, is better. A region that waits merges with none, nor does one whose best edge leads to such: it waits,
    too. Scores never rise by merging, so an entry of the heap is never worse than its edge is by now, and of two edges
    that become one, the entry of the better one is enough.

    Args:
        ends: int32 (n, 2), the regions, numbered from 0 in the order of their names, of each edge; no pair twice.
        sums: int64 (n,).
        counts: int64 (n,).
        extents: int32 (regions, 2, 3), first and last block of each (zyx).
        waits: of each region, whether it has edges that are not known here.
        least: edges below this score do not merge.

    All arrays are changed: of edges that are gone the count is 0, the others have the names of the regions they are
    between; `extents` and `waits` are those of the region that is kept in each place.

    Returns:
        The merges in order, int64 (m, 4): the region that ends, the larger one that it became a part of, sum and count
        of the edge; the region that is kept in each place; and whether it still is.
    """
    regions, many = len(waits), len(counts)
    size = 1024
    while size < 3 * many:
        size *= 2
    keys, places = _table(ends, counts, size)
    used = many
    first, degree = np.full(regions, -1, np.int32), np.zeros(regions, np.int32)
    following = np.empty(2 * many, np.int32)  # a half edge is 2 * edge + which of its ends
    scores, names, held = np.empty(many, np.float64), np.empty(many, np.uint64), np.empty(many, np.int32)
    heap = 0
    for edge in range(many):
        for side in range(2):
            end = ends[edge, side]
            following[2 * edge + side], first[end] = first[end], 2 * edge + side
            degree[end] += 1
        score = sums[edge] / counts[edge]
        if score >= least:
            scores[heap], names[heap], held[heap] = score, _pair(ends[edge, 0], ends[edge, 1]), edge
            heap += 1
    for at in range((heap + 2) >> 2, -1, -1):
        if at < heap:
            _sink(scores, names, held, at, heap)
    name, kept = np.arange(regions), np.ones(regions, np.bool_)
    merges = np.empty((regions, 4), np.int64)
    done = 0
    while heap > 0:
        score, pair, edge = scores[0], names[0], held[0]
        heap -= 1
        if heap > 0:
            scores[0], names[0], held[0] = scores[heap], names[heap], held[heap]
            _sink(scores, names, held, 0, heap)
        if counts[edge] == 0:
            continue
        a, b = ends[edge, 0], ends[edge, 1]
        now, called = sums[edge] / counts[edge], _pair(name[a], name[b])
        if now != score or called != pair:
            if now >= least:
                _push(scores, names, held, heap, now, called, edge)
                heap += 1
            continue
        if waits[a] or waits[b]:
            waits[a] = waits[b] = True
            continue
        merges[done, 0], merges[done, 1] = min(name[a], name[b]), max(name[a], name[b])
        merges[done, 2], merges[done, 3] = sums[edge], counts[edge]
        done += 1
        counts[edge] = 0
        if degree[a] > degree[b]:  # the one with fewer edges moves into the place of the other
            a, b = b, a
        name[b], kept[a] = max(name[a], name[b]), False
        degree[b] += degree[a]
        for axis in range(3):
            extents[b, 0, axis] = min(extents[a, 0, axis], extents[b, 0, axis])
            extents[b, 1, axis] = max(extents[a, 1, axis], extents[b, 1, axis])
        half = first[a]
        while half >= 0:
            after, moved = following[half], half >> 1
            if counts[moved] > 0:
                key = _pair(b, ends[moved, 1 - (half & 1)])
                slot = _slot(keys, key)
                used += keys[slot] == _EMPTY
                twin = np.int64(-1) if keys[slot] == _EMPTY else np.int64(places[slot])
                if twin >= 0 and counts[twin] > 0:
                    better = sums[moved] / counts[moved] > sums[twin] / counts[twin]
                    stays, goes = (moved, twin) if better else (twin, moved)
                    sums[stays] += sums[goes]
                    counts[stays] += counts[goes]
                    counts[goes] = 0
                else:
                    stays = moved
                if stays == moved:
                    keys[slot], places[slot] = key, moved
                    ends[moved, half & 1] = b
                    following[half], first[b] = first[b], half
                if 2 * used > len(keys):
                    # edges that `a` still has are found by pairs with `a`, which nobody looks for
                    keys, places = _table(ends, counts, len(keys) * 2)
                    used = many
            half = after
    for edge in range(many):
        if counts[edge] > 0:
            a, b = ends[edge, 0], ends[edge, 1]
            if waits[a] and waits[b]:
                ends[edge, 0], ends[edge, 1] = min(name[a], name[b]), max(name[a], name[b])
            else:
                counts[edge] = 0
    return merges[:done], name, kept
