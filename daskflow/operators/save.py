"""A volume into a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx, as_zyx
from daskflow.jobs import Job
from daskflow.jobs.merging import evaluate_stage, file_stages
from daskflow.jobs.provenance import WriteProvenance
from daskflow.jobs.sinks import FileSink, LayerSink, safe_name
from daskflow.stores import Layout, kvstore
from daskflow.stores.opening import open_store, split_dataset, target_format
from daskflow.volume import Flag, Stage, Volume, operator
from daskflow.volume.node import Stored

_CHUNK: Zyx = (64, 64, 64)


@operator(group="stores")
def save(
    volume: Volume,
    url: str | os.PathLike[str],
    *,
    mip: Annotated[int, Flag("-m")] = 0,
    format: str | None = None,  # noqa: A002
    chunk: Annotated[Sequence[int] | None, Flag("-c")] = None,
    shard: Sequence[int] | None = None,
    encoding: Annotated[str | None, Flag("-e")] = None,
    quality: int | None = None,
    compression: str | None = None,
    block: Annotated[Sequence[int] | None, Flag("-b")] = None,
) -> Job:
    """Write a volume to a store, as a job that can be stopped and resumed.

    The format follows from the ending (.zarr, .h5, .tif, .npy) and is precomputed without one. A layer that exists and
    agrees is written into; one that differs is refused.

    Args:
        volume: what is written.
        url: path or URL of the layer or file; ``file.h5:dataset`` names a dataset.
        mip: pyramid level that is written, 0 is the finest.
        format: name of the format, to override the ending.
        chunk: voxels per chunk (zyx); by default as in the existing layer or the source, else 64 64 64.
        shard: voxels per shard (zyx), a multiple of the chunk.
        encoding: of chunks: raw, png, jpeg, compressed_segmentation in precomputed; a codec in zarr.
        quality: of a lossy encoding, or level of a codec.
        compression: second stage: gzip, br, zstd or none, where the format has one. Precomputed layers on local disk
            get CloudVolume's names (.gz, .br), which CloudVolume and daskflow read and tensorstore alone does not.
        block: voxels per block of work (zyx), whole chunks and shards.

    Returns:
        The job; nothing has been written.

    Raises:
        AlignmentError: a block would share a chunk or shard with another.
        ParameterError: the format cannot hold the volume, or it would overwrite what it is computed from.
        MetadataMismatchError: when the job is planned or run, if the layer exists and differs.
    """
    target, rest = target_format(url, format)
    rest, dataset = split_dataset(rest)
    location = kvstore.normalise(rest)
    _refuse_own_source(volume, location, mip)
    layout = Layout(
        chunk=None if chunk is None else as_zyx(chunk, name="chunk"),
        shard=None if shard is None else as_zyx(shard, name="shard"),
        encoding=encoding,
        quality=quality,
        compression=compression,
    )
    work = None if block is None else as_zyx(block, name="block")
    leaf = safe_name(location)
    directory = f"{location}.daskflow/" if mip == 0 else f"{location}.mip{mip}.daskflow/"
    finish = (WriteProvenance(location, inside=target.name == "precomputed", mip=mip),)
    if target.create is not None:
        layout = _completed(layout, volume.spec, location, target.name, mip)
        sink = LayerSink(location, volume.spec, mip, target.name, layout)
        stages: tuple[Stage, ...] = (evaluate_stage(f"save-{leaf}", volume, sink, block=work),)
    else:
        if mip:
            raise ParameterError(f"{target.name} files have no mips; got mip={mip}")
        gathered = FileSink(location, volume.spec, target.name, layout, dataset)
        stages = file_stages(leaf, volume, gathered, block=work)
    return Job((*volume.expression.stages, *stages), directory, name=f"save-{leaf}", finish=finish)


def _refuse_own_source(volume: Volume, location: str, mip: int) -> None:
    """Refuse to write where the volume is read from: a block would read what its neighbour has overwritten."""
    waited = (getattr(stage.task, "expression", None) for stage in volume.expression.stages)
    expressions = [volume.expression, *(one for one in waited if one is not None)]
    for node in (node for expression in expressions for node in expression.nodes):
        if isinstance(node, Stored) and (node.store.url, node.store.mip) == (location, mip):
            raise ParameterError(
                f"{location} is what the volume is computed from; write to another layer or another mip"
            )


def _completed(layout: Layout, spec: VolumeSpec, location: str, format_name: str, mip: int) -> Layout:
    """Return the layout with the chunk and shard that an existing layer, or else the source, has."""
    if layout.chunk is not None:
        return layout
    try:
        there = open_store(location, mip=mip, format=format_name).spec
    except StoreNotFoundError:
        chunk = (spec.chunk or _CHUNK) if layout.shard is None else _CHUNK
        return Layout(_within(chunk, spec.box), layout.shard, layout.encoding, layout.quality, layout.compression)
    return Layout(there.chunk, layout.shard or there.shard, layout.encoding, layout.quality, layout.compression)


def _within(block: Zyx, box: BoundingBox) -> Zyx:
    z, y, x = (max(1, min(b, s)) for b, s in zip(block, box.shape, strict=True))
    return z, y, x
