"""What is cut from a joined skeleton: loops, components that are too short, and ticks.

The result is a forest: where the pieces of neighbouring blocks close a loop, one edge of it is left out. Lengths are
those of all edges together, in nm.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from daskflow.operators.objects.skeletonize.join import components
from daskflow.operators.objects.skeletonize.pieces import Piece

Edges = npt.NDArray[np.uint32]
Lengths = npt.NDArray[np.float64]


def prune(piece: Piece, voxel_size: Sequence[float], *, shortest: float, tick: float) -> Piece:
    """Return a skeleton without loops, without components below `shortest` and without ticks below `tick`.

    Args:
        piece: pieces that were joined.
        voxel_size: nm, xyz.
        shortest: components with less cable than this are left out, before ticks are cut; nm.
        tick: terminal branches shorter than this are cut, the shortest first; nm.
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
    branches but two, these are one branch from then on. What has no fork is no branch, and stays.
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
