"""Fewer triangles, within a distance: quadric edge collapse that leaves borders alone."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import MissingDependencyError
from daskflow.operators.objects.mesh.seal import sealed, without_coincident
from daskflow.operators.objects.mesh.surface import Faces, Points

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
        origin: of the float32 numbers in which it is done (xyz), the lowest vertex unless given; surfaces that shall
            fit though their borders are not on whole numbers need the same one.

    Returns:
        Vertices, float64, and triangles.
    """
    if max_error <= 0 or (len(faces) <= _SMALL and origin is None):
        return vertices, faces
    size = unit * np.array(voxel_size[::-1])
    first = np.floor(vertices.min(axis=0)) if origin is None else origin
    cost = _COST * max_error**2 * (max_error / max(voxel_size)) ** _GROWTH
    near = ((vertices - first) * size).astype(np.float32)
    small, large = _pieces(len(near), faces)
    if len(large) == 1 and not len(small):
        parts = [_fewer(near, faces, cost)]
    else:
        parts = [_taken(near, small), *(_fewer(*_taken(near, piece), cost) for piece in large)]
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
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = np.ones(2 * len(faces), np.int8)
    ends = (np.repeat(faces[:, 0], 2), faces[:, 1:].reshape(-1))
    count, pieces = connected_components(coo_array((links, ends), shape=(vertices, vertices)), directed=False)
    if count == 1 and len(faces) > _SMALL:
        return faces[:0], [faces]
    piece = pieces[faces[:, 0]]
    sizes = np.bincount(piece, minlength=count)
    order = np.argsort(piece, kind="stable")
    stops = np.cumsum(sizes)
    large = np.flatnonzero(sizes > _SMALL).tolist()
    return faces[sizes[piece] <= _SMALL], [faces[order[stops[one] - sizes[one] : stops[one]]] for one in large]


def _taken(vertices: Near, faces: Faces) -> tuple[Near, Faces]:
    if 4 * len(faces) < len(vertices):
        used, inverse = np.unique(faces, return_inverse=True)
        return vertices[used], inverse.reshape(-1, 3).astype(np.uint32)
    kept = np.zeros(len(vertices), bool)
    kept[faces] = True
    numbers = np.cumsum(kept, dtype=np.uint32) - np.uint32(1)
    return vertices[kept], numbers[faces]


def _fewer(vertices: Near, faces: Faces, cost: float) -> tuple[Near, Faces]:
    """Return a connected surface simplified, less or not at all where it would vanish."""
    for allowed in (cost, cost / 64):
        points, triangles = _collapsed(vertices, faces, allowed)
        triangles = without_coincident(triangles)
        if len(triangles) >= _LEAST:
            return points, triangles
    return vertices, faces


def _collapsed(vertices: Near, faces: Faces, cost: float) -> tuple[Near, Faces]:
    try:
        import pyfqmr
    except ImportError as error:
        raise MissingDependencyError.of("pyfqmr", "mesh") from error

    with _one_at_a_time:
        mesh: Any = pyfqmr.Simplify()
        mesh.setMesh(vertices, faces)
        mesh.simplify_mesh(
            target_count=_LEAST,
            update_rate=1,
            aggressiveness=_STEEPNESS,
            max_iterations=_PASSES,
            alpha=cost / _PASSES**_STEEPNESS,
            K=1,
            preserve_border=True,
            verbose=0,
        )
        points, triangles, _ = mesh.getMesh()
    return points.astype(np.float32), triangles.astype(np.uint32)
