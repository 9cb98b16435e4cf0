"""Options that several operators have, declared once: type, short option and help; a docstring may say more of one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, Zyx, as_zyx
from daskflow.stores import Layout
from daskflow.volume import Flag

Destination = Annotated[str | os.PathLike[str], "path or URL of what is written."]
Dtype = Annotated[
    Literal["uint8", "uint16", "uint32", "uint64", "float32", "float64"], Flag("-d"), "dtype of the result."
]
Mip = Annotated[int, Flag("-m"), "pyramid level: 0 is the finest, -1 the coarsest that is there."]
Overwrite = Annotated[bool, "replace what another job or program has stored there, and start over a job that differs."]

# a region of a volume
Start = Annotated[Sequence[int], Flag("-s"), "first voxel of the box (zyx); by default the volume's corner."]
Stop = Annotated[
    Sequence[int], Flag("-t"), "where the box ends (zyx), itself outside; by default the volume's far corner."
]
Size = Annotated[Sequence[int], Flag("-z"), "voxels of the box (zyx), instead of a stop; -1 is all from the start on."]

# how voxels are stored
Chunk = Annotated[
    Sequence[int],
    Flag("-c"),
    "voxels per chunk (zyx); by default as in the existing layer or the source, else 64 64 64.",
]
Shard = Annotated[
    Sequence[int] | Literal["auto"],
    "voxels per shard (zyx), a multiple of the chunk, or auto for shards of about `memory` bytes.",
]
Encoding = Annotated[
    str,
    Flag("-e"),
    "encoding of the chunks: raw, png, jpeg, jxl, compressed_segmentation, compresso, crackle, fpzip or zfpc in"
    " precomputed; a codec in zarr. By default that of the precomputed layer that is read, if it loses nothing.",
]
Quality = Annotated[
    int, "quality of jpeg or jxl (100 loses nothing), bits kept by fpzip, or level of png or a codec of zarr."
]
Effort = Annotated[int, "effort of the jxl encoder, 1 to 10."]
Compression = Annotated[
    str,
    "second stage: gzip, br, zstd or none, where the format has one; by default gzip in precomputed shards of what that"
    " makes smaller. Precomputed files on local disk get CloudVolume's names (.gz, .br), which CloudVolume and"
    " daskflow read and tensorstore alone does not.",
]
DeleteBackground = Annotated[
    bool,
    "leave out chunks that hold nothing but background; where whole levels are written, their metadata say what these"
    " hold, so that daskflow reads them as that.",
]
Background = Annotated[float, "the value that counts as background."]

# how levels are made
Factor = Annotated[Sequence[int], Flag("-f"), "voxels per window of a level (zyx), e.g. 2 2 2."]
Method = Annotated[
    Literal["auto", "mean", "mode", "min", "max", "stride"],
    "what becomes of a window; auto is the mean of images and the mode of segmentations.",
]
Sparse = Annotated[bool, "leave zeros out of means and modes wherever there is something else."]
Memory = Annotated[
    str | int, "what the voxels of a block may take, e.g. 2GB, to write a further level in the same pass."
]

# objects of labels, and which labels
Labels = Annotated[Sequence[int], "only these labels; by default all."]
ExcludeLabels = Annotated[Sequence[int], "labels to leave out."]
Dust = Annotated[int, "labels of fewer voxels in the whole volume are left out."]
FillHoles = Annotated[
    bool | int,
    "how far what a label encloses belongs to it: 0 not at all, 1 all that it encloses, 2 also what it encloses in a"
    " side of the volume, 3 also what it nearly encloses (it is grown by a voxel, filled, and shrunk again). Labels in"
    " holes are objects all the same. Takes the volume as one block.",
]
Lods = Annotated[int, "levels of detail beside the finest, at most; each may differ twice as much as the last."]
MaxError = Annotated[float, "nm that simplification may move the surface."]
MaxLabelsPerShard = Annotated[int, "about how many objects a shard has at most."]
MinShards = Annotated[int, "about how many shards there are at least."]
ShardIndexBytes = Annotated[int, "bytes of a shard's index, before there are more shards."]
MinishardIndexBytes = Annotated[int, "bytes of a minishard's index, before there are more minishards."]
IndexEncoding = Annotated[Literal["gzip", "raw"], "how the indexes of minishards are compressed."]
MinChunk = Annotated[
    Sequence[int], "voxels (zyx) of the smallest piece of the finest level; small objects have fewer levels."
]
FileCompression = Annotated[
    Literal["none", "gzip", "br"],
    "how files that are not shards are compressed: none, gzip or br, with CloudVolume's names (.gz, .br) on a local"
    " disk.",
]


class ShardOptions(NamedTuple):
    """What shards of objects are to be like, as `object_sharding` takes it."""

    max_labels_per_shard: int
    min_shards: int
    shard_index_bytes: int
    minishard_index_bytes: int
    minishard_index_encoding: str
    data_encoding: str = "raw"


def part_of(
    whole: BoundingBox, start: Sequence[int] | None, stop: Sequence[int] | None, size: Sequence[int] | None
) -> BoundingBox:
    """Return the box that the options of a region name, which may reach outside `whole`; -1 is all that is left.

    Raises:
        ParameterError: both a stop and a size.
    """
    if stop is not None and size is not None:
        raise ParameterError(f"both a stop {stop} and a size {size} are given; drop one of them")
    first = whole.start if start is None else as_zyx(start, name="start")
    if size is not None:
        ends = (e if s == -1 else f + s for f, s, e in zip(first, as_zyx(size, name="size"), whole.stop, strict=True))
        return BoundingBox(first, as_zyx(ends))
    return BoundingBox(first, whole.stop if stop is None else as_zyx(stop, name="stop"))


def both_sides(margin: Sequence[int], *, least: int = 0) -> tuple[Zyx, Zyx]:
    """Return what is meant on the low and on the high sides (zyx) by six numbers, or by three for both.

    Raises:
        ParameterError: not three or six numbers, or one below `least`.
    """
    numbers = list(margin)
    if len(numbers) not in (3, 6) or min(numbers) < least:
        raise ParameterError(f"margin {margin} must be three or six numbers of at least {least}: low z y x, high z y x")
    return as_zyx(numbers[:3], name="margin"), as_zyx(numbers[-3:], name="margin")


def layout_of(
    chunk: Sequence[int] | None,
    shard: Sequence[int] | Literal["auto"] | None,
    encoding: str | None,
    quality: int | None,
    effort: int | None,
    compression: str | None,
) -> Layout:
    """Return what the options of storage ask for, with no shard where that is chosen by memory."""
    return Layout(
        chunk=None if chunk is None else as_zyx(chunk, name="chunk"),
        shard=None if shard is None or shard == "auto" else as_zyx(shard, name="shard"),
        encoding=encoding,
        quality=quality,
        compression=compression,
        effort=effort,
    )
