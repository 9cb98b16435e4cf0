"""Connected components across the whole volume."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid
from daskflow.operators import options
from daskflow.operators.segmentation.connected_components.blocks import Connectivity, Foreground
from daskflow.operators.segmentation.connected_components.scratch import Labelling
from daskflow.operators.segmentation.connected_components.stages import LabelForeground, labelled
from daskflow.volume import Flag, Volume, operator
from daskflow.volume.kinds import without_negatives
from daskflow.volume.stage import Scope, smaller_block

_BLOCK_VOXELS = 2**21


@operator()
def connected_components(
    volume: Volume,
    *,
    threshold: Annotated[float | None, Flag("-t")] = None,
    threshold_gte: float | None = None,
    threshold_lte: float | None = None,
    connectivity: Annotated[Connectivity, Flag("-c")] = 6,
    dust: options.Dust = 0,
    dtype: Literal["uint16", "uint32", "uint64", "smallest"] | None = None,
) -> Volume:
    """Label connected components across the whole volume, the same for any blocks.

    Voxels of different values never join, and 0 is background; with a threshold, the foreground voxels are all alike.
    Components are numbered 1 to n in the order of their first voxels, z slowest and x fastest; those below `dust`
    voxels, counted over the whole volume, become background and get no number. The result waits for passes that a job
    runs by itself: label blocks, join their seams in groups of 64 and these again, number the components. No task holds
    more than what passes through the faces in its box, or the components of 16 groups; a plan, which cannot know how
    many there are, counts on one for 1000 voxels of a face. `data`, `compute` and `read` run the passes on one core of
    one machine, for a look: with a large volume, or workers on several machines, `save` it and open what was saved.

    Args:
        volume: an image, probabilities or a segmentation, with one channel.
        threshold: voxels strictly above it are foreground; floats need one of the three, a segmentation takes none.
        threshold_gte: voxels of at least this value are foreground; with `threshold_lte`, those between the two.
        threshold_lte: voxels of at most this value are foreground.
        connectivity: 6 (voxels that share a face), 18 (or an edge) or 26 (or a corner).
        dust: components of fewer voxels are removed, wherever they lie.
        dtype: uint16, uint32 or uint64, an error if there are more components than the dtype holds; smallest
            for the smallest that holds as many as can be in a volume of this size, with this dust and connectivity. By
            default uint32, or uint64 if the volume has 2^32 voxels or more.

    Returns:
        A segmentation, zyx.

    Raises:
        ParameterError: several channels, floats without a threshold, a segmentation with one, or another connectivity.
    """
    foreground = Foreground(threshold, threshold_gte, threshold_lte)
    _check(volume, foreground, connectivity)
    if dust < 0:
        raise ParameterError(f"dust {dust} must be at least 0 voxels")
    grid = BlockGrid(volume.box, smaller_block(volume, _BLOCK_VOXELS), volume.spec.chunk_origin)
    numbers = _dtype(volume, foreground, connectivity, dust, dtype)
    expression = (volume if foreground.bounds else without_negatives(volume)).expression
    scope = Scope("components", (expression, foreground, connectivity, dust, grid, numbers))
    labelling = Labelling(grid, connectivity, scope, dust)
    return labelled(LabelForeground(labelling, foreground), expression, volume.spec.of_labels(numbers))


def _check(volume: Volume, foreground: Foreground, connectivity: int) -> None:
    if connectivity not in (6, 18, 26):
        raise ParameterError(f"connectivity {connectivity} is none of 6, 18, 26")
    if volume.channels not in (None, 1):
        raise ParameterError(f"connected components takes one channel, not {volume.channels}; pick one first")
    bounds = foreground.bounds
    if not bounds:
        if volume.dtype.kind not in "bui":
            raise ParameterError(f"connected components of {volume.dtype} values needs a threshold, e.g. threshold=0.5")
        return
    if any(math.isnan(bound) for bound in bounds.values()):
        raise ParameterError("threshold is nan; give a number")
    if foreground.above is not None and len(bounds) > 1:
        raise ParameterError("threshold (above) does not go with threshold_gte or threshold_lte; give those two alone")
    if foreground.at_least is not None and foreground.at_most is not None and foreground.at_least > foreground.at_most:
        raise ParameterError(
            f"no value is at least {foreground.at_least:g} and at most {foreground.at_most:g}; swap the two thresholds"
        )
    if volume.spec.kind == "segmentation":
        bound = next(iter(bounds.values()))
        raise ParameterError(
            f"threshold {bound:g} for a segmentation ({volume.dtype}), whose values are names, not amounts;"
            " leave the threshold out to label its values"
        )


def _dtype(
    volume: Volume, foreground: Foreground, connectivity: int, dust: int, asked: str | None
) -> np.dtype[np.unsignedinteger]:
    """Return the dtype of the numbers: the one that is asked for, or one that is sure to hold them."""
    if asked not in (None, "smallest"):
        return np.dtype(asked)
    most = volume.box.size
    if asked is None:
        return np.dtype(np.uint32 if most < 2**32 else np.uint64)
    if foreground.bounds or volume.dtype == bool:  # of voxels all alike, those apart from each other can be so many
        most = math.prod(-(-n // 2) for n in volume.box.shape) if connectivity == 26 else -(-most // 2)
    if dust:
        most = min(most, volume.box.size // dust)
    return np.dtype(next(kind for kind in (np.uint16, np.uint32, np.uint64) if most <= np.iinfo(kind).max))
