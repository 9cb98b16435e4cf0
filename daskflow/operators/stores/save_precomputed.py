"""A precomputed layer, as chunkflow saves it."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, Zyx, as_zyx
from daskflow.jobs import Job, merge
from daskflow.operators import options
from daskflow.operators.geometry.declare import declare
from daskflow.operators.geometry.downsample_volume import downsample_volume
from daskflow.operators.geometry.pick_channels import pick_channels
from daskflow.operators.image.astype import astype
from daskflow.operators.stores.downsample.levels import coarser
from daskflow.operators.stores.save import save
from daskflow.stores import Store, kvstore
from daskflow.stores.base import DEFAULT_CHUNK
from daskflow.stores.opening import find_store
from daskflow.volume import Flag, Volume, operator

Array = np.ndarray[Any, Any]
_THUMBNAIL_MIP = 6


@operator()
def save_precomputed(
    volume: Volume,
    *,
    volume_path: Annotated[str | os.PathLike[str], Flag("-v")],
    mip: options.Mip = 0,
    block_size: Annotated[Sequence[int] | None, Flag("-b")] = None,
    encoding: options.Encoding | None = None,
    intensity_threshold: Annotated[float | None, Flag("-t")] = None,
    create_thumbnail: bool = False,
    delete_background: options.DeleteBackground = False,
    bounds: Sequence[int] | None = None,
    overwrite: options.Overwrite = False,
    upload_log: bool = False,
) -> Job:
    """Write a volume to a Neuroglancer precomputed layer.

    A layer that is there decides the dtype: between floats and uint8, 0 to 1 become 0 to 255 and the other way round,
    fractions cut off; other numbers are cast. Values that the layer cannot hold are refused. The volume itself, and so
    what else is made of it, stays as it is.

    Args:
        volume: what is written.
        volume_path: path or URL of the layer.
        block_size: voxels per chunk (zyx) of a new layer; by default as in the source, else 64 64 64.
        intensity_threshold: leave out chunks in which all voxels are below it; they read as background.
        create_thumbnail: also write the last channel, as uint8 and averaged in y and x, to level 6 of the layer
            ``<volume_path>/thumbnail``.
        bounds: box of a new layer, where the volume is a part of it: start and stop as z y x each.
        upload_log: store how many seconds the stages took in ``log/z0-z1_y0-y1_x0-x1.json`` in the layer.

    Returns:
        The job; nothing has been written.

    Raises:
        ParameterError: a thumbnail of a level that is as coarse, or of a segmentation.
    """
    location = kvstore.normalise(os.fspath(volume_path).removeprefix("precomputed://"))
    whole = volume.box
    if bounds is not None:
        whole = bounds if isinstance(bounds, BoundingBox) else BoundingBox(as_zyx(bounds[:3]), as_zyx(bounds[3:]))
    there = find_store(location, mip=mip, format="precomputed")
    written, notes = _as_in_the_layer(volume, there)
    chunk = block_size
    if intensity_threshold is not None:
        stored = volume.spec.replace(box=whole, chunk_origin=None) if there is None else there.spec
        chunk = as_zyx(block_size or stored.chunk or DEFAULT_CHUNK)
        written = without_dim_chunks(written, volume, intensity_threshold, chunk, stored.chunk_origin or whole.start)
    job = save(
        written,
        location,
        format="precomputed",
        mip=mip,
        chunk=chunk,
        encoding=encoding,
        bounds=bounds,
        delete_background=delete_background or intensity_threshold is not None,
        overwrite=overwrite,
        upload_log=upload_log,
    )
    job = dataclasses.replace(job, notes=(*job.notes, *notes))
    if not create_thumbnail:
        return job
    level = whole if there is None else there.spec.box
    return merge([job, _save_thumbnail(volume, kvstore.join(location, "thumbnail"), mip, level, overwrite=overwrite)])


def _save_thumbnail(volume: Volume, location: str, mip: int, level: BoundingBox, *, overwrite: bool) -> Job:
    """Return the job that writes the thumbnail of a volume, or of a part of a level, which is a chunk of it."""
    thumbnail = _thumbnail(volume, mip)
    begun = [(a - b) % w for a, b, w in zip(volume.box.start, level.start, _window(mip), strict=True)]
    if any(begun):
        raise ParameterError(
            f"a thumbnail has a voxel for {_window(mip)} voxels (zyx) counted from {level.start}, and the volume begins"
            f" {tuple(begun)} voxels inside of one; begin with one"
        )
    new = volume.box != level and find_store(location, mip=_THUMBNAIL_MIP, format="precomputed") is None
    return save(
        thumbnail,
        location,
        format="precomputed",
        mip=_THUMBNAIL_MIP,
        bounds=coarser(volume.spec.replace(box=level), _window(mip)).box,  # type: ignore[arg-type]  # or the layer's
        chunk=thumbnail.box.shape if new else None,
        overwrite=overwrite,
    )


def _as_in_the_layer(volume: Volume, there: Store | None) -> tuple[Volume, tuple[str, ...]]:
    """Return the volume in the dtype of the layer that is there, and what the plan says of that."""
    if there is None or there.spec.dtype == volume.dtype:
        return volume, ()
    dtype = there.spec.dtype
    written = astype(volume, dtype=dtype.name, unit_range=True)  # type: ignore[arg-type]  # of any layer
    scaled = {volume.dtype.kind, dtype.kind} == {"u", "f"} and min(volume.dtype.itemsize, dtype.itemsize) == 1
    how = ", 0 to 1 being 0 to 255" if scaled else ""
    return written, (f"{volume.dtype} is written as {dtype}, which the layer holds{how}",)


def without_dim_chunks(written: Volume, judged: Volume, threshold: float, chunk: Zyx, origin: Zyx) -> Volume:
    """Return a volume that is zero in the chunks in which all voxels of another one are below a threshold."""
    reads = functools.partial(BoundingBox.align, unit=chunk, origin=origin)
    return written.map_boxes(
        _blanked, judged, reads=reads, spec=written.spec, threshold=threshold, chunk=chunk, origin=origin
    )


def _blanked(
    array: Array, judged: Array, box: BoundingBox, read_box: BoundingBox, threshold: float, chunk: Zyx, origin: Zyx
) -> Array:
    out = array.copy()
    for one in BlockGrid(read_box, chunk, origin):
        place = (..., *one.slices(read_box))
        if (judged[place] < threshold).all():
            out[place] = 0
    return out[(..., *box.slices(read_box))]


def _window(mip: int) -> Zyx:
    """Return the voxels of a level (zyx) that make one of a thumbnail."""
    return (1, 2 ** (_THUMBNAIL_MIP - mip), 2 ** (_THUMBNAIL_MIP - mip))


def _thumbnail(volume: Volume, mip: int) -> Volume:
    """Return the last channel as uint8, averaged in y and x to the level of thumbnails."""
    if mip >= _THUMBNAIL_MIP or volume.spec.kind == "segmentation":
        raise ParameterError(
            f"a thumbnail is level {_THUMBNAIL_MIP} of an image; this is level {mip} of {volume.dtype}"
            f" ({volume.spec.kind})"
        )
    last = volume if volume.channels is None else pick_channels(volume, channels=[volume.channels - 1])
    grey = astype(last, dtype="uint8", unit_range=True)
    return downsample_volume(declare(grey, layer_type="image"), factor=_window(mip), method="mean")
