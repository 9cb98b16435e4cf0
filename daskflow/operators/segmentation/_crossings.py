"""The compiled loop that finds where fragments touch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.operators._compiled import kept

Array = npt.NDArray[Any]


@kept
def crossings(affinities: Array, fragments: Array, low: tuple[int, int, int]) -> tuple[Array, Array]:
    """Return the edges, from the voxels of a block to the ones before, at which a fragment touches another.

    Args:
        affinities: uint16, (3, z, y, x), as `_affinities.edges` has them.
        fragments: numbers of the fragments, uint32 below 2^31, with `low` more voxels (zyx) before the block; 0 is
            none.
        low: 1 on axes where the block has neighbours before it, else 0.

    Returns:
        Of each edge, in the order of voxels, the two numbers and the axis in 64 bits, the larger number first, and the
        affinity.
    """
    _, depth, height, width = affinities.shape
    room = 3 * width * height
    keys, values = np.empty(4 * room, np.uint64), np.empty(4 * room, np.uint16)
    found = 0
    for z in range(depth):
        if found + room > len(keys):
            keys = np.concatenate((keys, np.empty(len(keys), np.uint64)))
            values = np.concatenate((values, np.empty(len(values), np.uint16)))
        for y in range(height):
            for x in range(width):
                k, j, i = z + low[0], y + low[1], x + low[2]
                here = fragments[k, j, i]
                if here == 0:
                    continue
                for axis in range(3):
                    if (k, j, i)[axis] == 0:
                        continue
                    there = fragments[k - (axis == 0), j - (axis == 1), i - (axis == 2)]
                    if there != 0 and there != here:
                        larger, smaller = np.uint64(max(here, there)), np.uint64(min(here, there))
                        keys[found] = larger << np.uint64(33) | smaller << np.uint64(2) | np.uint64(axis)
                        values[found] = affinities[axis, z, y, x]
                        found += 1
    return keys[:found], values[:found]
