"""A volume into an NPY file."""

from __future__ import annotations

from typing import Annotated

from daskflow.jobs import Job
from daskflow.operators.stores.save import save
from daskflow.volume import Flag, Volume, operator


@operator()
def save_npy(volume: Volume, *, file_name: Annotated[str, Flag("-f")], overwrite: bool = False) -> Job:
    """Write a volume to an NPY file; offset and voxel size are not kept by the format.

    Args:
        volume: what is written.
        file_name: path of the file.
        overwrite: replace a file that another job or program has written.

    Returns:
        The job; nothing has been written.
    """
    return save(volume, file_name, format="npy", overwrite=overwrite)
