"""Looking: an expression as an ordinary dask array, one task per block."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.volume.expression import Expression
from daskflow.volume.node import Array, DaskSource


def dask_array(expression: Expression, grid: BlockGrid) -> da.Array:
    """Return the voxels of the expression's single output over `grid`, as a dask array zyx or czyx.

    Each task answers for its own box, so the graph has one task per block however long the expression is. Sources that
    lie in this process, and dask arrays, are cut into pieces that become inputs of the tasks. Stages that the volume
    waits for run in one further task, which the blocks depend on.
    """
    output = expression.outputs[0]
    if isinstance(output, DaskSource):
        return output.array
    if expression.held_in_memory:
        return _from_pieces(expression, grid)
    spec = output.spec
    lead = () if spec.channels is None else ((spec.channels,),)
    ready: Any = expression
    if expression.stages:
        ready = dask.delayed(_resolve, pure=False)(expression)
    return da.map_blocks(
        _block,
        ready,
        grid,
        chunks=(*lead, *grid.chunks),
        dtype=spec.dtype,
        meta=np.empty((0,) * spec.ndim, spec.dtype),
        name=f"volume-{dask.base.tokenize(expression.describe(), str(grid))}",
    )


def _block(expression: Expression, grid: BlockGrid, block_id: tuple[int, ...] = ()) -> Array:
    z, y, x = block_id[-3:]
    return expression.evaluate([grid[grid.index((z, y, x))]])[0]


def _from_pieces(expression: Expression, grid: BlockGrid) -> da.Array:
    spec = expression.outputs[0].spec
    bare = dask.delayed(expression.without_arrays(), pure=False)
    blocks = np.empty(grid.shape, dtype=object)
    for index, box in enumerate(grid):
        places, arrays = zip(*expression.pieces([box]), strict=True)
        task = dask.delayed(_piecewise, pure=False)(bare, box, places, list(arrays))
        blocks[grid.position(index)] = da.from_delayed(task, spec.shape_of(box), dtype=spec.dtype)
    return da.block(blocks.tolist())


def _piecewise(expression: Expression, box: BoundingBox, places: Sequence[int], arrays: Sequence[Array]) -> Array:
    return expression.with_pieces([box], list(zip(places, arrays, strict=True))).evaluate([box])[0]


def _resolve(expression: Expression) -> Expression:
    return expression.resolved(_scratch())


@functools.cache
def _scratch() -> str:
    directory = tempfile.mkdtemp(prefix="daskflow-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
