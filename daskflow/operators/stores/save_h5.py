"""A volume into an HDF5 file, by chunkflow's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from daskflow.jobs import Job
from daskflow.operators._casting import Dtype, cast_to
from daskflow.operators.stores.save import save
from daskflow.volume import Flag, Volume, operator


@operator()
def save_h5(
    volume: Volume,
    *,
    file_name: Annotated[str, Flag("-f")],
    dtype: Annotated[Dtype | None, Flag("-d")] = None,
    chunk_size: Annotated[Sequence[int] | None, Flag("-s")] = None,
    compression: Annotated[Literal["gzip", "none"], Flag("-c")] = "gzip",
    overwrite: bool = False,
) -> Job:
    """Write a volume to an HDF5 file in chunkflow's layout.

    The datasets are ``main``, ``voxel_offset`` and ``voxel_size``.

    Args:
        volume: what is written.
        file_name: path of the file.
        dtype: to cast the voxels to.
        chunk_size: voxels per HDF5 chunk (zyx).
        compression: gzip or none.
        overwrite: replace a file that another job or program has written.

    Returns:
        The job; nothing has been written.
    """
    volume = cast_to(volume, dtype)
    return save(volume, file_name, format="hdf5", chunk=chunk_size, compression=compression, overwrite=overwrite)
