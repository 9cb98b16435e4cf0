"""A coarser volume, not stored."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from daskflow.geometry import BoundingBox, Zyx, as_zyx
from daskflow.operators import options
from daskflow.operators.stores.downsample.kernels import Carried, Downsampling
from daskflow.operators.stores.downsample.levels import chosen_method, coarser
from daskflow.volume import Volume, operator


@operator()
def downsample_volume(
    volume: Volume,
    *,
    factor: options.Factor = (1, 2, 2),
    method: options.Method = "auto",
    sparse: options.Sparse = False,
) -> Volume:
    """Make a volume coarser, without storing it; on the command line it is `downsample` with `-o`.

    Windows are counted from the volume's corner, as in the levels that `downsample` writes. The offset is divided by
    the factor and rounded down; the voxel size is multiplied by it.

    Args:
        volume: the volume to make coarser.

    Returns:
        One voxel per window.

    Raises:
        ParameterError: voxels that cannot be downsampled so.
    """
    how = Downsampling(as_zyx(factor, name="factor"), chosen_method(volume.spec, method), sparse)
    how.check(volume.dtype)
    spec = coarser(volume.spec, how.factor)
    reads = functools.partial(_windows, factor=how.factor, finer=volume.box.start, coarser=spec.box.start)
    return volume.map_boxes(_downsampled, reads=reads, spec=spec, how=how)


def _windows(box: BoundingBox, factor: Zyx, finer: Zyx, coarser: Zyx) -> BoundingBox:
    return box.shift([-start for start in coarser]).refine(factor).shift(finer)


def _downsampled(array: np.ndarray[Any, Any], how: Downsampling, **_: Any) -> np.ndarray[Any, Any]:
    (level,), _last = how.run(Carried(array), 1, dtype=array.dtype)
    return level
