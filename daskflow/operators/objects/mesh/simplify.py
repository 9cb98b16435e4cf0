"""Fewer triangles, within a distance: quadric edge collapse that leaves borders alone."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import MissingDependencyError
from daskflow.operators.objects.mesh.seal import sealed, without_coincident
from daskflow.operators.objects.mesh.surface import Faces, Points, extent, used

Near = npt.NDArray[np.float32]

# A collapse costs the sum of squared distances to the planes that were collapsed so far, and there are more of them the
# farther it goes; benchmarks/simplify.py measures how far surfaces move when collapses up to some cost are done.
_COST = 12.0
_GROWTH = 1.6
_PASSES = 8
_STEEPNESS = 3
_FINEST = 0.68
_SMALL = 32
_LEAST = 4
_SNAP = 1e-3
_NEAR = 2.0**17  # in squared distances of the farthest vertex over the cost: float32 is off by 1 % of the cost at most
_one_at_a_time = threading.Lock()  # pyfqmr 0.5 keeps the mesh in global variables, and lets go of Python's lock


def simplify(
    vertices: Points,
    faces: Faces,
    max_error: float,
    voxel_size: tuple[float, float, float],
    *,
    unit: float = 1.0,
    origin: npt.NDArray[np.float64] | None = None,
) -> tuple[Points, Faces]:
    """Return a surface of fewer triangles that stays close to the one given.

    The border of an open surface stays, vertex for vertex, so that pieces of a surface that are simplified one by one
    still fit. No piece vanishes: those of up to 32 triangles stay as they are, and those that would collapse are
    simplified less.

    Args:
        vertices: in voxels, or parts of them (xyz), shape (n, 3).
        faces: shape (m, 3).
        max_error: nm that the surface may move; 99.9 % of it stays within.
        voxel_size: nm (zyx).
        unit: voxels that 1 stands for in `vertices`, e.g. 0.5.
        origin: of the float32 numbers in which it is done (xyz), the middle unless given; surfaces that shall fit
            though their borders are not on whole numbers need the same one.

    Returns:
        Vertices, float64, and triangles.
    """
    if max_error <= 0 or (len(faces) <= _SMALL and origin is None):
        return vertices, faces
    size = unit * np.array(voxel_size[::-1])
    first = np.floor(np.mean(extent(vertices), axis=0)) if origin is None else origin
    cost = _COST * max_error**2 * (max_error / max(voxel_size)) ** _GROWTH
    near = ((vertices - first) * size).astype(np.float32)
    small, large = _pieces(len(near), faces)
    if len(large) == 1 and not len(small):
        parts = [_fewer(near, faces, cost)]
    else:
        parts = [used(near, small), *(_fewer(*used(near, piece), cost) for piece in large)]
    starts = np.cumsum([0, *(len(points) for points, _ in parts)])
    points = np.concatenate([points for points, _ in parts]).astype(np.float64) / size
    whole = np.rint(points)
    points = np.where(np.abs(points - whole) < _SNAP, whole, points) + first
    return sealed(points, np.concatenate([f + np.uint32(s) for (_, f), s in zip(parts, starts[:-1], strict=True)]))


def finest_error(max_error: float, voxel_size: tuple[float, float, float]) -> float:
    """Return how far, in nm, to go at the finest level, so that objects keep their volume: less than one may."""
    voxel = max(voxel_size)
    return float(_FINEST * min(max_error, voxel * (max_error / voxel) ** 0.2))


def _pieces(vertices: int, faces: Faces) -> tuple[Faces, list[Faces]]:
    """Return the triangles of all small connected pieces of a surface, and those of each larger one."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    rows = np.zeros(vertices + len(faces) + 1, np.int32)  # none of a vertex, and behind them those of the triangles
    rows[vertices:] = np.arange(0, faces.size + 1, 3)
    links = csr_array((np.ones(faces.size), faces.reshape(-1).view(np.int32), rows), shape=(len(rows) - 1,) * 2)
    count, pieces = connected_components(links, directed=False)
    if count == 1 and len(faces) > _SMALL:
        return faces[:0], [faces]
    piece = pieces[vertices:].astype(np.min_scalar_type(count))  # small numbers are sorted faster
    sizes = np.bincount(piece, minlength=count)
    order = np.argsort(piece, kind="stable")
    stops = np.cumsum(sizes)
    large = np.flatnonzero(sizes > _SMALL).tolist()
    return faces[sizes[piece] <= _SMALL], [faces[order[stops[one] - sizes[one] : stops[one]]] for one in large]


def _fewer(vertices: Near, faces: Faces, cost: float) -> tuple[Near, Faces]:
    """Return a connected surface simplified, less or not at all where it would vanish."""
    for allowed in (cost, cost / 64):
        points, triangles = _collapsed(vertices, faces, allowed)
        triangles = without_coincident(triangles)
        if len(triangles) >= _LEAST:
            return points, triangles
    return vertices, faces


def _collapsed(vertices: Near, faces: Faces, cost: float) -> tuple[Near, Faces]:
    how = {
        "target_count": _LEAST,
        "update_rate": 1,
        "aggressiveness": _STEEPNESS,
        "max_iterations": _PASSES,
        "alpha": cost / _PASSES**_STEEPNESS,
        "K": 1,
        "preserve_border": True,
    }
    try:
        farthest = np.abs(extent(vertices)).max(axis=0).astype(np.float64)
        if farthest @ farthest > _NEAR * cost:
            return _by_pyfqmr(vertices, faces, how)
        return _by_zmesh(vertices, faces, how)
    except ImportError as error:
        raise MissingDependencyError.of(str(error.name), "mesh") from error


def _by_zmesh(vertices: Near, faces: Faces, how: dict[str, Any]) -> tuple[Near, Faces]:
    """Return a surface simplified in float32, faster by a third.

    zmesh (1.15) forgets that a vertex is on a border when it comes to a later one that is not. So every border gets
    triangles of which one vertex is of no other and comes last; they stay, and are taken off again.
    """
    import zmesh

    border = _border(len(vertices), faces)
    more = -(-len(border) // 2)
    pairs = np.resize(border, (more, 2)).astype(np.uint32)
    tips = np.arange(len(vertices), len(vertices) + more, dtype=np.uint32)
    fenced = zmesh.Mesh(
        np.concatenate([vertices, vertices[pairs[:, 0]]]), np.concatenate([faces, np.column_stack([pairs, tips])])
    )
    left = zmesh.simplify_fqmr(fenced, **how)
    return left.vertices[: len(left.vertices) - more], left.faces[: len(left.faces) - more]


def _border(vertices: int, faces: Faces) -> npt.NDArray[np.int64]:
    """Return the vertices on edges of a single triangle.

    Around any other, each neighbour is the next one as often as the one before: numbers of neighbours cancel out.
    """
    numbers = np.random.default_rng(0).integers(1, 2**40, vertices).astype(np.float64)[faces]  # sums are exact
    turns = numbers[:, [1, 2, 0]] - numbers[:, [2, 0, 1]]
    return np.flatnonzero(np.bincount(faces.reshape(-1), turns.reshape(-1), minlength=vertices))


def _by_pyfqmr(vertices: Near, faces: Faces, how: dict[str, Any]) -> tuple[Near, Faces]:
    """Return a surface simplified in float64."""
    import pyfqmr

    with _one_at_a_time:
        mesh: Any = pyfqmr.Simplify()
        mesh.setMesh(vertices, faces)
        mesh.simplify_mesh(verbose=0, **how)
        points, triangles, _ = mesh.getMesh()
    return points.astype(np.float32), triangles.astype(np.uint32)
