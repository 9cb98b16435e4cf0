"""Pyramid levels, into the layer that a volume was opened from, or saved in."""

from __future__ import annotations

from collections.abc import Sequence

from daskflow.config import parse_bytes
from daskflow.errors import BoundsError, ParameterError
from daskflow.geometry import BoundingBox, Zyx, as_zyx
from daskflow.jobs import Job
from daskflow.jobs.sinks import LayerSink, NoteBackground, safe_name
from daskflow.layers.provenance import WriteProvenance
from daskflow.operators import options
from daskflow.operators.geometry.crop import crop
from daskflow.operators.stores.downsample.kernels import Downsampling
from daskflow.operators.stores.downsample.levels import (
    MOST_LEVELS,
    NewLevels,
    chosen_method,
    passes,
    sensible_levels,
    unit_of_all,
)
from daskflow.operators.stores.downsample.passes import Pass, stage, stages_after
from daskflow.stores import Layout, Store
from daskflow.volume import Volume, operator

_CHUNK: Zyx = (64, 64, 64)


@operator()
def downsample(
    volume: Volume,
    *,
    levels: int | None = None,
    factor: options.Factor = (1, 2, 2),
    method: options.Method = "auto",
    sparse: options.Sparse = False,
    start: options.Start | None = None,
    stop: options.Stop | None = None,
    size: options.Size | None = None,
    chunk: options.Chunk | None = None,
    shard: options.Shard | None = None,
    encoding: options.Encoding | None = None,
    quality: options.Quality | None = None,
    effort: options.Effort | None = None,
    compression: options.Compression | None = None,
    delete_background: options.DeleteBackground = False,
    background: options.Background = 0,
    overwrite: options.Overwrite = False,
    memory: options.Memory = "512MB",
) -> Job:
    """Write pyramid levels above a stored volume, into the layer it was opened from or just saved in.

    One pass writes as many levels as blocks of `memory` bytes allow, the next goes on from the last of them, and the
    result is the same for any: means of integers are exact over all levels, floor(sum / count). A level that exists and
    agrees is written into, where it has no chunks yet; one that differs is refused. Levels above are left as they are.
    What no option says is as in the level below. Of a box, grown to whole chunks of every level, only that is made.

    Args:
        volume: the stored volume, opened at the mip to start from, or what the same job saves.
        levels: how many; by default until a chunk holds the volume along the axes that shrink.

    Returns:
        The job; nothing has been written.

    Raises:
        ParameterError: the volume is not just stored in a layer of chunks, or cannot be downsampled so.
        MetadataMismatchError: when the job is checked, as `--plan` does, or run, if a level exists and differs.
        AlreadyStoredError: then, too, if chunks that this job has not written lie where it writes.
    """
    store = _stored(volume)
    box = volume.box
    if not start is stop is size is None:
        box = crop(volume, start=start, stop=stop, size=size).box
    how = Downsampling(as_zyx(factor, name="factor"), chosen_method(volume.spec, method), sparse)
    how.check(volume.dtype)
    assert store.opened is not None
    budget = parse_bytes(memory)
    asked = options.layout_of(chunk, shard, encoding, quality, effort, compression)
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
    source = volume.node.saved or store
    assert isinstance(source, Store | LayerSink)
    stages = (stage(first, source, store.spec.chunk or _CHUNK, region), *stages_after(first, others, region))
    name = f"mip{store.mip + 1}-{store.mip + count}" + (f".{region}" if region is not None else "")
    finish = WriteProvenance(store.provenance_url(store.url), store.mip + 1, count)
    noted = (NoteBackground(sinks),) if region is None else ()
    title = f"downsample-{safe_name(store.url)}"
    home = f"{store.url}.{name}.daskflow/"
    return Job(stages, home, name=title, finish=(*noted, finish))


def _stored(volume: Volume) -> Store:
    store = volume.home
    if store is None or store.opened is None:
        raise ParameterError(
            "downsample writes into the layer that a volume was opened from, and this one is computed or an array; "
            "save it with levels=, open what was saved, or make a coarser volume: downsample_volume"
            " (-o NAME on the command line)"
        )
    if not store.of_chunks:
        raise ParameterError(f"{store.opened.format} files hold no levels; save the volume as a layer with levels=")
    return store


def _region(box: BoundingBox, all_passes: Sequence[Pass]) -> BoundingBox:
    """Return the box grown to blocks that every pass can work on alone."""
    finest = all_passes[0].finest.box
    if box.empty:
        raise BoundsError(f"box {box} holds no voxel")
    return box.align(unit_of_all(all_passes), finest.start).clip(finest)
