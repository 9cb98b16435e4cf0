"""Looking: an expression as an ordinary dask array, one task per block."""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np

from daskflow.errors import MissingChunkError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.volume.expression import Expression
from daskflow.volume.node import Array, DaskSource


def dask_array(expression: Expression, grid: BlockGrid) -> da.Array:
    """Return the voxels of the expression's single output over `grid`, as a dask array zyx or czyx.

    Each task answers for its own box, so the graph has one task per block however long the expression is. Sources that
    lie in this process, and dask arrays, are cut into pieces that become inputs of the tasks.

    Stages that the volume waits for, e.g. those of connected components, run in one further task, which the blocks
    depend on: block after block, on one worker, which leaves what they find in temporary files of its machine. This is
    for looking at parts that one machine can handle; tasks on other machines fail, as they cannot reach the files. The
    job that `save` returns runs such stages on all workers, and wherever they are.
    """
    output = expression.outputs[0]
    if isinstance(output, DaskSource):
        return output.array
    if expression.held_in_memory:
        return _from_pieces(expression, grid)
    spec = output.spec
    lead = () if spec.channels is None else ((spec.channels,),)
    return da.map_blocks(
        _block,
        _ready(expression),
        grid,
        chunks=(*lead, *grid.chunks),
        dtype=spec.dtype,
        meta=np.empty((0,) * spec.ndim, spec.dtype),
        name=f"volume-{dask.base.tokenize(expression.describe(), str(grid))}",
    )


class _Resolved:
    """An expression after its stages ran in this process, with the directory of what they left.

    The directory goes with this object or, once that has travelled to other processes, when this process ends; those
    leave it alone.
    """

    def __init__(self, expression: Expression, directory: str, *, travelled: bool = False) -> None:
        self.expression = expression
        self.directory = directory
        self._removed = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        if travelled:
            self._removed.detach()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._removed.detach() is not None:
            atexit.register(shutil.rmtree, self.directory, ignore_errors=True)
        return (functools.partial(_Resolved, travelled=True), (self.expression, self.directory))


_Ready = Expression | _Resolved


def _ready(expression: Expression) -> Any:
    """Return the expression, or a task that gives it once the stages that it waits for have run."""
    return dask.delayed(_resolve, pure=False)(expression) if expression.stages else expression


def _resolve(expression: Expression) -> _Resolved:
    directory = tempfile.mkdtemp(prefix="daskflow-", dir=_worker_directory())
    try:
        return _Resolved(expression.resolved(directory), directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _worker_directory() -> str | None:
    """Return where the Dask worker that runs this keeps files, which Dask removes even after the worker was killed."""
    with contextlib.suppress(ValueError):
        if "distributed" in sys.modules:
            return str(sys.modules["distributed"].get_worker().local_directory)
    return None


def _evaluated(ready: _Ready, box: BoundingBox, pieces: Sequence[tuple[int, Array]] = ()) -> Array:
    expression = ready if isinstance(ready, Expression) else ready.expression
    if pieces:
        expression = expression.with_pieces([box], pieces)
    try:
        return expression.evaluate([box])[0]
    except MissingChunkError as error:
        if isinstance(ready, Expression) or Path(ready.directory).is_dir():
            raise
        raise MissingChunkError(
            f"what the volume waited for was computed into {ready.directory}, which is gone or on another machine;"
            " save() the volume and open what was saved"
        ) from error


def _block(ready: _Ready, grid: BlockGrid, block_id: tuple[int, ...] = ()) -> Array:
    z, y, x = block_id[-3:]
    return _evaluated(ready, grid[grid.index((z, y, x))])


def _from_pieces(expression: Expression, grid: BlockGrid) -> da.Array:
    spec = expression.outputs[0].spec
    bare = expression.without_arrays()
    ready = _ready(bare) if bare.stages else dask.delayed(bare, pure=False)
    blocks = np.empty(grid.shape, dtype=object)
    for index, box in enumerate(grid):
        task = dask.delayed(_evaluated, pure=False)(ready, box, expression.pieces([box]))
        blocks[grid.position(index)] = da.from_delayed(task, spec.shape_of(box), dtype=spec.dtype)
    return da.block(blocks.tolist())
