"""Compiled loops of agglomeration: the contacts of the fragments of a block, and the merging of a region graph."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


@numba.njit(cache=True, nogil=True, inline="always")
def _slot(keys: Array, key: np.uint64) -> int:
    """Return where a key stands in a table of a power of two of keys, or the empty place where it belongs."""
    mask = np.uint64(len(keys) - 1)
    mixed = key * _MIX
    at = (mixed ^ (mixed >> _HALF)) & mask
    while keys[at] != key and keys[at] != _EMPTY:
        at = (at + np.uint64(1)) & mask
    return int(at)


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True, inline="always")
def _before(scores: Array, highs: Array, lows: Array, one: int, other: int) -> bool:
    """Return whether one entry of a heap comes before another."""
    if scores[one] != scores[other]:
        return bool(scores[one] > scores[other])
    if highs[one] != highs[other]:
        return bool(highs[one] < highs[other])
    return bool(lows[one] < lows[other])


@numba.njit(cache=True, nogil=True)
def _rise(scores: Array, highs: Array, lows: Array, edges: Array, at: int) -> None:
    while at > 0:
        above = (at - 1) >> 1
        if not _before(scores, highs, lows, at, above):
            return
        scores[at], scores[above] = scores[above], scores[at]
        highs[at], highs[above] = highs[above], highs[at]
        lows[at], lows[above] = lows[above], lows[at]
        edges[at], edges[above] = edges[above], edges[at]
        at = above


@numba.njit(cache=True, nogil=True)
def _sink(scores: Array, highs: Array, lows: Array, edges: Array, at: int, size: int) -> None:
    while True:
        first, child = at, 2 * at + 1
        if child < size and _before(scores, highs, lows, child, first):
            first = child
        if child + 1 < size and _before(scores, highs, lows, child + 1, first):
            first = child + 1
        if first == at:
            return
        scores[at], scores[first] = scores[first], scores[at]
        highs[at], highs[first] = highs[first], highs[at]
        lows[at], lows[first] = lows[first], lows[at]
        edges[at], edges[first] = edges[first], edges[at]
        at = first


@numba.njit(cache=True, nogil=True)
def merge_regions(
    u: Array, v: Array, sums: Array, counts: Array, waits: Array, least: float
) -> tuple[Array, Array, Array, Array, Array]:
    """Merge the regions of a graph from the best edge down, as far as all that bears on it is known.

    The score of an edge is `sums` / `counts`; of equal ones that with the lower region, the larger of its two first,
    comes first. A region that waits, and one whose best edge leads to such, merges with none.

    Args:
        u: first region of each edge, int64; changed, as `v`, `sums` and `counts` are. Regions are numbered from 0 in
            the order of their names.
        v: second region.
        sums: int64.
        counts: int64, where an edge is dropped made 0.
        waits: of each region, whether further edges of it are elsewhere; then also those that wait for others.
        least: edges of a lower score merge nothing.

    Returns:
        Of each merge, in order: the region that ends, the one that goes on, which is the larger, sum and count; and of
        each region the one it ended in.
    """
    regions, many = len(waits), len(u)
    size = 1024
    while size < 3 * many:
        size *= 2
    keys = np.full(size, _EMPTY, np.uint64)
    places = np.zeros(size, np.int64)
    used = 0
    head = np.full(regions, -1, np.int64)
    degree = np.zeros(regions, np.int64)
    following = np.empty(2 * many, np.int64)
    ready = 0
    for edge in range(many):
        at = _slot(keys, np.uint64(u[edge]) << _HALF | np.uint64(v[edge]))
        keys[at], places[at] = np.uint64(u[edge]) << _HALF | np.uint64(v[edge]), edge
        used += 1
        following[2 * edge], head[u[edge]] = head[u[edge]], 2 * edge
        following[2 * edge + 1], head[v[edge]] = head[v[edge]], 2 * edge + 1
        degree[u[edge]] += 1
        degree[v[edge]] += 1
        ready += sums[edge] / counts[edge] >= least
    room = ready + 1024
    scores, highs, lows = np.empty(room, np.float64), np.empty(room, np.int64), np.empty(room, np.int64)
    edges = np.empty(room, np.int64)
    heap = 0
    for edge in range(many):
        score = sums[edge] / counts[edge]
        if score >= least:
            scores[heap], edges[heap] = score, edge
            highs[heap], lows[heap] = max(u[edge], v[edge]), min(u[edge], v[edge])
            heap += 1
    for at in range(heap // 2, -1, -1):
        _sink(scores, highs, lows, edges, at, heap)
    # a region is kept under one of its members, that with most edges, and goes by the largest
    kept_as = np.arange(regions)
    name = np.arange(regions)
    gone, into = np.empty(regions, np.int64), np.empty(regions, np.int64)
    merged_sums, merged_counts = np.empty(regions, np.int64), np.empty(regions, np.int64)
    merges = 0
    while heap > 0:
        edge, score, high, low = edges[0], scores[0], highs[0], lows[0]
        heap -= 1
        scores[0], highs[0], lows[0], edges[0] = scores[heap], highs[heap], lows[heap], edges[heap]
        _sink(scores, highs, lows, edges, 0, heap)
        if counts[edge] == 0:
            continue
        a, b = u[edge], v[edge]
        now = sums[edge] / counts[edge]
        larger, smaller = max(name[a], name[b]), min(name[a], name[b])
        if now != score or larger != high or smaller != low:
            if now >= least and (now < score or (now == score and (larger, smaller) > (high, low))):
                scores[heap], highs[heap], lows[heap], edges[heap] = now, larger, smaller, edge
                heap += 1
                _rise(scores, highs, lows, edges, heap - 1)
            continue
        if waits[a] or waits[b]:
            waits[a] = waits[b] = True
            continue
        gone[merges], into[merges] = smaller, larger
        merged_sums[merges], merged_counts[merges] = sums[edge], counts[edge]
        merges += 1
        counts[edge] = 0
        if degree[a] > degree[b]:
            a, b = b, a
        name[b] = larger
        kept_as[a] = b
        half = head[a]
        while half >= 0:
            after = following[half]
            moved = half >> 1
            if counts[moved] != 0:
                other = v[moved] if half & 1 == 0 else u[moved]
                key = np.uint64(min(b, other)) << _HALF | np.uint64(max(b, other))
                at = _slot(keys, key)
                fresh = keys[at] == _EMPTY
                if fresh:
                    keys[at] = key
                    used += 1
                target = places[at]
                if fresh or counts[target] == 0:
                    places[at] = moved
                    if half & 1 == 0:
                        u[moved] = b
                    else:
                        v[moved] = b
                    following[half], head[b] = head[b], half
                    degree[b] += 1
                else:
                    before = sums[target] / counts[target]
                    sums[target] += sums[moved]
                    counts[target] += counts[moved]
                    counts[moved] = 0
                    now = sums[target] / counts[target]
                    if now > before and now >= least:
                        if heap == len(edges):
                            scores = np.concatenate((scores, np.empty(heap, np.float64)))
                            highs = np.concatenate((highs, np.empty(heap, np.int64)))
                            lows = np.concatenate((lows, np.empty(heap, np.int64)))
                            edges = np.concatenate((edges, np.empty(heap, np.int64)))
                        scores[heap], edges[heap] = now, target
                        highs[heap], lows[heap] = max(larger, name[other]), min(larger, name[other])
                        heap += 1
                        _rise(scores, highs, lows, edges, heap - 1)
                if 2 * used > len(keys):
                    keys = np.full(2 * len(keys), _EMPTY, np.uint64)
                    places = np.zeros(len(keys), np.int64)
                    used = 0
                    for one in range(many):
                        if counts[one] != 0:
                            key = np.uint64(min(u[one], v[one])) << _HALF | np.uint64(max(u[one], v[one]))
                            at = _slot(keys, key)
                            keys[at], places[at] = key, one
                            used += 1
            half = after
    for region in range(regions):
        end = region
        while kept_as[end] != end:
            end = kept_as[end]
        one = region
        while kept_as[one] != end:
            kept_as[one], one = end, kept_as[one]
    for edge in range(many):
        u[edge], v[edge] = name[u[edge]], name[v[edge]]
    ends = name[kept_as]
    for region in range(regions):
        if kept_as[region] == region:
            waits[ends[region]] = waits[region]
    for region in range(regions):
        waits[region] = waits[ends[region]]
    return gone[:merges], into[:merges], merged_sums[:merges], merged_counts[:merges], ends
