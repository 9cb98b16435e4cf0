"""A volume into a Neuroglancer precomputed layer, by chunkflow's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from daskflow.jobs import Job
from daskflow.operators.stores.save import save
from daskflow.volume import Flag, Volume, operator


@operator()
def save_precomputed(
    volume: Volume,
    *,
    volume_path: Annotated[str, Flag("-v")],
    mip: Annotated[int, Flag("-m")] = 0,
    block_size: Annotated[Sequence[int] | None, Flag("-b")] = None,
    encoding: Annotated[str | None, Flag("-e")] = None,
    overwrite: bool = False,
) -> Job:
    """Write a volume to a Neuroglancer precomputed layer.

    Args:
        volume: what is written.
        volume_path: path or URL of the layer; its info is made where there is none.
        mip: pyramid level that is written.
        block_size: voxels per storage chunk (zyx).
        encoding: of chunks, as `save` takes it.
        overwrite: replace what another job or program has stored there.

    Returns:
        The job; nothing has been written.
    """
    return save(
        volume, volume_path, mip=mip, format="precomputed", chunk=block_size, encoding=encoding, overwrite=overwrite
    )
