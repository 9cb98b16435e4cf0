"""Pyramid levels, into the layer that a volume was opened from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from daskflow.config import parse_bytes
from daskflow.errors import BoundsError, ParameterError
from daskflow.geometry import BoundingBox, Zyx, as_zyx
from daskflow.jobs import Job
from daskflow.jobs.sinks import NoteBackground, safe_name
from daskflow.layers.provenance import WriteProvenance
from daskflow.operators.geometry.crop import crop
from daskflow.operators.stores.downsample.kernels import Downsampling
from daskflow.operators.stores.downsample.levels import MOST_LEVELS, NewLevels, chosen_method, sensible_levels
from daskflow.operators.stores.downsample.passes import Pass, passes, unit_of_all
from daskflow.operators.stores.downsample.stages import stage, stages_after
from daskflow.stores import Layout, Store
from daskflow.stores.opening import format_named
from daskflow.volume import Flag, Volume, operator

_CHUNK: Zyx = (64, 64, 64)


@operator()
def downsample(
    volume: Volume,
    *,
    levels: Annotated[int | None, Flag("-l")] = None,
    factor: Annotated[Sequence[int], Flag("-f")] = (1, 2, 2),
    method: Literal["auto", "mean", "mode", "min", "max", "stride"] = "auto",
    sparse: bool = False,
    start: Sequence[int] | None = None,
    stop: Sequence[int] | None = None,
    chunk: Annotated[Sequence[int] | None, Flag("-c")] = None,
    shard: Sequence[int] | Literal["auto"] | None = None,
    encoding: Annotated[str | None, Flag("-e")] = None,
    quality: int | None = None,
    compression: str | None = None,
    delete_background: bool = False,
    background: float = 0,
    overwrite: bool = False,
    memory: str = "512MB",
) -> Job:
    """Write pyramid levels above a stored volume, into the layer it was opened from.

    One pass writes as many levels as blocks of `memory` bytes allow, the next goes on from the last of them, and the
    result is the same for any: means of integers are exact over all levels, floor(sum / count). A level that exists and
    agrees is written into, where it has no chunks yet; one that differs is refused. Levels above are left as they are.

    Args:
        volume: the stored volume, opened at the mip to start from.
        levels: how many; by default until a chunk holds the volume along the axes that shrink.
        factor: voxels per window (zyx), e.g. 2 2 2.
        method: what becomes of a window; auto is the mean of images and the mode of segmentations.
        sparse: leave zeros out of means and modes wherever there is something else.
        start: corner of the box to work on (zyx), grown to whole chunks of every level; by default the volume's.
        stop: end of that box (zyx).
        chunk: voxels per chunk of the levels (zyx); by default as below.
        shard: voxels per shard (zyx), or auto for shards of about `memory` bytes; by default as below.
        encoding: of chunks; by default as below.
        quality: of a lossy encoding, or level of a codec.
        compression: second stage, e.g. gzip; by default as below.
        delete_background: leave out chunks that hold nothing but background; where whole levels are written, their
            metadata say what these hold, so that daskflow reads them as that.
        background: the value that such chunks hold.
        overwrite: replace levels that another job or program has written, and start over a job that differs.
        memory: what the voxels of a block may take, e.g. 2GB; one level is written at least.

    Returns:
        The job; nothing has been written.

    Raises:
        ParameterError: the volume is not just stored in a layer of chunks, or cannot be downsampled so.
        MetadataMismatchError: when the job is checked, as `--plan` does, or run, if a level exists and differs.
        AlreadyStoredError: then, too, if chunks that this job has not written lie where it writes.
    """
    store = _stored(volume)
    box = (volume if start is None and stop is None else crop(volume, start=start, stop=stop)).box
    how = Downsampling(as_zyx(factor, name="factor"), chosen_method(volume.spec, method), sparse)
    how.check(volume.dtype)
    assert store.opened is not None
    budget = parse_bytes(memory)
    asked = Layout(chunk, None if shard == "auto" else shard, encoding, quality, compression)  # type: ignore[arg-type]
    otherwise = store.layout if store.spec.chunk else Layout(chunk=_CHUNK)
    above = asked.chunk or otherwise.chunk or _CHUNK
    count = sensible_levels(store.spec.box.shape, above, how.factor) if levels is None else levels
    if not 1 <= count <= MOST_LEVELS:
        raise ParameterError(f"levels {count} must be 1 to {MOST_LEVELS}")
    new = NewLevels(
        url=store.url,
        format=store.opened.format,
        mip=store.mip,
        count=count,
        how=how,
        layout=asked,
        otherwise=otherwise,
        shard_memory=budget if shard == "auto" else None,
        drop=volume.spec.held(background) if delete_background else None,
        overwrite=overwrite,
    )
    sinks = new.sinks(store.spec)
    first, *others = passes(how, store.spec, sinks, memory=budget)
    region = None if box == store.spec.box else _region(box, (first, *others))
    stages = (stage(first, store, store.spec.chunk or _CHUNK, region), *stages_after(first, others, region))
    name = f"mip{store.mip + 1}-{store.mip + count}" + (f".{region}" if region is not None else "")
    finish = WriteProvenance(store.provenance_url(store.url), store.mip + 1, count)
    noted = (NoteBackground(sinks),) if region is None else ()
    title = f"downsample-{safe_name(store.url)}"
    home = f"{store.url}.{name}.daskflow/"
    return Job(stages, home, name=title, finish=(*noted, finish))


def _stored(volume: Volume) -> Store:
    store = volume.stored
    if store is None or store.opened is None:
        raise ParameterError(
            "downsample writes into the layer that a volume was opened from, and this one is computed or an array; "
            "save it with levels=, or open what was saved"
        )
    if format_named(store.opened.format).create is None:
        raise ParameterError(f"{store.opened.format} files hold no levels; save the volume as a layer with levels=")
    return store


def _region(box: BoundingBox, all_passes: Sequence[Pass]) -> BoundingBox:
    """Return the box grown to blocks that every pass can work on alone."""
    finest = all_passes[0].finest.box
    if box.empty:
        raise BoundsError(f"box {box} holds no voxel")
    return box.align(unit_of_all(all_passes), finest.start).clip(finest)
