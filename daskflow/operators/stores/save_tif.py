"""A volume into a TIFF file, by chunkflow's options."""

from __future__ import annotations

from typing import Annotated, Literal

from daskflow.jobs import Job
from daskflow.operators._casting import Dtype, cast_to
from daskflow.operators.stores.save import save
from daskflow.volume import Flag, Volume, operator


@operator()
def save_tif(
    volume: Volume,
    *,
    file_name: Annotated[str, Flag("-f")],
    dtype: Annotated[Dtype | None, Flag("-t")] = None,
    compression: Annotated[Literal["zlib", "none"], Flag("-c")] = "zlib",
    overwrite: bool = False,
) -> Job:
    """Write a volume to a TIFF stack with its voxel size.

    Args:
        volume: what is written.
        file_name: path of the file.
        dtype: to cast the voxels to.
        compression: zlib or none.
        overwrite: replace a file that another job or program has written.

    Returns:
        The job; nothing has been written.
    """
    volume = cast_to(volume, dtype)
    return save(volume, file_name, format="tiff", compression=compression, overwrite=overwrite)
