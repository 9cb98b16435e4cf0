"""One numbering for the whole volume, from the components of all blocks and the pairs that are one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError


def number_components(
    firsts: npt.NDArray[np.int64],
    pairs: npt.NDArray[np.int64],
    dtype: np.dtype[Any],
    sizes: npt.NDArray[np.int64] | None = None,
    dust: int = 0,
) -> tuple[npt.NDArray[Any], int]:
    """Number components 1 to n as their first voxels come in C order (zyx) in the whole volume.

    Args:
        firsts: C-order index of the first voxel of every part of a component, shape (parts,).
        pairs: parts that belong together, shape (k, 2), indices into `firsts`.
        dtype: of the numbers.
        sizes: voxels of every part, needed with `dust`.
        dust: components of fewer voxels get no number.

    Returns:
        The number of each part's component, 0 for dust; and n.

    Raises:
        ParameterError: the dtype cannot hold n.
    """
    leader = leaders(firsts, pairs)
    leads = leader == np.arange(len(firsts))
    if dust and sizes is not None:
        voxels = np.zeros(len(firsts), np.int64)
        np.add.at(voxels, leader, sizes)
        leads &= voxels >= dust
    kept = np.flatnonzero(leads)
    if len(kept) > np.iinfo(dtype).max:
        raise ParameterError(
            f"there are {len(kept):,} components, and {dtype} holds {np.iinfo(dtype).max:,};"
            " delete the output and leave dtype= out, or pass dtype='uint64'"
        )
    rank = np.zeros(len(firsts), dtype)
    rank[kept[np.argsort(firsts[kept])]] = np.arange(1, len(kept) + 1, dtype=dtype)
    return rank[leader], len(kept)


def leaders(firsts: npt.NDArray[np.int64], pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return, for every part, which of the parts that it belongs together with begins first.

    Args:
        firsts: C-order index of the first voxel of every part, shape (parts,).
        pairs: parts that belong together, shape (k, 2), indices into `firsts`.
    """
    leader = np.arange(len(firsts), dtype=np.int64)
    if len(pairs):
        parts, ends = np.unique(pairs, return_inverse=True)
        order = np.argsort(firsts[parts])
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        leader[parts] = parts[order[earliest(len(parts), place[ends.reshape(-1, 2)])]][place]
    return leader


def earliest(count: int, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the lowest of the numbers 0 to `count` - 1 that each is joined with, over any chain of `pairs`.

    Every round hangs roots on lower ones that they are joined with, and then everything on its root.
    """
    root = np.arange(count, dtype=np.int64)
    a, b = pairs.T
    while len(a):
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        apart = low != high
        a, b = a[apart], b[apart]
        np.minimum.at(root, high[apart], low[apart])
        while True:
            above = root[root]
            if np.array_equal(above, root):
                break
            root = above
    return root
