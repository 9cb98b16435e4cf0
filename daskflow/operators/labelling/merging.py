"""One numbering for the whole volume, from the components of all blocks and the pairs that are one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def number_components(
    firsts: npt.NDArray[np.int64], pairs: npt.NDArray[np.int64], dtype: np.dtype[Any]
) -> tuple[npt.NDArray[Any], int]:
    """Number components 1 to n as their first voxels come in C order (zyx) in the whole volume.

    Args:
        firsts: C-order index of the first voxel of every part of a component, shape (parts,).
        pairs: parts that belong together, shape (k, 2), indices into `firsts`.
        dtype: of the numbers.

    Returns:
        The number of each part's component, and n.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    leader = np.arange(len(firsts), dtype=np.int64)
    if len(pairs):
        parts, ends = np.unique(pairs, return_inverse=True)
        a, b = ends.reshape(pairs.shape).T
        graph = coo_array((np.ones(len(a), np.bool_), (a, b)), shape=(len(parts), len(parts)))
        _, group = connected_components(graph, directed=False)
        order = np.argsort(firsts[parts])
        _, earliest = np.unique(group[order], return_index=True)
        leader[parts] = parts[order[earliest]][group]
    leaders = np.flatnonzero(leader == np.arange(len(firsts)))
    rank = np.zeros(len(firsts), dtype)
    rank[leaders[np.argsort(firsts[leaders])]] = np.arange(1, len(leaders) + 1, dtype=dtype)
    return rank[leader], len(leaders)
