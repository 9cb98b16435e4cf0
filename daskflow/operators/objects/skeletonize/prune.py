r"""What is cut from a joined skeleton: paths that one block would not have found, loops, short components, and ticks.

Every block ends a path wherever its border cuts an object. Where a fat object is cut, such ends lie far from its
middle, and would stay as branches that the object as a whole does not have. So the joined graph is traced once more by
TEASAR's own rule (Sato et al. 2000): from a root, the path to the farthest vertex that no path covers is kept, until
all are covered.

    blocks      | o---o   |         kept      o-----------o
                |  \      |                   covered: what lies within scale * radius + const of a kept path
                |   +-----|- - -

The result is a forest: where the pieces of neighbouring blocks close a loop, one edge of it is left out. Lengths are
those of all edges together, in nm.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.operators.objects.skeletonize.pieces import Piece, components
from daskflow.operators.objects.skeletonize.teasar import Tracing

Edges = npt.NDArray[np.uint32]
Lengths = npt.NDArray[np.float64]

_SAVING = 0.9  # of a way along the graph
_WIDER = 1 + 1e-9  # so that rounding loses no ball that just touches


def prune(piece: Piece, voxel_size: Sequence[float], *, shortest: float, tick: float) -> Piece:
    """Return a skeleton without loops, without components below `shortest` and without ticks below `tick`.

    Components are left out before ticks are cut, the shortest first. Lengths are in nm, `voxel_size` is xyz.
    """
    edges = spanning_forest(len(piece.vertices), piece.edges, edge_lengths(piece, voxel_size))
    piece = Piece(piece.vertices, edges, piece.attributes)
    if len(edges):
        piece = without_lone_vertices(piece)
    if shortest > 0:
        piece = without_short_components(piece, voxel_size, shortest)
    if tick > 0 and len(piece.edges):
        piece = without_ticks(piece, voxel_size, tick)
    return piece


def edge_lengths(piece: Piece, voxel_size: Sequence[float]) -> Lengths:
    """Return the length of each edge, in nm; `voxel_size` is xyz."""
    squares = np.zeros(len(piece.edges))
    for axis, size in enumerate(voxel_size):
        places = piece.vertices[:, axis]
        steps = places[piece.edges[:, 0]].astype(np.float64) - places[piece.edges[:, 1]]
        squares += (steps * size) ** 2
    return np.sqrt(squares)


def cable_length(piece: Piece, voxel_size: Sequence[float]) -> float:
    """Return the length of all edges together, in nm; `voxel_size` is xyz."""
    return float(edge_lengths(piece, voxel_size).sum())


def spanning_forest(vertices: int, edges: Edges, lengths: Lengths) -> Edges:
    """Return the edges without the longest of every loop; among equals the last stays out. Their order is kept."""
    trees = int(components(vertices, edges).max(initial=-1)) + 1
    if len(edges) == vertices - trees:
        return edges
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    # by rank, as equal lengths would leave the choice to the sorting, and the first rank must not be 0
    ranks = np.empty(len(edges))
    ranks[np.argsort(lengths, kind="stable")] = np.arange(1, len(edges) + 1)
    graph = coo_array((ranks, (edges[:, 0], edges[:, 1])), shape=(vertices, vertices)).tocsr()
    kept = minimum_spanning_tree(graph).data.astype(np.int64)
    chosen = np.zeros(len(edges) + 1, bool)
    chosen[kept] = True
    return edges[chosen[ranks.astype(np.int64)]]


def without_lone_vertices(piece: Piece) -> Piece:
    """Return a skeleton without the vertices that have no edge: of labels with longer parts, specks of one voxel."""
    keep = np.zeros(len(piece.vertices), bool)
    keep[piece.edges.ravel()] = True
    return piece.subset(keep, piece.edges)


def without_short_components(piece: Piece, voxel_size: Sequence[float], shortest: float) -> Piece:
    """Return a skeleton without the components whose cable is shorter than `shortest` nm; `voxel_size` is xyz."""
    of_vertex = components(len(piece.vertices), piece.edges)
    of_edge = of_vertex[piece.edges[:, 0]]
    cable = np.bincount(of_edge, edge_lengths(piece, voxel_size), minlength=int(of_vertex.max(initial=-1)) + 1)
    long = cable >= shortest
    return piece.subset(long[of_vertex], piece.edges[long[of_edge]])


def without_ticks(piece: Piece, voxel_size: Sequence[float], tick: float) -> Piece:
    """Return a forest without terminal branches below `tick` nm; `voxel_size` is xyz.

    A terminal branch goes from an end to the next fork. The shortest is cut first, and where a fork has lost all
    branches but two, these are one branch from then on. What has no fork is not a branch, and stays.
    """
    branch, ends = _branches(len(piece.vertices), piece.edges)
    lengths = np.bincount(branch, edge_lengths(piece, voxel_size)).astype(np.float64)
    cut = _cut_ticks(ends, lengths, tick)
    if not cut.any():
        return piece
    edges = piece.edges[~cut[branch]]
    keep = np.bincount(piece.edges.ravel(), minlength=len(piece.vertices)) == 0
    keep[edges.ravel()] = True
    return piece.subset(keep, edges)


def _branches(vertices: int, edges: Edges) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return the number of each edge's branch, and the two vertices (ends or forks) of each branch, shape (n, 2).

    Edges that share a vertex of no other edge are of one branch.
    """
    degree = np.bincount(edges.ravel(), minlength=vertices)
    flat = edges.ravel().astype(np.int64)
    inner = degree[flat] == 2
    of_edge, through = np.arange(2 * len(edges))[inner] // 2, flat[inner]
    order = np.argsort(through, kind="stable")
    pairs = of_edge[order].reshape(-1, 2)
    branch = components(len(edges), pairs)
    outer = ~inner
    holders, tips = branch[np.arange(2 * len(edges))[outer] // 2], flat[outer]
    order = np.argsort(holders, kind="stable")
    return branch, tips[order].reshape(-1, 2)


def _cut_ticks(ends: npt.NDArray[np.int64], lengths: Lengths, tick: float) -> npt.NDArray[np.bool_]:
    """Return which branches of a forest are cut.

    Branches that have become one are a chain: all are cut with it.
    """
    at: dict[int, set[int]] = {}
    for number, pair in enumerate(ends.tolist()):
        for vertex in pair:
            at.setdefault(vertex, set()).add(number)
    chains = {number: [number] for number in range(len(ends))}
    tips = {number: tuple(pair) for number, pair in enumerate(ends.tolist())}
    length = dict(enumerate(lengths.tolist()))
    queue: list[tuple[float, int]] = []

    def offer(number: int) -> None:
        a, b = (len(at[vertex]) for vertex in tips[number])
        if length[number] < tick and min(a, b) == 1 < max(a, b):
            heapq.heappush(queue, (length[number], number))

    for number in range(len(ends)):
        offer(number)
    cut = np.zeros(len(ends), bool)
    while queue:
        size, number = heapq.heappop(queue)
        if number not in length or length[number] != size:
            continue
        a, b = tips[number]
        if min(len(at[a]), len(at[b])) != 1 or max(len(at[a]), len(at[b])) == 1:
            continue
        cut[chains.pop(number)] = True
        del length[number]
        for vertex in (a, b):
            at[vertex].discard(number)
        fork = a if at[a] else b
        if len(at[fork]) == 2:
            first, second = sorted(at[fork], key=lambda n: (-len(chains[n]), n))
            outer = [v for n in (first, second) for v in tips[n] if v != fork]
            chains[first] += chains.pop(second)
            length[first] += length.pop(second)
            tips[first] = (outer[0], outer[1])
            at[outer[1]].discard(second)
            at[outer[1]].add(first)
            at[fork].clear()
            offer(first)
    return cut


def retrace(piece: Piece, tracing: Tracing, faces: npt.NDArray[np.uint8]) -> Piece:
    """Return the forest of paths that cover a joined skeleton, which may have loops, and has radii (nm).

    `faces` has a bit for each face of the volume on which an end lies, shape (n,); to such ends there is always a path.
    """
    if not len(piece.edges):
        return piece
    required = _one_per_patch(piece, faces, tracing)
    component = components(len(piece.vertices), piece.edges)
    lengths = edge_lengths(piece, tracing.anisotropy)
    distance, before = _from_roots(piece, component, lengths)
    cover = _Cover(piece, lengths, tracing)
    kept = before < 0
    shortcuts = _Shortcuts(piece, component, tracing)
    order = np.lexsort((-distance, ~required))
    for vertex in order.tolist():
        if kept[vertex] or (cover.left[vertex] >= 0 and not required[vertex]):
            continue
        path = [vertex]
        while not kept[path[-1]]:
            path.append(int(before[path[-1]]))
        path = shortcuts.taken(path, distance, before, kept)
        kept[path] = True
        cover.add(path)
    ends = np.flatnonzero(kept & (before >= 0))
    edges = np.sort(np.stack([ends, before[ends]], axis=1), axis=1).astype(np.uint32)
    return piece.subset(kept, edges[np.lexsort(edges.T[::-1])])


def _one_per_patch(piece: Piece, faces: npt.NDArray[np.uint8], tracing: Tracing) -> npt.NDArray[np.bool_]:
    """Return which ends on the faces of the volume stand for a patch in which the object meets a face.

    Blocks that share a patch have an end each. Balls that an object holds around ends of two patches do not touch; of
    ends whose balls do, only that with the largest is taken.
    """
    from scipy.spatial import cKDTree

    chosen = np.zeros(len(faces), bool)
    ends = np.flatnonzero(faces)
    if not len(ends):
        return chosen
    ends = ends[np.argsort(-piece.attributes["radius"][ends], kind="stable")]
    radius = piece.attributes["radius"][ends].astype(np.float64)
    places = piece.vertices[ends] * np.array(tracing.anisotropy)
    tree: Any = cKDTree(places)
    waiting = np.ones(len(ends), bool)
    for number, end in enumerate(ends.tolist()):
        if waiting[number]:
            chosen[end] = True
            near = np.array(tree.query_ball_point(places[number], _WIDER * 2 * radius[number]), np.int64)
            touch = np.linalg.norm(places[near] - places[number], axis=1) <= radius[near] + radius[number]
            waiting[near[touch & (faces[ends[near]] & faces[end] > 0)]] = False
    return chosen


def _from_roots(
    piece: Piece, component: npt.NDArray[np.int32], lengths: Lengths
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the distance (nm) of every vertex from the root of its component, and the vertex before it; -1 at roots.

    A root is an end of its component: the vertex that is the farthest from its first one.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    count = len(piece.vertices)
    a, b = piece.edges.astype(np.int64).T
    graph = coo_array((lengths, (a, b)), shape=(count, count)).tocsr()
    first = np.unique(component, return_index=True)[1]
    far = dijkstra(graph, directed=False, indices=first, min_only=True)
    order = np.lexsort((far, component))
    roots = order[np.append(np.flatnonzero(np.diff(component[order])), count - 1)]
    distance, found, _ = dijkstra(graph, directed=False, indices=roots, min_only=True, return_predecessors=True)
    before: npt.NDArray[np.int64] = np.maximum(found, -1).astype(np.int64)
    return np.asarray(distance, np.float64), before


class _Shortcuts:
    """Straight ways to a kept path through the balls that the object holds around vertices."""

    def __init__(self, piece: Piece, component: npt.NDArray[np.int32], tracing: Tracing) -> None:
        from scipy.spatial import cKDTree

        self._places = piece.vertices * np.array(tracing.anisotropy)
        self._tree: Any = cKDTree(self._places)
        self._component = component
        self._radius = piece.attributes["radius"].astype(np.float64)

    def taken(
        self,
        path: list[int],
        distance: npt.NDArray[np.float64],
        before: npt.NDArray[np.int64],
        kept: npt.NDArray[np.bool_],
    ) -> list[int]:
        """Return a path to a kept vertex, cut short by the first straight way that saves a part of what is left of it.

        `distance` is that of every vertex from the root (nm), `before` the vertex before it, changed where such a way
        begins.
        """
        for number, vertex in enumerate(path[:-1]):
            near, away = self._nearest(vertex, kept)
            if away < _SAVING * (distance[vertex] - distance[path[-1]]):
                before[vertex] = near
                return [*path[: number + 1], near]
        return path

    def _nearest(self, vertex: int, kept: npt.NDArray[np.bool_]) -> tuple[int, float]:
        """Return the nearest kept vertex that a vertex holds in its ball and is held by, and how far it is away."""
        near = np.array(self._tree.query_ball_point(self._places[vertex], self._radius[vertex]), np.int64)
        near = near[kept[near] & (self._component[near] == self._component[vertex])]
        away = np.linalg.norm(self._places[near] - self._places[vertex], axis=1)
        held = away <= self._radius[near]
        if not held.any():
            return -1, np.inf
        best = int(away[held].argmin())
        return int(near[held][best]), float(away[held][best])


class _Cover:
    """Which vertices lie around a path: no farther along the graph than a path vertex reaches."""

    def __init__(self, piece: Piece, lengths: Lengths, tracing: Tracing) -> None:
        from scipy.sparse import coo_array

        a, b = piece.edges.astype(np.int64).T
        count = len(piece.vertices)
        graph = coo_array((np.tile(lengths, 2), (np.append(a, b), np.append(b, a))), shape=(count, count)).tocsr()
        self._starts, self._ends = graph.indptr.tolist(), graph.indices.tolist()
        self._lengths = graph.data.tolist()
        radius = piece.attributes["radius"].astype(np.float64)
        soma = radius > tracing.soma_acceptance
        scale = np.where(soma, tracing.soma_scale, tracing.scale)
        self._reach = (scale * radius + np.where(soma, tracing.soma_const, tracing.const)).tolist()
        self.left = [-1.0] * count

    def add(self, path: list[int]) -> None:
        """Cover what lies around the vertices of a path."""
        queue = [(-self._reach[vertex], vertex) for vertex in path]
        heapq.heapify(queue)
        while queue:
            left, vertex = heapq.heappop(queue)
            if -left <= self.left[vertex]:
                continue
            self.left[vertex] = -left
            for place in range(self._starts[vertex], self._starts[vertex + 1]):
                rest = -left - self._lengths[place]
                if rest > max(self.left[self._ends[place]], 0.0):
                    heapq.heappush(queue, (-rest, self._ends[place]))
