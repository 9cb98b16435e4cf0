"""A zarr array or OME-Zarr image, by chunkflow's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from daskflow.operators._cutout import cut
from daskflow.operators.stores.open import open  # noqa: A004
from daskflow.stores import kvstore
from daskflow.volume import Flag, Volume, operator


@operator()
def load_zarr(
    *,
    store: Annotated[str, Flag("-f")],
    path: Annotated[str | None, Flag("-p")] = None,
    chunk_start: Annotated[Sequence[int] | None, Flag("-s")] = None,
    chunk_size: Annotated[Sequence[int] | None, Flag("-z")] = None,
    voxel_size: Annotated[Sequence[float] | None, Flag("-v")] = None,
    fill_missing: bool = False,
    axes: str | None = None,
    time: int | None = None,
) -> Volume:
    """Open a zarr array or an OME-Zarr image, or a part of it.

    Args:
        store: path or URL.
        path: array or image inside it.
        chunk_start: first voxel of the part (zyx).
        chunk_size: voxels of the part (zyx).
        voxel_size: nm per voxel (zyx), where the attributes do not say.
        fill_missing: read chunks that were never written as zeros, and count them, instead of failing.
        axes: which stored axis is which, e.g. "zyxc", where the file does not say.
        time: point of the time axis to read, from 0, of files that have several.

    Returns:
        A lazy volume.
    """
    url = store if path is None else kvstore.join(store, *path.strip("/").split("/"))
    volume = open(url, voxel_size=voxel_size, fill_missing=fill_missing, axes=axes, time=time)
    return cut(volume, start=chunk_start, size=chunk_size)
