"""What a volume is, where its source does not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import LayerType, as_voxel_size
from daskflow.volume import Flag, Volume, operator


@operator()
def declare(
    volume: Volume,
    *,
    voxel_size: Annotated[Sequence[float] | None, Flag("-v")] = None,
    layer_type: LayerType | None = None,
) -> Volume:
    """Say of a volume how large its voxels are, or what they mean; the voxels stay as they are.

    Args:
        volume: the volume.
        voxel_size: nm per voxel (zyx).
        layer_type: meaning of the voxels.

    Returns:
        The same voxels.

    Raises:
        ParameterError: nothing is said.
    """
    if voxel_size is None and layer_type is None:
        raise ParameterError("declare needs what is to be said: voxel_size= or layer_type=")
    changes: dict[str, Any] = {} if layer_type is None else {"layer_type": layer_type}
    if voxel_size is not None:
        changes["voxel_size"] = as_voxel_size(voxel_size)
    return volume.map_boxes(as_it_is, spec=volume.spec.replace(**changes), memory=0)


def as_it_is(array: np.ndarray[Any, Any], **_: Any) -> np.ndarray[Any, Any]:
    """Return an array, whatever box it is of."""
    return array
