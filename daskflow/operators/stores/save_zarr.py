"""A volume into OME-Zarr, by chunkflow's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from daskflow.jobs import Job
from daskflow.operators.stores.save import save
from daskflow.volume import Flag, Volume, operator


@operator()
def save_zarr(
    volume: Volume,
    *,
    store: Annotated[str, Flag("-s")],
    chunk_size: Annotated[Sequence[int] | None, Flag("-c")] = None,
    shard: Sequence[int] | None = None,
    mip: Annotated[int, Flag("-m")] = 0,
    overwrite: bool = False,
) -> Job:
    """Write a volume to an OME-Zarr 0.5 image.

    Args:
        volume: what is written.
        store: path or URL of the image.
        chunk_size: voxels per chunk (zyx).
        shard: voxels per shard (zyx), a multiple of the chunk.
        mip: pyramid level that is written.
        overwrite: replace what another job or program has stored there.

    Returns:
        The job; nothing has been written.
    """
    return save(volume, store, mip=mip, format="ome-zarr", chunk=chunk_size, shard=shard, overwrite=overwrite)
