"""An NPY file, by chunkflow's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from daskflow.operators.stores.open import open  # noqa: A004
from daskflow.volume import Flag, Volume, operator


@operator()
def load_npy(
    *,
    file_name: Annotated[str, Flag("-f")],
    voxel_offset: Annotated[Sequence[int], Flag("-t")] = (0, 0, 0),
    voxel_size: Annotated[Sequence[float] | None, Flag("-s")] = None,
    axes: str | None = None,
    time: int | None = None,
) -> Volume:
    """Open an NPY file.

    Args:
        file_name: path of the file.
        voxel_offset: global coordinates of the first voxel (zyx).
        voxel_size: nm per voxel (zyx); unknown unless given.
        axes: which stored axis is which, e.g. "zyxc", where the file does not say.
        time: point of the time axis to read, from 0, of files that have several.

    Returns:
        A lazy volume.
    """
    return open(file_name, format="npy", voxel_offset=voxel_offset, voxel_size=voxel_size, axes=axes, time=time)
