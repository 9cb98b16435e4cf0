"""What every store answers, and how a format declares itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import (
    AlignmentError,
    BoundsError,
    CorruptChunkError,
    GeometryError,
    MetadataMismatchError,
    MissingChunkError,
    ParameterError,
    StoreError,
    StoreNotFoundError,
)
from daskflow.geometry import BlockGrid, BoundingBox, LayerType, VolumeSpec, Zyx, as_zyx
from daskflow.stores import kvstore

Array = npt.NDArray[Any]


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


class Store(ABC):
    """The voxels of one mip at one location; cheap to build, small to pickle, safe to use from several threads.

    Subclasses answer `_read`, `_write`, `fingerprint` and `check_writable`; handles are opened lazily.

    Attributes:
        url: where it is, with a scheme.
        mips: the spec of every level, finest first.
        mip: the level that is read and written.
        fill_missing: read chunks that were never written as zeros (and count them) instead of raising.
        background: what chunks hold that were left out, as the metadata say; None where every chunk is stored.
        opened: how `open_store` or `create_store` was asked for it; None for a store that was made otherwise.
        sources: where axes, voxel_size, voxel_offset, layer_type and channel_names come from, in words; empty when the
            format itself says them.
    """

    opened: Opened | None = None
    background: float | None = None
    sources: Mapping[str, str] = MappingProxyType({})

    def __init__(self, url: str, mips: Sequence[VolumeSpec], *, mip: int = 0, fill_missing: bool = False) -> None:
        check_mip(mip, len(mips), kvstore.redact(url))
        self.url = url
        self.mips = tuple(mips)
        self.mip = mip
        self.fill_missing = fill_missing

    def __repr__(self) -> str:
        return f"{type(self).__name__}({kvstore.redact(self.url)!r}, mip={self.mip})"

    @property
    def spec(self) -> VolumeSpec:
        """Geometry and meaning of the level that is read and written."""
        return self.mips[self.mip]

    @property
    def layout(self) -> Layout:
        """How the level is laid out and compressed, as far as it can be told; a new level can be made alike."""
        return Layout(chunk=self.spec.chunk, shard=self.spec.shard)

    @property
    def shared(self) -> bool:
        """Whether other processes see the same voxels; those at ``memory://`` URLs are of this process alone."""
        return not self.url.startswith("memory://")

    def with_mip(self, mip: int) -> Store:
        """Return the store of another level, opened with all that was stated when this one was.

        Raises:
            StoreNotFoundError: there is no such level.
            StoreError: the store was made otherwise than by `open_store` or `create_store`.
        """
        if mip == self.mip:
            return self
        check_mip(mip, len(self.mips), kvstore.redact(self.url))
        if self.opened is None:
            raise StoreError(f"{self} cannot be reopened at mip {mip}; open it by its URL")
        from daskflow.stores.opening import reopen

        stated, spec = self.opened.opening, self.mips[mip]
        opening = replace(
            stated,
            mip=mip,
            voxel_size=None if stated.voxel_size is None else spec.voxel_size,
            voxel_offset=None if stated.voxel_offset is None else spec.box.start,
        )
        return reopen(replace(self.opened, opening=opening))

    def read(self, box: BoundingBox) -> Array:
        """Return the voxels of `box` as a new C-ordered array, zyx or czyx.

        Raises:
            BoundsError: the box reaches outside `spec.box`.
            MissingChunkError: a chunk was never written, and `fill_missing` is off.
            CorruptChunkError: a chunk cannot be decoded.
            StoreAccessError: the location refuses.
        """
        if box not in self.spec.box:
            raise BoundsError(
                f"box {box} is not inside {self.spec.box} (z0-z1_y0-y1_x0-x1) "
                f"of mip {self.mip} of {kvstore.redact(self.url)}"
            )
        if box.empty:
            return np.empty(self.spec.shape_of(box), self.spec.dtype)
        array = self._read(box)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def write(self, box: BoundingBox, array: Array, *, drop: float | None = None) -> None:
        """Store the voxels of `box`, which must be whole write units (shards, else chunks), cut at the volume's edge.

        Args:
            box: where.
            array: zyx or czyx.
            drop: chunks that hold nothing but this value are not stored, and deleted; they read as missing
                until that is noted.

        Raises:
            BoundsError: the box reaches outside `spec.box`.
            AlignmentError: the box would share a chunk or shard with another one.
            ParameterError: the array has another shape or dtype than the box and the store.
            StoreAccessError: the location refuses.
        """
        spec = self.spec
        check_aligned(box, spec, kvstore.redact(self.url))
        if array.shape != spec.shape_of(box):
            raise ParameterError(f"array of shape {array.shape} for box {box}, which takes {spec.shape_of(box)}")
        if array.dtype.newbyteorder("=") != spec.dtype:
            raise ParameterError(
                f"array of {array.dtype} for {kvstore.redact(self.url)}, which holds {spec.dtype}; "
                f"cast it with astype({spec.dtype.name!r})"
            )
        if box.empty:
            return
        array = array.astype(spec.dtype, copy=False)
        if drop is None:
            self._write(box, array)
        else:
            self._write_dropping(box, array, drop)

    @abstractmethod
    def _read(self, box: BoundingBox) -> Array:
        """Return the voxels of a box that is not empty and inside the volume."""

    @abstractmethod
    def _write(self, box: BoundingBox, array: Array) -> None:
        """Store an array whose box, shape and dtype were checked."""

    def _write_dropping(self, box: BoundingBox, array: Array, drop: float) -> None:  # noqa: ARG002
        """Do as `_write`, but store no chunk that holds nothing but `drop`, and delete it where there is one."""
        raise ParameterError(f"{kvstore.redact(self.url)} keeps every chunk; chunks of background cannot be deleted")

    def note_background(self, value: float) -> None:  # noqa: ARG002
        """Write down that chunks which are not stored hold `value`, so that they are read as that from now on."""
        raise ParameterError(f"{kvstore.redact(self.url)} keeps every chunk; there is no background to note")

    def stored_chunks(self, box: BoundingBox) -> Iterator[BoundingBox]:
        """Yield chunks, or shards, that share a voxel with `box` and are stored: some at least, if there are any.

        Where names do not tell, the first, the middle and the last chunk are read.
        """
        chunks = BlockGrid(box.clip(self.spec.box), self.spec.chunk or self.spec.box.shape, self.spec.chunk_origin)
        for number in sorted({0, len(chunks) // 2, len(chunks) - 1} if len(chunks) else ()):
            try:
                self.read(chunks[number])
            except MissingChunkError:
                continue
            except CorruptChunkError:
                pass
            yield chunks[number]

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return, as JSON, what changes when other voxels would be read; reading changes nothing of it.

        Of files it is location, size and time. Of layers of chunks it is the location, what the metadata say, the
        provenance that every job of daskflow rewrites and, on a local disk, the times of the directories of the chunks
        (at most 32 per level of directories, so a change of few chunks in a large nested array may go unnoticed);
        elsewhere the generation or ETag of the metadata, so that chunks which another program overwrites in a bucket
        without touching metadata go unnoticed.
        """

    @abstractmethod
    def check_writable(self) -> None:
        """Raise StoreAccessError, in less than a second, when the location refuses writes."""


def check_mip(mip: int, levels: int, url: str) -> None:
    """Raise unless level `mip` is one of the `levels` that `url` has.

    Raises:
        ParameterError: a negative mip.
        StoreNotFoundError: there is no such level; the message says which there are.
    """
    if mip < 0:
        raise ParameterError(f"mip {mip} must be at least 0 (the finest level)")
    if mip >= levels:
        there = "only mip 0" if levels == 1 else f"mips 0 to {levels - 1}" if levels else "no mip"
        raise StoreNotFoundError(f"{url} has no mip {mip}; it has {there}")


def check_aligned(box: BoundingBox, spec: VolumeSpec, url: str = "the volume") -> None:
    """Raise unless one writer may own `box`: whole write units, or up to the volume's edge.

    Raises:
        BoundsError: the box reaches outside `spec.box`.
        AlignmentError: it is not whole units; the message names the nearest box that is.
    """
    if box not in spec.box:
        raise BoundsError(f"box {box} is not inside {spec.box} (z0-z1_y0-y1_x0-x1) of {url}")
    unit = spec.write_unit
    if unit is None or box.empty:
        return
    assert spec.chunk_origin is not None
    nearest = box.align(unit, spec.chunk_origin).clip(spec.box)
    if nearest != box:
        kind = "shards" if spec.shard else "chunks"
        raise AlignmentError(
            f"box {box} (z0-z1_y0-y1_x0-x1) is not whole {kind} of {unit} voxels (zyx) from {spec.chunk_origin} "
            f"in {url}; nearest is {nearest}"
        )


ReadBox = Callable[[BoundingBox], Array]


def refuse_unknown_size(location: str, stored: VolumeSpec, spec: VolumeSpec) -> None:
    """Raise when voxels of unknown size would go into a level whose voxels are not of 1 nm.

    Raises:
        MetadataMismatchError: the message says how to state the size.
    """
    if spec.voxel_size is None and stored.voxel_size is not None and stored.spacing != spec.spacing:
        size = [f"{value:g}" for value in stored.voxel_size]
        raise MetadataMismatchError(
            f"{location} has voxels of {' x '.join(size)} nm (zyx), and the voxel size of what is written is unknown;"
            f" if it is the same, state it where the volume is opened: --voxel-size {' '.join(size)}"
            f" (voxel_size=({', '.join(size)}) in Python)"
        )


@dataclass(frozen=True)
class Format:
    """One format, declared by its module as ``FORMAT = Format(...)`` or by an entry point in ``daskflow.stores``.

    Attributes:
        name: as in ``format="precomputed"`` and in the prefix ``precomputed://``.
        open: (url, Opening) -> Store.
        recognises: whether what is at a URL (normalised) is in this format; must not raise when nothing is there.
        suffixes: endings of names that mean this format, with the dot; the longest wins;
            "" takes what nobody claims when writing.
        rank: among formats that recognise the same location, the lowest is asked first.
        prefixes: further names accepted before ``://``.
        create: (url, spec, mip, layout) -> Store, for formats of chunks that many writers share.
        write_file: (url, spec, read, layout, dataset), for files that one writer makes slab by slab and renames when
            whole.
        check_file: (url, spec, layout, dataset), which raises, before anything is computed, what is known to make
            `write_file` fail.
        datasets: whether ``file.suffix:dataset`` names an array inside the file.
        needs_voxel_size: whether its metadata cannot leave the voxel size open; an unknown one is written as 1 nm.
        levels: whether a layer of chunks can have several levels.
    """

    name: str
    open: Callable[[str, Opening], Store]
    recognises: Callable[[str], bool]
    suffixes: tuple[str, ...] = ()
    rank: int = 50
    prefixes: tuple[str, ...] = ()
    create: Callable[[str, VolumeSpec, int, Layout], Store] | None = None
    write_file: Callable[[str, VolumeSpec, ReadBox, Layout, str | None], None] | None = None
    check_file: Callable[[str, VolumeSpec, Layout, str | None], None] | None = None
    datasets: bool = False
    needs_voxel_size: bool = False
    levels: bool = True


def refuse_cast(dtype: np.dtype[Any], allowed: Sequence[str], target: str) -> None:
    """Raise when a format cannot hold a dtype, naming the cast to use.

    Raises:
        ParameterError: `dtype` is not among `allowed`.
    """
    if dtype.name in allowed:
        return
    wider = {"b": ("uint8",), "i": ("uint64", "uint32"), "u": ("uint32", "uint64"), "f": ("float32", "float64")}
    cast = next((name for name in wider.get(dtype.kind, ()) if name in allowed), allowed[0])
    raise ParameterError(
        f"{target} cannot hold {dtype.name}; cast with astype({cast!r}) (astype -d {cast})."
        f" It holds {', '.join(allowed)}"
    )


def refuse_mismatch(
    location: str,
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    advice: str = "delete it or write elsewhere",
) -> None:
    """Raise when metadata that exist differ from what would be written, showing each difference.

    Args:
        location: what is compared, for the message.
        stored: what is there, by name.
        wanted: what would be written; names that are absent here are not compared.
        advice: what to do then.

    Raises:
        MetadataMismatchError: a value differs.
    """
    lines = [
        f"  {name}: stored {stored.get(name)!r}, wanted {value!r}"
        for name, value in wanted.items()
        if stored.get(name) != value
    ]
    if lines:
        raise MetadataMismatchError("\n".join([f"{location} exists and differs; {advice}:", *lines]))
