"""What one block knows of one label's skeleton, how that is kept in scratch data, and one skeleton of many pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox
from daskflow.operators.objects._label_objects import damaged, pack_arrays, unpack_arrays

Attributes = dict[str, npt.NDArray[np.float32]]

_REDUCED = {"radius": np.minimum, "cross_sectional_area": np.maximum}
_BITS = 21


@dataclass(frozen=True)
class Piece:
    """Vertices, the edges between them, and a number for each vertex by attribute.

    Vertices lie on voxels, so that those of neighbouring blocks are exactly equal where they meet.

    Attributes:
        vertices: voxels xyz, counted from the volume's first one; int32, shape (n, 3).
        edges: pairs of vertices, by their places; uint32, shape (m, 2).
        attributes: float32, shape (n,), by name.
    """

    vertices: npt.NDArray[np.int32]
    edges: npt.NDArray[np.uint32]
    attributes: Attributes = field(default_factory=dict)

    def subset(self, keep: npt.NDArray[np.bool_], edges: npt.NDArray[np.uint32]) -> Piece:
        """Return it with some of its vertices and with `edges`, which must be between those."""
        places = np.cumsum(keep, dtype=np.uint32) - np.uint32(1)
        kept = {name: values[keep] for name, values in self.attributes.items()}
        return Piece(self.vertices[keep], places[edges].reshape(-1, 2), kept)


def pack_piece(piece: Piece) -> bytes:
    """Return a piece as bytes, attributes in the order of their names."""
    return pack_arrays([piece.vertices, piece.edges, *(piece.attributes[name] for name in sorted(piece.attributes))])


def unpack_piece(data: bytes, names: tuple[str, ...], where: str) -> Piece:
    """Return what `pack_piece` was given of a piece with some attributes; `where` is for the message."""
    forms = [("i4", 3), ("u4", 2), *[("f4", 1)] * len(names)]
    vertices, edges, *values = unpack_arrays(data, forms, where)
    if edges.size and int(edges.max()) >= len(vertices):
        raise damaged(where)
    return Piece(vertices, edges, {name: one[:, 0] for name, one in zip(sorted(names), values, strict=True)})


def join_pieces(pieces: Sequence[Piece]) -> Piece:
    """Return the pieces as one, the vertices that lie on the same voxel welded.

    Where blocks meet each sees a part of the object, so that a distance to its surface is at most the smaller and an
    area at least the larger of what they found; of other attributes the larger is taken. Vertices and edges are sorted,
    so that pieces in any order give the same arrays.
    """
    places = np.concatenate([np.zeros((0, 3), np.int32), *(piece.vertices for piece in pieces)])
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)], dtype=np.int64)
    edges = [np.zeros((0, 2), np.int64), *(piece.edges + start for piece, start in zip(pieces, starts, strict=False))]
    order = _sorted_order(places)
    places = places[order]
    first = np.ones(len(places), bool)
    first[1:] = (places[1:] != places[:-1]).any(axis=1)
    group = np.empty(len(places), np.int64)
    group[order] = np.cumsum(first) - 1
    attributes: Attributes = {}
    for name in pieces[0].attributes if pieces else ():
        values = np.concatenate([piece.attributes[name] for piece in pieces])[order]
        reduced = _REDUCED.get(name, np.maximum)
        attributes[name] = reduced.reduceat(values, np.flatnonzero(first)) if len(values) else values
    return Piece(places[first], unique_edges(group[np.concatenate(edges)]), attributes)


def unique_edges(edges: npt.NDArray[np.integer]) -> npt.NDArray[np.uint32]:
    """Return each edge once, its lower vertex first, sorted; without those from a vertex to itself."""
    edges = np.sort(edges.reshape(-1, 2).astype(np.uint64), axis=1)
    edges = edges[edges[:, 0] != edges[:, 1]]
    keys = np.unique(edges[:, 0] << np.uint64(32) | edges[:, 1])
    return np.stack([keys >> np.uint64(32), keys & np.uint64(2**32 - 1)], axis=1).astype(np.uint32)


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
    blocks may meet in it. Vertices are counted from the first voxel of the volume, `whole`.
    """
    first, last, end = (np.array(place[::-1]) - whole.start[::-1] for place in (block.start, block.stop, whole.stop))
    high = (piece.vertices == last) & (last < end)
    if not high.any():
        return piece
    low = (piece.vertices == first) & (first > 0)
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
