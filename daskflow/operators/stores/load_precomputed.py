"""A Neuroglancer precomputed layer, by chunkflow's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from daskflow.geometry import as_zyx
from daskflow.operators._cutout import cut
from daskflow.operators.stores.open import open  # noqa: A004
from daskflow.volume import Flag, Volume, operator


@operator()
def load_precomputed(
    *,
    volume_path: Annotated[str, Flag("-v")],
    mip: Annotated[int, Flag("-m")] = 0,
    chunk_start: Annotated[Sequence[int] | None, Flag("-s")] = None,
    chunk_size: Annotated[Sequence[int] | None, Flag("-z")] = None,
    expand_margin_size: Annotated[Sequence[int] | None, Flag("-e")] = None,
    fill_missing: bool = False,
) -> Volume:
    """Open a Neuroglancer precomputed layer, or a part of it.

    Args:
        volume_path: path or URL of the layer.
        mip: pyramid level, 0 is the finest.
        chunk_start: first voxel of the part (zyx); the layer's corner unless given.
        chunk_size: voxels of the part (zyx); up to the layer's edge unless given.
        expand_margin_size: voxels added around the part (zyx), inside the layer.
        fill_missing: read chunks that were never written as zeros, and count them, instead of failing.

    Returns:
        A lazy volume.
    """
    volume = open(volume_path, mip=mip, fill_missing=fill_missing, format="precomputed")
    part = cut(volume, start=chunk_start, size=chunk_size)
    if expand_margin_size is None:
        return part
    return volume.crop(part.box.grow(as_zyx(expand_margin_size, name="expand margin")))
