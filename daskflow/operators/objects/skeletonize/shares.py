"""How the labels of a block are dealt out to tasks, which trace them side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.operators.segmentation.voxel_counts.blocks import add_tables

Labels = npt.NDArray[np.uint64]

_TASKS = 8  # for a volume of one block: enough that the label which takes longest does not keep all waiting
_TILE = 2**24


def share_count(blocks: int) -> int:
    """Return how many tasks each of some blocks is traced by; 1 where there are blocks enough to go round.

    Every task reads the block and measures the distance to surfaces anew, a few per cent of the time.
    """
    return max(1, min(_TASKS, -(-2 * _TASKS // blocks)))


def share_labels(voxels: npt.NDArray[Any], labels: Labels, number: int) -> list[Labels]:
    """Return labels dealt out to `number` tasks of about the same work; each list ascends.

    The label with most work goes first, each to the task that has least so far. Tasks with most work come in the places
    that a job runs first: the middle, the last, and then from the first one on.

    Args:
        voxels: a block, zyx.
        labels: those in it that are traced, ascending.
        number: tasks.
    """
    if number == 1 or not len(labels):
        return [labels, *[labels[:0]] * (number - 1)]
    work = _work(voxels, labels)
    dealt: list[list[int]] = [[] for _ in range(number)]
    loads = np.zeros(number)
    for place in np.lexsort((labels, -work)).tolist():
        least = int(loads.argmin())
        dealt[least].append(place)
        loads[least] += work[place]
    heaviest = np.argsort(-loads, kind="stable").tolist()
    first = list(dict.fromkeys([number // 2, number - 1, *range(number)]))
    shares = {place: np.sort(labels[dealt[share]]) for place, share in zip(first, heaviest, strict=True)}
    return [shares[place] for place in range(number)]


def _work(voxels: npt.NDArray[Any], labels: Labels) -> npt.NDArray[np.float64]:
    """Return about how long each label takes to trace, in any unit.

    Paths are searched for one by one among all voxels, and there are many in what is thin: of 60 neurites the time went
    with the number of runs of voxels to the power 1.1, and with that of voxels to the power 0.5.
    """
    flat = (voxels.view(np.uint8) if voxels.dtype == bool else voxels).reshape(-1)
    tiles = [_runs(flat[at : at + _TILE]) for at in range(0, flat.size, _TILE)]
    names, runs = add_tables([(tile[0], tile[1]) for tile in tiles])
    _, sizes = add_tables([(tile[0], tile[2]) for tile in tiles])
    at = np.searchsorted(names, labels)
    work: npt.NDArray[np.float64] = runs[at].astype(np.float64) ** 1.1 * sizes[at].astype(np.float64) ** 0.5
    return work


def _runs(flat: npt.NDArray[Any]) -> tuple[Labels, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the labels of some voxels, how many runs of equal ones each has, and how many voxels."""
    import fastremap

    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1)
    lengths = np.diff(ends, prepend=-1)
    names, places, runs = fastremap.unique(flat[ends], return_inverse=True, return_counts=True)
    sizes = np.bincount(places.reshape(-1), lengths, minlength=len(names))
    return names.astype(np.uint64), runs.astype(np.int64), sizes.astype(np.int64)
