"""Connected components across the whole volume."""

from __future__ import annotations

import functools
import math
from typing import Annotated

import numpy as np

from daskflow import __version__
from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid
from daskflow.jobs.fingerprint import token
from daskflow.operators._halving import halved
from daskflow.operators.labelling.blocks import Connectivity
from daskflow.operators.labelling.scratch import Labelling
from daskflow.operators.labelling.stages import labelling_stages
from daskflow.operators.labelling.store import LabelledStore
from daskflow.volume import Flag, Volume, operator

_BLOCK_VOXELS = 2**23


@operator(group="segmentation")
def connected_components(
    volume: Volume,
    *,
    threshold: Annotated[float | None, Flag("-t")] = None,
    connectivity: Annotated[Connectivity, Flag("-c")] = 6,
) -> Volume:
    """Label connected components across the whole volume, the same for any blocks.

    Voxels of different values never join, and 0 is background; with a threshold, the voxels above it are all alike.
    Components are numbered 1 to n in the order of their first voxels, z slowest and x fastest. The result waits for
    three passes, which a job runs by itself: label blocks, match their seams, number the whole. The last one holds
    about 100 bytes for each component of each block in one worker's memory; a plan, which cannot know how many there
    are, counts on 100 in a block. `data`, `compute` and `read` run the passes on one core of one machine, for a look:
    with a large volume, or workers on several machines, `save` it and open what was saved.

    Args:
        volume: an image, probabilities or a segmentation, with one channel.
        threshold: voxels strictly above it are foreground; needed for floats, refused for a segmentation.
        connectivity: 6 (voxels that share a face), 18 (or an edge) or 26 (or a corner).

    Returns:
        A segmentation, zyx; uint32, or uint64 if the volume has 2^32 voxels or more.

    Raises:
        ParameterError: several channels, floats without a threshold, a segmentation with one, or another connectivity.
    """
    _check(volume, threshold, connectivity)
    grid = BlockGrid(volume.box, halved(volume, _BLOCK_VOXELS), volume.spec.chunk_origin)
    dtype = np.dtype(np.uint32 if volume.box.size < 2**32 else np.uint64)
    spec = volume.spec.replace(
        dtype=dtype, channels=None, channel_names=(), layer_type="segmentation", chunk=None, shard=None
    )
    expression = volume.expression
    key = token([__version__, expression.describe(), threshold, connectivity, grid.block, grid.origin])
    labelling = Labelling(grid, connectivity, key)
    stages = labelling_stages(labelling, expression, threshold, dtype)
    store = functools.partial(LabelledStore, labelling=labelling, spec=spec)
    return Volume.waiting(spec, store, (*expression.stages, *stages)).with_block(grid.block)


def _check(volume: Volume, threshold: float | None, connectivity: int) -> None:
    if connectivity not in (6, 18, 26):
        raise ParameterError(f"connectivity {connectivity} is none of 6, 18, 26")
    if volume.channels not in (None, 1):
        raise ParameterError(f"connected components takes one channel, not {volume.channels}; pick one first")
    kind, size = volume.dtype.kind, volume.dtype.itemsize
    if threshold is None:
        if kind not in "bui":
            raise ParameterError(f"connected components of {volume.dtype} values needs a threshold, e.g. threshold=0.5")
        return
    if math.isnan(threshold):
        raise ParameterError("threshold is nan; give a number")
    ids = kind in "ui" and size >= 4 and volume.layer_type is None
    if volume.layer_type == "segmentation" or ids:
        raise ParameterError(
            f"threshold {threshold:g} for a segmentation ({volume.dtype}), whose values are names, not amounts;"
            " leave the threshold out to label its values"
        )
