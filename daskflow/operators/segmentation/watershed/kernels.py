"""Compiled loops of the watershed of a block."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.operators._compiled import compiled, kept

Array = npt.NDArray[Any]

_NONE = np.uint8(6)


@compiled
def _best_edges(edges: Array, low: int) -> Array:
    """Return of each voxel which of its edges is best: 0, 1, 2 to the one before in z, y, x, 3, 4, 5 after in x, y, z.

    Of equal ones it is the first in that order, which is the order of edges in the volume: by voxel, then axis. 6 is
    none above `low`.
    """
    _, depth, height, width = edges.shape
    best = np.empty((depth, height, width), np.uint8)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                most, at = low, _NONE
                if edges[0, z, y, x] > most:
                    most, at = int(edges[0, z, y, x]), np.uint8(0)
                if edges[1, z, y, x] > most:
                    most, at = int(edges[1, z, y, x]), np.uint8(1)
                if edges[2, z, y, x] > most:
                    most, at = int(edges[2, z, y, x]), np.uint8(2)
                if x + 1 < width and edges[2, z, y, x + 1] > most:
                    most, at = int(edges[2, z, y, x + 1]), np.uint8(3)
                if y + 1 < height and edges[1, z, y + 1, x] > most:
                    most, at = int(edges[1, z, y + 1, x]), np.uint8(4)
                if z + 1 < depth and edges[0, z + 1, y, x] > most:
                    most, at = int(edges[0, z + 1, y, x]), np.uint8(5)
                best[z, y, x] = at
    return best


@compiled
def _root(parents: Array, voxel: int) -> int:
    while parents[voxel] != voxel:
        parents[voxel] = parents[parents[voxel]]
        voxel = parents[voxel]
    return int(voxel)


@compiled
def _join(parents: Array, one: int, other: int) -> None:
    one, other = _root(parents, one), _root(parents, other)
    parents[max(one, other)] = min(one, other)


@kept
def basins(
    edges: Array, before: tuple[int, int, int], shape: tuple[int, int, int], low: int, high: int
) -> tuple[Array, Array, Array, Array, Array]:
    """Return the basins of a block: components of its voxels over edges that are best for one of their ends, or high.

    Args:
        edges: uint16, (3, z, y, x), affinities to the voxel before, 0 where that is outside the volume; with a voxel
            more on each side of the block wherever the volume has one.
        before: how many lie before the block (zyx).
        shape: of the block, which has fewer than 2^31 voxels.
        low: only edges above it count.
        high: edges of at least this count always.

    Returns:
        The basin of each voxel, uint32, numbered from 1 in the order of their first voxels, 0 being none; the C-order
        index of these first voxels; and of the block's low faces (z, y, x), which of the edges across them count.
    """
    best = _best_edges(edges, low)
    depth, height, width = shape
    parents = np.arange(depth * height * width, dtype=np.int32)
    faces = (
        np.zeros((height, width), np.bool_),
        np.zeros((depth, width), np.bool_),
        np.zeros((depth, height), np.bool_),
    )
    voxel = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                k, j, i = z + before[0], y + before[1], x + before[2]
                here = best[k, j, i]
                if edges[0, k, j, i] > low and (edges[0, k, j, i] >= high or here == 0 or best[k - 1, j, i] == 5):
                    if z:
                        _join(parents, voxel, voxel - height * width)
                    else:
                        faces[0][y, x] = True
                if edges[1, k, j, i] > low and (edges[1, k, j, i] >= high or here == 1 or best[k, j - 1, i] == 4):
                    if y:
                        _join(parents, voxel, voxel - width)
                    else:
                        faces[1][z, x] = True
                if edges[2, k, j, i] > low and (edges[2, k, j, i] >= high or here == 2 or best[k, j, i - 1] == 3):
                    if x:
                        _join(parents, voxel, voxel - 1)
                    else:
                        faces[2][z, y] = True
                voxel += 1
    labels = np.zeros(shape, np.uint32)
    named = labels.reshape(-1)
    firsts = np.empty(1024, np.int64)
    count = voxel = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if parents[voxel] != voxel:  # a voxel before it, which is named
                    named[voxel] = named[parents[voxel]]
                elif best[z + before[0], y + before[1], x + before[2]] != _NONE:
                    if count == len(firsts):
                        firsts = np.concatenate((firsts, np.empty(count, np.int64)))
                    firsts[count] = voxel
                    count += 1
                    named[voxel] = count
                voxel += 1
    return labels, firsts[:count], faces[0], faces[1], faces[2]
