"""What is known of a volume before any voxel is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry.box import BoundingBox, Zyx, as_zyx

LayerType = Literal["image", "segmentation", "affinity_map", "probability_map"]
LAYER_TYPES: tuple[LayerType, ...] = get_args(LayerType)


VoxelSize = tuple[float, float, float]
_LABEL_BYTES = 4


def as_voxel_size(value: float | Iterable[float]) -> VoxelSize:
    """Return nanometres per voxel (zyx); a single number stands for all three axes.

    Raises:
        GeometryError: not one or three positive numbers.
    """
    try:
        sizes = tuple(map(float, value)) if isinstance(value, Iterable) else (float(value),)
    except (TypeError, ValueError):
        sizes = ()
    sizes *= 3 if len(sizes) == 1 else 1
    if len(sizes) != 3 or not all(0 < size < float("inf") for size in sizes):
        raise GeometryError(f"voxel size {value!r} nm must be one or three positive numbers (zyx)")
    return (sizes[0], sizes[1], sizes[2])


@dataclass(frozen=True)
class VolumeSpec:
    """The geometry and meaning of one mip of a volume.

    Attributes:
        box: the voxels it holds, in its own global coordinates (zyx).
        dtype: type of a voxel, in this machine's byte order.
        channels: size of the channel axis; None when arrays are zyx instead of czyx.
        voxel_size: nm per voxel (zyx); None when unknown.
        coarseness: voxels of the source in one of these (zyx), where `voxel_size` is unknown.
        shift: where voxel 0 begins (nm, zyx), not 0 for a level whose offset was rounded; no part of equality.
        chunk: voxels per storage chunk (zyx); None when nothing is stored in chunks.
        shard: voxels per shard (zyx), a multiple of `chunk`; None without shards.
        chunk_origin: the corner from which chunks and shards are counted; by default `box.start`.
        layer_type: image, segmentation, affinity_map, probability_map, or None when unknown.
        channel_names: one name per channel, or empty.

    Raises:
        GeometryError: sizes below 1, or a shard that is not a multiple of the chunk.
        ParameterError: voxels that are not real numbers, an unknown layer type, or names that do not match channels.
    """

    box: BoundingBox
    dtype: np.dtype[Any]
    channels: int | None = None
    voxel_size: VoxelSize | None = None
    coarseness: VoxelSize = (1.0, 1.0, 1.0)
    shift: tuple[float, float, float] = dataclasses.field(default=(0.0, 0.0, 0.0), compare=False)
    chunk: Zyx | None = None
    shard: Zyx | None = None
    chunk_origin: Zyx | None = None
    layer_type: LayerType | None = None
    channel_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "dtype", np.dtype(self.dtype).newbyteorder("="))
        if self.voxel_size is not None:
            put(self, "voxel_size", as_voxel_size(self.voxel_size))
        put(self, "coarseness", as_voxel_size(self.coarseness) if self.voxel_size is None else (1.0, 1.0, 1.0))
        put(self, "chunk_origin", as_zyx(self.box.start if self.chunk_origin is None else self.chunk_origin))
        put(self, "channel_names", tuple(self.channel_names))
        for name in ("chunk", "shard"):
            value = getattr(self, name)
            if value is not None:
                put(self, name, as_zyx(value, name=name))
                if min(getattr(self, name)) < 1:
                    raise GeometryError(f"{name} {value} zyx must be at least 1 on every axis")
        if self.dtype.kind not in "biuf" or self.dtype.itemsize > 8:  # no file holds float128
            raise ParameterError(_no_voxels(self.dtype))
        if self.channels is not None and self.channels < 1:
            raise GeometryError(
                f"channels {self.channels} must be at least 1, or None for a volume without a channel axis"
            )
        if self.layer_type is not None and self.layer_type not in LAYER_TYPES:
            raise ParameterError(f"layer type {self.layer_type!r} is none of {', '.join(LAYER_TYPES)}")
        if self.channel_names and len(self.channel_names) != (self.channels or 1):
            raise ParameterError(
                f"{len(self.channel_names)} channel names {self.channel_names} for {self.channels or 1} channels"
            )
        self._check_shard()

    def _check_shard(self) -> None:
        if self.shard is None:
            return
        if self.chunk is None or any(s % c for s, c in zip(self.shard, self.chunk, strict=True)):
            raise GeometryError(f"shard {self.shard} zyx is not a multiple of the chunk {self.chunk}")

    @property
    def ndim(self) -> int:
        """3 (zyx) or 4 (czyx)."""
        return 3 if self.channels is None else 4

    @property
    def kind(self) -> LayerType:
        """The layer type; where it is unknown, segmentation of 32 and 64 bit integers in one channel, else image."""
        if self.layer_type is not None:
            return self.layer_type
        wide = self.dtype.kind in "ui" and self.dtype.itemsize >= _LABEL_BYTES
        return "segmentation" if wide and self.channels in (None, 1) else "image"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole as an array: zyx, or czyx with channels."""
        return self.shape_of(self.box)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole, uncompressed."""
        return self.nbytes_of(self.box)

    @property
    def write_unit(self) -> Zyx | None:
        """The shape that one writer must own: the shard, else the chunk, else None (no chunks)."""
        return self.shard or self.chunk

    def shape_of(self, box: BoundingBox) -> tuple[int, ...]:
        """Return the shape of the array that holds `box`: zyx, or czyx with channels."""
        return box.shape if self.channels is None else (self.channels, *box.shape)

    def nbytes_of(self, box: BoundingBox) -> int:
        """Return the bytes of the array that holds `box`."""
        return box.size * (self.channels or 1) * self.dtype.itemsize

    @property
    def spacing(self) -> VoxelSize:
        """Size of a voxel (zyx): nm, where an unknown voxel of the source is taken as 1 nm."""
        return self.voxel_size or self.coarseness

    @property
    def size_text(self) -> str:
        """The voxel size as people read it, e.g. ``40x4x4 nm`` (zyx), or that it is unknown."""
        if self.voxel_size is None:
            return "voxel size unknown"
        return "x".join(f"{v:g}" for v in self.voxel_size) + " nm"

    def ratio(self, other: VolumeSpec) -> VoxelSize:
        """Return how many voxels of `other` make one of this along each axis.

        Where one of the two voxel sizes is unknown, both are taken to have the same.
        """
        known = self.voxel_size is not None and other.voxel_size is not None
        own, given = (self.spacing, other.spacing) if known else (self.coarseness, other.coarseness)
        z, y, x = (a / b for a, b in zip(own, given, strict=True))
        return z, y, x

    @property
    def corner(self) -> tuple[float, float, float]:
        """Where the volume begins: nm (zyx) of the low corner of its first voxel."""
        z, y, x = (n * v + s for n, v, s in zip(self.box.start, self.spacing, self.shift, strict=True))
        return z, y, x

    def beginning_at(self, corner: tuple[float, float, float]) -> Self:
        """Return a copy whose first voxel begins at a place (nm, zyx) that its offset only comes near to."""
        z, y, x = (c - n * v for c, n, v in zip(corner, self.box.start, self.spacing, strict=True))
        return self.replace(shift=(z, y, x))

    def coarsened(self, factor: Zyx, **changes: Any) -> Self:
        """Return a copy whose voxels are `factor` (zyx) times as large, with further fields changed."""
        larger = tuple(v * f for v, f in zip(self.spacing, factor, strict=True))
        return self.replace(**{"coarseness" if self.voxel_size is None else "voxel_size": larger}, **changes)

    def of_labels(self, dtype: npt.DTypeLike | None = None) -> Self:
        """Return a copy for labels of these voxels, without channels and in any chunks; of the same dtype if None."""
        return self.replace(
            dtype=self.dtype if dtype is None else np.dtype(dtype),
            channels=None,
            channel_names=(),
            layer_type="segmentation",
            chunk=None,
            shard=None,
        )

    def held(self, value: float) -> float:
        """Return a number as the voxels hold it.

        Raises:
            ParameterError: they cannot.
        """
        if self.dtype.kind == "f":
            return float(value)
        limits = (0, 1) if self.dtype.kind == "b" else (np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)
        if value != int(value) or not limits[0] <= value <= limits[1]:
            raise ParameterError(
                f"{self.dtype} cannot hold {value:g}; it holds whole numbers from {limits[0]} to {limits[1]}"
            )
        return int(value)

    def factor(self, finer: VolumeSpec) -> Zyx:
        """Return how many voxels of a finer level make one of this (zyx), rounded."""
        z, y, x = (max(1, round(ratio)) for ratio in self.ratio(finer))
        return z, y, x

    def on_finer(self, box: BoundingBox, finer: VolumeSpec) -> BoundingBox:
        """Return the voxels of a finer level that a box of this was made from; levels begin at one corner."""
        z, y, x = self.box.start
        return box.shift((-z, -y, -x)).refine(self.factor(finer)).shift(finer.box.start)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; it is checked again."""
        return dataclasses.replace(self, **changes)


def _no_voxels(dtype: np.dtype[Any]) -> str:
    if dtype.kind != "c":
        return f"volumes hold numbers, not {dtype}; convert them, e.g. array.astype('float32')"
    return (
        f"volumes hold real numbers, not {dtype}: take numpy.abs(array), or real and imaginary parts as two channels"
        " numpy.stack([array.real, array.imag]), .astype('float32') if need be"
    )
