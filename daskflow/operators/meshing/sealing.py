"""Surfaces in which every edge is of two triangles, as edge collapse does not leave them."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np

from daskflow.operators.meshing.surface import Faces, Points
from daskflow.stores.objects.mesh_files import weld


def without_coincident(faces: Faces) -> Faces:
    """Return triangles without those of which another is the back side."""
    corners = np.sort(faces, axis=1)
    order = np.lexsort(corners.T)
    first = np.ones(len(faces), bool)
    first[1:] = (corners[order][1:] != corners[order][:-1]).any(axis=1)
    if first.all():
        return faces
    group = np.empty(len(faces), np.int64)
    group[order] = np.cumsum(first) - 1
    a, b, c = faces.astype(np.int64).T
    turns = np.sign(b - a) * np.sign(c - b) * np.sign(a - c)
    cancelled = (np.bincount(group, turns) == 0) & (np.bincount(group) > 1)
    left: Faces = faces[~cancelled[group]]
    return left


def sealed(vertices: Points, faces: Faces) -> tuple[Points, Faces]:
    """Return a surface of which no edge is of four triangles or more: such are divided, each pair elsewhere.

    Where sheets touch along an edge, two and two of its triangles get a vertex of their own on it: nothing moves.
    """
    vertices, faces = weld(vertices, faces)
    faces = without_coincident(faces)
    ends = np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2)
    keys = np.sort(ends, axis=1).astype(np.int64) @ np.array([1 << 32, 1])
    unique, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    if not len(counts) or counts.max() <= 2:
        return vertices, faces
    crowded = (counts[inverse] > 2).reshape(-1, 3).any(axis=1)
    triangles = dict(enumerate(faces[crowded].tolist()))
    of_vertex: dict[int, set[int]] = defaultdict(set)
    for number, corners in triangles.items():
        for corner in corners:
            of_vertex[corner].add(number)
    added, names = list[Points](), itertools.count(len(triangles))
    for key in unique[counts > 2].tolist():
        u, v = key >> 32, key & 0xFFFFFFFF
        members = sorted(of_vertex[u] & of_vertex[v])
        there = [n for n in members if triangles[n][(triangles[n].index(u) + 1) % 3] == v]
        back = [n for n in members if n not in there]
        pairs = list(zip(there, back, strict=False))
        for turn, pair in enumerate(pairs, 1):
            middle = len(vertices) + len(added)
            added.append(vertices[u] + (vertices[v] - vertices[u]) * (turn / (len(pairs) + 1)))
            for number in pair:
                corners = triangles.pop(number)
                for corner in corners:
                    of_vertex[corner].discard(number)
                for end in (u, v):
                    other = [middle if corner == end else corner for corner in corners]
                    name = next(names)
                    triangles[name] = other
                    for corner in other:
                        of_vertex[corner].add(name)
    divided = np.array(list(triangles.values()), np.uint32).reshape(-1, 3)
    return np.concatenate([vertices, np.array(added)]), np.concatenate([faces[~crowded], divided])
