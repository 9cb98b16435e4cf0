"""One skeleton from the pieces of a label that neighbouring blocks share voxels of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox
from daskflow.operators.objects.skeletonize.pieces import Attributes, Piece

_REDUCED = {"radius": np.minimum, "cross_sectional_area": np.maximum}
_BITS = 21


def join_pieces(pieces: Sequence[Piece]) -> Piece:
    """Return the pieces as one, the vertices that lie on the same voxel welded.

    Where blocks meet each sees a part of the object, so that a distance to its surface is at most the smaller and an
    area at least the larger of what they found; of other attributes the larger is taken. Vertices and edges are sorted,
    so that pieces in any order give the same arrays.
    """
    places = np.concatenate([np.zeros((0, 3), np.int32), *(piece.vertices for piece in pieces)])
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)], dtype=np.int64)
    edges = np.concatenate(
        [np.zeros((0, 2), np.int64), *(piece.edges + start for piece, start in zip(pieces, starts, strict=False))]
    )
    order = _sorted_order(places)
    places = places[order]
    first = np.ones(len(places), bool)
    first[1:] = (places[1:] != places[:-1]).any(axis=1)
    group = np.empty(len(places), np.int64)
    group[order] = np.cumsum(first) - 1
    names = pieces[0].attributes if pieces else {}
    attributes: Attributes = {}
    for name in names:
        values = np.concatenate([piece.attributes[name] for piece in pieces])[order]
        reduced = _REDUCED.get(name, np.maximum)
        attributes[name] = reduced.reduceat(values, np.flatnonzero(first)) if len(values) else values
    return Piece(places[first], unique_edges(group[edges]), attributes)


def unique_edges(edges: npt.NDArray[np.integer]) -> npt.NDArray[np.uint32]:
    """Return each edge once, its lower vertex first, sorted; without those from a vertex to itself."""
    edges = np.sort(edges.reshape(-1, 2).astype(np.uint64), axis=1)
    edges = edges[edges[:, 0] != edges[:, 1]]
    keys = np.unique(edges[:, 0] << np.uint64(32) | edges[:, 1])
    found = np.empty((len(keys), 2), np.uint32)
    found[:, 0] = keys >> np.uint64(32)
    found[:, 1] = keys & np.uint64(2**32 - 1)
    return found


def components(vertices: int, edges: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """Return the number of each vertex's component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(edges), np.bool_)
    graph = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(vertices, vertices))
    found: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return found


def _sorted_order(places: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """Return what sorts places by x, then y, then z; those that span few voxels as one number each."""
    if not len(places):
        return np.zeros(0, np.intp)
    low = places.min(axis=0).astype(np.int64)
    if (places.max(axis=0) - low < 2**_BITS).all():
        x, y, z = (places[:, axis].astype(np.int64) - low[axis] for axis in range(3))
        return np.argsort(x << 2 * _BITS | y << _BITS | z, kind="stable")
    return np.lexsort((places[:, 2], places[:, 1], places[:, 0]))


def without_shared_sheets(piece: Piece, block: BoundingBox, whole: BoundingBox) -> Piece:
    """Return the piece of a block without components that the next block has anyway.

    A block is traced with one voxel more on its high sides, which the next block begins with. What lies in one such
    sheet of voxels alone is only kept where it also reaches another side of the block, as the pieces of three or four
    blocks may meet in it.

    Args:
        piece: of the block and the sheets on its high sides.
        block: zyx.
        whole: the volume, by whose first voxel vertices are counted.
    """
    first = np.array([a - o for a, o in zip(block.start, whole.start, strict=True)][::-1])
    last = np.array([b - o for b, o in zip(block.stop, whole.start, strict=True)][::-1])
    inner_high = np.array([b < o for b, o in zip(block.stop, whole.stop, strict=True)][::-1])
    inner_low = np.array([a > o for a, o in zip(block.start, whole.start, strict=True)][::-1])
    high = (piece.vertices == last) & inner_high
    if not high.any():
        return piece
    low = (piece.vertices == first) & inner_low
    component = components(len(piece.vertices), piece.edges)
    count = int(component.max()) + 1
    sheet = np.zeros(count, bool)
    for axis in range(3):
        others = (high | low)[:, [other for other in range(3) if other != axis]].any(axis=1)
        outside = np.bincount(component, ~high[:, axis], minlength=count) > 0
        meeting = np.bincount(component, others, minlength=count) > 0
        sheet |= ~outside & ~meeting
    keep = ~sheet[component]
    return piece.subset(keep, piece.edges[keep[piece.edges[:, 0]]])
