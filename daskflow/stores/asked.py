"""What is asked of a store: how a new layer is laid out, and how one that exists is opened."""

from __future__ import annotations

from dataclasses import dataclass

from daskflow.errors import GeometryError
from daskflow.geometry import LayerType, Zyx, as_zyx


@dataclass(frozen=True)
class Layout:
    """How voxels are laid out and compressed in a new layer; None leaves the choice to the format.

    Attributes:
        chunk: voxels per chunk (zyx).
        shard: voxels per shard (zyx), a multiple of `chunk`; None without shards.
        encoding: precomputed: raw, png, jpeg, jxl, compressed_segmentation, compresso, crackle, fpzip, zfpc; zarr: a
            codec, e.g. zstd, blosc, raw.
        quality: of a lossy encoding (fpzip: bits kept of each number), or the level of a codec that has levels.
        compression: second stage where the format has one: gzip, br, zstd or none.
        effort: of an encoding that may search longer for fewer bytes.
    """

    chunk: Zyx | None = None
    shard: Zyx | None = None
    encoding: str | None = None
    quality: int | None = None
    compression: str | None = None
    effort: int | None = None

    def __post_init__(self) -> None:
        for name in ("chunk", "shard"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_zyx(getattr(self, name), name=name))
                if min(getattr(self, name)) < 1:
                    raise GeometryError(f"{name} {getattr(self, name)} zyx must be at least 1 on every axis")


@dataclass(frozen=True)
class Opening:
    """How a caller wants a layer opened; what is given wins over what a file says, which is often wrong.

    A precomputed layer, whose info is the format itself, refuses axes, a time, another voxel size or offset.

    Attributes:
        mip: level, 0 is the finest.
        fill_missing: read missing chunks as zeros and count them.
        dataset: name inside a file that holds several arrays.
        voxel_size: nm (zyx).
        voxel_offset: global coordinates of the first voxel (zyx).
        layer_type: meaning of the voxels.
        axes: names of the stored axes, e.g. ``zyxc``.
        time: point of a time axis, from 0.
    """

    mip: int = 0
    fill_missing: bool = False
    dataset: str | None = None
    voxel_size: tuple[float, float, float] | None = None
    voxel_offset: Zyx | None = None
    layer_type: LayerType | None = None
    axes: str | None = None
    time: int | None = None


@dataclass(frozen=True)
class Opened:
    """How a store came to be.

    Attributes:
        format: name of the format.
        url: what was opened (normalised); the store's own may lie below it.
        opening: what the caller stated.
    """

    format: str
    url: str
    opening: Opening
