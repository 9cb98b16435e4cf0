"""An HDF5 file, by chunkflow's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from daskflow.geometry import LayerType
from daskflow.operators._casting import Dtype, cast_to
from daskflow.operators._cutout import cut
from daskflow.operators.stores.open import open  # noqa: A004
from daskflow.volume import Flag, Volume, operator


@operator()
def load_h5(
    *,
    file_name: Annotated[str, Flag("-f")],
    dataset_path: Annotated[str | None, Flag("-d")] = None,
    dtype: Annotated[Dtype | None, Flag("-e")] = None,
    layer_type: Annotated[LayerType | None, Flag("-l")] = None,
    voxel_offset: Annotated[Sequence[int] | None, Flag("-v")] = None,
    voxel_size: Annotated[Sequence[float] | None, Flag("-x")] = None,
    cutout_start: Annotated[Sequence[int] | None, Flag("-t")] = None,
    cutout_stop: Annotated[Sequence[int] | None, Flag("-p")] = None,
    cutout_size: Annotated[Sequence[int] | None, Flag("-s")] = None,
    axes: str | None = None,
    time: int | None = None,
) -> Volume:
    """Open a dataset of an HDF5 file, or a part of it.

    Args:
        file_name: path of the file.
        dataset_path: the dataset, when the file holds several.
        dtype: to cast the voxels to.
        layer_type: meaning of the voxels, where the file does not say.
        voxel_offset: global coordinates of the first voxel (zyx), where the file does not say.
        voxel_size: nm per voxel (zyx), where the file does not say.
        cutout_start: first voxel of the part (zyx).
        cutout_stop: end of the part (zyx), exclusive.
        cutout_size: voxels of the part (zyx), instead of its end.
        axes: which stored axis is which, e.g. "zyxc", where the file does not say.
        time: point of the time axis to read, from 0, of files that have several.

    Returns:
        A lazy volume.
    """
    volume = open(
        file_name,
        format="hdf5",
        dataset=dataset_path,
        layer_type=layer_type,
        voxel_offset=voxel_offset,
        voxel_size=voxel_size,
        axes=axes,
        time=time,
    )
    volume = cast_to(volume, dtype)
    return cut(volume, start=cutout_start, stop=cutout_stop, size=cutout_size)
