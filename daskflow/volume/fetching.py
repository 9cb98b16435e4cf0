"""The voxels of a dask array in this process, wherever its chunks are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import dask.array as da


def fetch_here(array: da.Array) -> np.ndarray[Any, Any]:
    """Return the voxels of a dask array, computed in this thread; chunks that workers hold are fetched from them."""
    import dask.array as da
    from dask.core import flatten

    graph = dict(array.__dask_graph__().cull(set(flatten(array.__dask_keys__()))))
    futures = _futures(graph)
    if futures:
        graph |= next(iter(futures.values())).client.gather(futures)
        array = da.Array(graph, array.name, array.chunks, meta=array._meta)
    return np.asarray(array.compute(scheduler="synchronous"))


def held_by_workers(array: da.Array) -> bool:
    """Return whether chunks of a dask array are futures, as after ``persist`` with a client."""
    return bool(_futures(dict(array.__dask_graph__())))


def _futures(graph: dict[Any, Any]) -> dict[Any, Any]:
    if "distributed" not in sys.modules:  # then there are none
        return {}
    from distributed import Future

    return {key: value for key, value in graph.items() if isinstance(value, Future)}
