"""Meshes and skeletons as a notebook shows them: seen along their shortest side, drawn with numpy alone."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.stores.figure import Pixels, encode_png, png_figure

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.integer[Any]]

SIDE = 256
_FINE = 2  # times larger than shown, to be averaged
_PER_PIXEL = 4
_DARKEST, _BRIGHTEST = 40, 190
_ADDEND = (0.7548776662, 0.5698402910)  # of the R2 sequence, which covers a triangle evenly


def figure(title: str, vertices: Floats, faces: Indices, edges: Indices) -> str:
    """Return a title over a picture of triangles and lines; of nothing, the title alone."""
    if not len(faces) and not len(edges):
        return escape(title)
    order = _broadside(vertices)
    right, down = ("xyz"[axis] for axis in order[:2])
    width = np.ptp(vertices[:, order[0]])
    caption = f"{right} to the right, {down} down, {width:,.0f} nm across"
    return f"<div>{escape(title)}{png_figure(encode_png(drawn(vertices, faces, edges)), caption)}</div>"


def drawn(vertices: Floats, faces: Indices, edges: Indices) -> Pixels:
    """Return grey pixels (y, x) of triangles, bright where they face the eye, and of lines, black, on white.

    Args:
        vertices: positions, shape (n, 3).
        faces: three vertices of each triangle, shape (m, 3).
        edges: two vertices of each line, shape (m, 2).
    """
    order = _broadside(vertices)
    seen = vertices[:, order] - vertices[:, order].min(axis=0)
    scale = (SIDE * _FINE - 3 * _FINE) / max(float(seen[:, 0].max()), 1e-9)
    seen = seen * scale + _FINE
    height, width = (int(np.ceil(seen[:, axis].max())) + _FINE for axis in (1, 0))
    points, grey = _on_triangles(seen, faces)
    nearest = np.argsort(-points[:, 2], kind="stable")
    page = np.full((height + height % _FINE, width + width % _FINE), 255.0)
    page[tuple(points[nearest, 1::-1].astype(int).T)] = grey[nearest]
    for step in np.ndindex(_FINE, _FINE):
        page[tuple((_on_lines(seen, edges)[:, 1::-1] + step).astype(int).T)] = 0
    small = page.reshape(len(page) // _FINE, _FINE, -1, _FINE).mean(axis=(1, 3))
    pixels: Pixels = np.rint(small).astype(np.uint8)
    return pixels


def _broadside(vertices: Floats) -> list[int]:
    """Return the axes from the longest to the shortest side."""
    return [int(axis) for axis in np.argsort(-np.ptp(vertices, axis=0), kind="stable")]


def _on_triangles(vertices: Floats, faces: Indices) -> tuple[Floats, Floats]:
    """Return points that cover triangles, and how bright each is."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    upright = np.cross(b - a, c - a)
    counts = np.ceil(np.abs(upright[:, 2]) / 2 * _PER_PIXEL).astype(int) + 1
    normals = np.zeros_like(vertices)
    np.add.at(normals, faces, upright[:, None])
    na, nb, nc = (normals[faces[:, corner]] for corner in range(3))
    face = np.repeat(np.arange(len(faces)), counts)
    number = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
    u, v = (((number + 1) * addend % 1)[:, None] for addend in _ADDEND)
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    points = a[face] + u * (b - a)[face] + v * (c - a)[face]
    normal = na[face] + u * (nb - na)[face] + v * (nc - na)[face]
    facing = np.abs(normal[:, 2]) / np.maximum(np.linalg.norm(normal, axis=1), 1e-9)
    return points, _DARKEST + (_BRIGHTEST - _DARKEST) * facing


def _on_lines(vertices: Floats, edges: Indices) -> Floats:
    """Return points half a pixel apart on lines."""
    a, b = (vertices[edges[:, end]] for end in range(2))
    counts = np.ceil(2 * np.linalg.norm((b - a)[:, :2], axis=1)).astype(int) + 1
    edge = np.repeat(np.arange(len(edges)), counts)
    number = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    points: Floats = a[edge] + (number / np.repeat(counts, counts))[:, None] * (b - a)[edge]
    return points
