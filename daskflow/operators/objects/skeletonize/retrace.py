r"""The paths that one block would have found, among those that several blocks have.

Every block ends a path wherever its border cuts an object. Where a fat object is cut, such ends lie far from its
middle, and would stay as branches that the object as a whole does not have. So the joined graph is traced once more by
TEASAR's own rule (Sato et al. 2000): from a root, the path to the farthest vertex that no path covers is kept, until
all are covered.

    blocks      | o---o   |         kept      o-----------o
                |  \      |                   covered: what lies within scale * radius + const of a kept path
                |   +-----|- - -
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.operators.objects.skeletonize.join import components
from daskflow.operators.objects.skeletonize.pieces import Piece
from daskflow.operators.objects.skeletonize.prune import Lengths, edge_lengths
from daskflow.operators.objects.skeletonize.teasar import Tracing

_SAVING = 0.9  # of a way along the graph
_WIDER = 1 + 1e-9  # so that rounding loses no ball that just touches


def retrace(piece: Piece, tracing: Tracing, faces: npt.NDArray[np.uint8]) -> Piece:
    """Return the forest of paths that cover a joined skeleton.

    Args:
        piece: the joined pieces of one label, with a radius for each vertex (nm); may have loops.
        tracing: how blocks were traced.
        faces: of the volume on which an end lies, one bit each, shape (n,); to such ends there is a path in any case.
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

        Args:
            path: its vertices, the last one kept.
            distance: of every vertex from the root (nm).
            before: the vertex before each one, changed where a straight way begins.
            kept: vertices that are kept so far.
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
