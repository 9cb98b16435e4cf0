"""Fewer triangles, within a distance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import MissingDependencyError
from daskflow.operators.meshing.surface import Faces

# what meshoptimizer calls error is a mean over planes: the farthest point of a surface ends up about 2.1 times as far
# (benchmarks/simplify.py)
_ERROR_PER_DISTANCE = 0.47
_SMALL = 32
_LEAST = 4


def simplify(vertices: npt.NDArray[Any], faces: Faces, max_error: float) -> Faces:
    """Return triangles between some of the same vertices, fewer of them, that stay close to the surface.

    Vertices at the border of an open surface stay, with the edges between them, so that pieces of a surface that are
    simplified one by one still fit. No piece vanishes: those of up to 32 triangles stay as they are, and those that
    would collapse are simplified less.

    Args:
        vertices: positions, shape (n, 3).
        faces: shape (m, 3).
        max_error: how far the surface may move, in the unit of the positions.

    Returns:
        Triangles, uint32, shape (k, 3).
    """
    if len(faces) <= _SMALL or max_error <= 0:
        return faces
    # counted from the middle, as float32 is fine only near 0
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    near = np.ascontiguousarray(vertices - (low + high) / 2, np.float32)
    count, pieces = _pieces(len(vertices), faces)
    if count == 1:
        simplified = _simplified(near, faces, max_error)
        return simplified if len(simplified) >= _LEAST else faces
    of_face = pieces[faces[:, 0]]
    small = np.bincount(of_face, minlength=count) <= _SMALL
    kept, rest = [faces[small[of_face]]], faces[~small[of_face]]
    for error in (max_error, max_error / 4):
        if not len(rest):
            break
        simplified = _simplified(near, rest, error)
        gone = np.bincount(pieces[simplified[:, 0]], minlength=count) < _LEAST
        kept.append(simplified[~gone[pieces[simplified[:, 0]]]])
        rest = rest[gone[pieces[rest[:, 0]]]]
    return np.concatenate([*kept, rest])


def _pieces(vertices: int, faces: Faces) -> tuple[int, npt.NDArray[np.int32]]:
    """Return how many connected pieces a surface has, and which each vertex is in."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = np.ones(2 * len(faces), np.int8)
    ends = (np.repeat(faces[:, 0], 2), faces[:, 1:].reshape(-1))
    graph = coo_array((links, ends), shape=(vertices, vertices))
    count, pieces = connected_components(graph, directed=False)
    return int(count), pieces


def _simplified(vertices: npt.NDArray[np.float32], faces: Faces, max_error: float) -> Faces:
    try:
        import meshoptimizer
    except ImportError as error:
        raise MissingDependencyError.of("meshoptimizer", "mesh") from error

    flat = np.ascontiguousarray(faces, np.uint32).reshape(-1)
    result = np.empty_like(flat)
    length = meshoptimizer.simplify(
        result,
        flat,
        vertices,
        target_index_count=0,
        target_error=max_error * _ERROR_PER_DISTANCE,
        options=meshoptimizer.SIMPLIFY_LOCK_BORDER | meshoptimizer.SIMPLIFY_ERROR_ABSOLUTE,
    )
    return result[:length].reshape(-1, 3)
