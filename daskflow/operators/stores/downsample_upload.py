"""Levels of a layer from a volume, as chunkflow makes them."""

from __future__ import annotations

import itertools
import os
from typing import Annotated

from daskflow.errors import ParameterError
from daskflow.geometry import Zyx, as_zyx
from daskflow.jobs import Job, merge
from daskflow.operators import options
from daskflow.operators.geometry.downsample_volume import downsample_volume
from daskflow.operators.stores.downsample import downsample
from daskflow.operators.stores.downsample.levels import chosen_method, coarser
from daskflow.operators.stores.save import save
from daskflow.stores import Store, kvstore
from daskflow.stores.opening import open_store
from daskflow.volume import Flag, Volume, operator


@operator()
def downsample_upload(
    volume: Volume,
    *,
    volume_path: Annotated[str | os.PathLike[str] | None, Flag("-v")] = None,
    factor: options.Factor = (2, 2, 2),
    chunk_mip: Annotated[int | None, Flag("-c")] = None,
    start_mip: Annotated[int | None, Flag("-s")] = None,
    stop_mip: Annotated[int, Flag("-p")] = 5,
    overwrite: options.Overwrite = False,
) -> Job:
    """Write pyramid levels of a volume into a layer that has the volume's own level.

    Levels are as `downsample` makes them, which does this for a level that is stored. The volume may be a part that
    begins where windows and chunks of every level begin.

    Args:
        volume: the voxels of level `chunk_mip`, or of a part of it.
        volume_path: path or URL of the layer; by default where the volume was opened from.
        chunk_mip: level of the volume; by default that of the layer with its voxel size.
        start_mip: the first level that is written; by default the one after the volume's.
        stop_mip: the level after the last one that is written.

    Returns:
        The job; nothing has been written.

    Raises:
        ParameterError: no layer, levels that are not above the volume's, or a part that begins inside a window.
        AlignmentError: a part that shares a chunk of a level with another one.
    """
    stored = volume.stored
    if volume_path is None and (stored is None or stored.opened is None):
        raise ParameterError("downsample-upload needs the layer: volume_path (-v on the command line)")
    url = kvstore.normalise(os.fspath(volume_path)) if volume_path is not None else stored.url  # type: ignore[union-attr]
    own = _own_level(url, volume, chunk_mip)
    first = own.mip + 1 if start_mip is None else start_mip
    if not own.mip < first < stop_mip:
        raise ParameterError(f"levels {first} to {stop_mip - 1} are not above level {own.mip} of the volume")
    step = as_zyx(factor, name="factor")
    if stored is not None and (kvstore.resolved(stored.url), stored.mip, first) == (
        kvstore.resolved(url),
        own.mip,
        own.mip + 1,
    ):
        return downsample(volume, levels=stop_mip - first, factor=step, overwrite=overwrite)
    _refuse_shifted(volume, own, step, stop_mip - 1 - own.mip)
    levels = itertools.accumulate(range(own.mip, stop_mip - 1), lambda spec, _: coarser(spec, step), initial=own.spec)
    jobs = [
        save(
            _level_of(volume, step, mip - own.mip),
            url,
            format="precomputed",
            mip=mip,
            bounds=(*spec.box.start, *spec.box.stop),
            chunk=own.spec.chunk,
            encoding=own.layout.encoding,
            overwrite=overwrite,
        )
        for mip, spec in enumerate(levels, own.mip)
        if mip >= first
    ]
    return merge(jobs)


def _own_level(url: str, volume: Volume, mip: int | None) -> Store:
    """Return the level of a layer that the volume is, or is a part of."""
    store = open_store(url, format="precomputed", mip=mip or 0)
    if mip is None:
        found = [number for number, spec in enumerate(store.mips) if spec.ratio(volume.spec) == (1, 1, 1)]
        if not found:
            raise ParameterError(f"no level of {url} has voxels of {volume.spec.size_text}; give chunk_mip")
        store = store.with_mip(found[0])
    if volume.box not in store.spec.box:
        raise ParameterError(
            f"{volume.box} is not in level {store.mip}, {store.spec.box} (z0-z1_y0-y1_x0-x1), of {url}"
        )
    return store


def _refuse_shifted(volume: Volume, own: Store, step: Zyx, levels: int) -> None:
    windows = [f**levels for f in step]
    begun = [(a - b) % w for a, b, w in zip(volume.box.start, own.spec.box.start, windows, strict=True)]
    if any(begun):
        raise ParameterError(
            f"the volume begins at {volume.box.start}, {tuple(begun)} voxels inside a window of {tuple(windows)} (zyx)"
            f" counted from {own.spec.box.start}; begin with a window"
        )


def _level_of(volume: Volume, step: Zyx, number: int) -> Volume:
    """Return a level: of whole numbers the mean of all voxels behind it, else from level to level."""
    if volume.dtype.kind != "f" and chosen_method(volume.spec, "auto") == "mean":
        return downsample_volume(volume, factor=as_zyx([f**number for f in step]))
    for _ in range(number):
        volume = downsample_volume(volume, factor=step)
    return volume
