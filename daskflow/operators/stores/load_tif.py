"""A TIFF file or a directory of sections, by chunkflow's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from daskflow.geometry import LayerType
from daskflow.operators._casting import Dtype, cast_to
from daskflow.operators.stores.open import open  # noqa: A004
from daskflow.volume import Flag, Volume, operator


@operator()
def load_tif(
    *,
    file_name: Annotated[str, Flag("-f")],
    voxel_offset: Annotated[Sequence[int] | None, Flag("-v")] = None,
    voxel_size: Annotated[Sequence[float] | None, Flag("-s")] = None,
    layer_type: Annotated[LayerType | None, Flag("-l")] = None,
    dtype: Annotated[Dtype | None, Flag("-d")] = None,
    axes: str | None = None,
    time: int | None = None,
) -> Volume:
    """Open a TIFF stack: a file, or a directory with one file per section.

    Args:
        file_name: path of the file or directory.
        voxel_offset: global coordinates of the first voxel (zyx).
        voxel_size: nm per voxel (zyx), where the ImageJ or OME tags do not say.
        layer_type: meaning of the voxels.
        dtype: to cast the voxels to.
        axes: which stored axis is which, e.g. "zyxc", where the file does not say.
        time: point of the time axis to read, from 0, of files that have several.

    Returns:
        A lazy volume.
    """
    volume = open(
        file_name,
        format="tiff",
        voxel_offset=voxel_offset,
        voxel_size=voxel_size,
        layer_type=layer_type,
        axes=axes,
        time=time,
    )
    return cast_to(volume, dtype)
