"""What every store is asked and answers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from daskflow.errors import (
    BoundsError,
    CorruptChunkError,
    GeometryError,
    MissingChunkError,
    ParameterError,
    StoreAccessError,
    StoreError,
)
from daskflow.geometry import BlockGrid, BoundingBox, LayerType, VolumeSpec, Zyx, as_zyx
from daskflow.stores import kvstore
from daskflow.stores.refusals import check_aligned, check_mip

Array = npt.NDArray[Any]
DEFAULT_CHUNK: Zyx = (64, 64, 64)
MOST_MEMBERS = 1000  # of a group; further ones are not listed
ReadBox = Callable[[BoundingBox], Array]
NUMBERS = (
    "bool",
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64"),
)


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


class StoredObject(NamedTuple):
    """A chunk or shard in storage.

    Attributes:
        url: where it is.
        size: bytes; 0 in a bucket, where listings do not say.
        box: voxels (zyx) of a precomputed chunk file, from its name; None for others.
    """

    url: str
    size: int
    box: BoundingBox | None = None


class Member(NamedTuple):
    """An array or image inside a file or group; its name is as `dataset` takes it, its shape as stored."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Store(ABC):
    """The voxels of one mip at one location; cheap to build, small to pickle, safe to use from several threads.

    Subclasses answer `_read`, `_write`, `fingerprint` and `check_writable`; handles are opened lazily. What else a
    format can do, its stores say by the attributes and methods that have defaults here: how they are recognised and
    opened, and those that are `written` how they are made, by `create` or by `check_file` and `write_file`.

    Attributes:
        of_chunks: whether it is a layer of levels, whose chunks are objects that can be listed and removed.
        written: whether new ones can be made: layers chunk by chunk by many writers, files whole by one.
        sections: whether it is a directory of files, one per section, to which jobs with other sections add theirs.
        levelled: whether a layer of chunks can have several levels.
        needs_voxel_size: whether metadata cannot leave the voxel size open; an unknown one is written as 1 nm.
        encloses: whether a layer holds its provenance, meshes, skeletons and statistics, which else lie beside it.
        forgets: whether levels can be taken out of the metadata.
        shown: whether Neuroglancer reads all mips by itself, as a precomputed layer.
        url: where it is, with a scheme.
        mips: the spec of every level, finest first.
        mip: the level that is read and written.
        fill_missing: read chunks that were never written as zeros (and count them) instead of raising.
        background: what chunks hold that were left out, as the metadata say; None where every chunk is stored.
        opened: how `open_store` or `create_store` was asked for it; None for a store that was made otherwise.
        sources: where axes, voxel_size, voxel_offset, layer_type and channel_names come from, in words.
    """

    of_chunks: ClassVar[bool] = False
    written: ClassVar[bool] = False
    sections: ClassVar[bool] = False
    levelled: ClassVar[bool] = True
    needs_voxel_size: ClassVar[bool] = False
    encloses: ClassVar[bool] = False
    forgets: ClassVar[bool] = False
    shown: bool = False
    opened: Opened | None = None
    background: float | None = None
    sources: Mapping[str, str] = MappingProxyType({})

    def __init__(self, url: str, mips: Sequence[VolumeSpec], *, mip: int = 0, fill_missing: bool = False) -> None:
        check_mip(mip, len(mips), kvstore.redact(url))
        self.url = url
        self.mips = tuple(mips)
        self.mip = mip
        self.fill_missing = fill_missing

    @classmethod
    def recognises(cls, url: str) -> bool:  # noqa: ARG003
        """Return whether what is at a normalised URL is in this format; False when nothing is there."""
        return False

    @classmethod
    def open(cls, url: str, opening: Opening) -> Store:
        """Open what is at a normalised URL.

        Raises:
            StoreNotFoundError: nothing is there, or not that mip.
        """
        raise NotImplementedError

    @classmethod
    def create(cls, url: str, spec: VolumeSpec, mip: int, layout: Layout) -> Store:
        """Create one level of a layer of chunks, or open it when it is there and agrees.

        Raises:
            MetadataMismatchError: it is there and differs.
            ParameterError: the format cannot hold it.
        """
        raise NotImplementedError

    @classmethod
    def check_file(cls, url: str, spec: VolumeSpec, layout: Layout, dataset: str | None) -> None:
        """Raise, before anything is computed, what is known to make `write_file` fail."""
        raise NotImplementedError

    @classmethod
    def write_file(cls, url: str, spec: VolumeSpec, read: ReadBox, layout: Layout, dataset: str | None) -> None:
        """Write a file slab by slab and rename it when it is whole; `check_file` was asked before."""
        raise NotImplementedError

    @classmethod
    def members(cls, url: str) -> Iterator[Member]:  # noqa: ARG003
        """Yield the arrays and images that a file or group holds; nothing for what is one array."""
        yield from ()

    @classmethod
    def remains(cls, url: str) -> list[str]:  # noqa: ARG003
        """Return what can be said, a line each, of a layer whose metadata make no volume."""
        return []

    @classmethod
    def there(cls, url: str, spec: VolumeSpec) -> bool:  # noqa: ARG003
        """Return whether anything is stored where `write_file` would write a volume."""
        return kvstore.exists(url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({kvstore.redact(self.url)!r}, mip={self.mip})"

    @property
    def spec(self) -> VolumeSpec:
        """Geometry and meaning of the level that is read and written."""
        return self.mips[self.mip]

    @property
    def layout(self) -> Layout:
        """How the level is laid out and compressed, as far as it is known; a new level can be made alike."""
        return Layout(chunk=self.spec.chunk, shard=self.spec.shard)

    @property
    def options(self) -> Layout:
        """The encoding of chunks, its quality and effort, that a copy in the same format gets; none unless it has."""
        return Layout()

    @property
    def lossy(self) -> bool:
        """Whether voxels that are written may read as other values, so that copies of copies get worse."""
        return False

    @property
    def family(self) -> str:
        """Name of the format for people."""
        return "file" if self.opened is None else self.opened.format

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
        if spec.channels in (None, 1) and array.shape in (box.shape, (1, *box.shape)):
            array = array.reshape(spec.shape_of(box))
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

        Where names do not say, the first, the middle and the last chunk are read.
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

    def levels(self) -> list[Store]:
        """Return the stores of all levels, finest first.

        Raises:
            ParameterError: it is not a layer of chunks, but e.g. a TIFF file.
        """
        if not self.of_chunks:
            raise ParameterError(f"{kvstore.redact(self.url)} is one file, no layer of chunks")
        return [self.with_mip(mip) for mip in range(len(self.mips))]

    @property
    def directory(self) -> str:
        """URL of the directory that the chunks of the level are in."""
        return self.url

    @property
    def expected(self) -> int | None:
        """How many objects the level has when none is missing; None for files."""
        if not self.of_chunks:
            return None
        unit = self.spec.write_unit or self.spec.box.shape
        return math.prod(-(-n // u) for n, u in zip(self.spec.box.shape, unit, strict=True))

    @property
    def names_tell(self) -> bool:
        """Whether the names of chunks say which voxels they hold, so that those in a box can be removed."""
        return False

    def contents(self) -> Iterator[StoredObject]:
        """Yield what is stored of the level, in no order: objects named as the format names them; no link is followed.

        Raises:
            StoreAccessError: it cannot be listed, or the directory is a link.
        """
        path = kvstore.local_path(self.directory)
        if path is not None and path.is_symlink():
            raise StoreAccessError(f"{path} is a link to another place; name that layer instead")
        yield from self._contents()

    def _contents(self) -> Iterator[StoredObject]:
        """Yield chunks and shards in `directory`."""
        raise StoreError(f"what {self.family} stores in {kvstore.redact(self.url)} cannot be listed")

    def twins(self) -> Iterator[BoundingBox]:
        """Yield the chunks of the level that several objects hold, of which the newest counts."""
        yield from ()

    @property
    def extensible(self) -> bool:
        """Whether meshes, statistics and the like can be put into the layer."""
        return self.encloses and not self.url.startswith(("http://", "https://"))

    @classmethod
    def provenance_url(cls, url: str) -> str:
        """Return where the provenance of a layer or file at `url` is."""
        return f"{url}/provenance" if cls.encloses else f"{url}.provenance.json"

    def objects(self) -> dict[str, str]:
        """Return the directories of the layer's meshes and skeletons, by kind (mesh, skeletons), as named in it."""
        return {}

    def object_sets(self) -> list[tuple[str, str]]:
        """Return kind and directory of all meshes and skeletons in the layer, also of those that it does not name."""
        return list(self.objects().items())

    def corrected(
        self,
        specs: Sequence[VolumeSpec],  # noqa: ARG002
        *,
        moved: bool,  # noqa: ARG002
        objects: Mapping[str, str],  # noqa: ARG002
    ) -> dict[str, bytes]:
        """Return the metadata files, by URL, that say of all levels what `specs` does.

        Args:
            specs: the levels with another kind, voxel size or offset.
            moved: whether the offset is stated; otherwise it is left as it is.
            objects: directories by kind, of `object_sets`, that are named instead of those of now.

        Raises:
            ParameterError: the format keeps no such metadata, or cannot say it without a loss.
        """
        kind = "layers cannot be corrected" if self.of_chunks else "files are written whole"
        raise ParameterError(
            f"{self.family} {kind}: open it with what is right (--voxel-size, --voxel-offset,"
            " --layer-type) and save it again"
        )

    def forget(self, mips: Sequence[int], objects: Sequence[str]) -> None:
        """Take levels, and kinds of objects, out of the metadata."""
        raise ParameterError(
            f"the metadata of {self.family} layers name no levels or objects that could be taken out:"
            f" mip {', '.join(map(str, mips))} {' '.join(objects)} of {kvstore.redact(self.url)}"
        )

    @classmethod
    def check_layout(cls, spec: VolumeSpec, layout: Layout) -> None:  # noqa: ARG003
        """Raise when chunks of the format cannot hold a volume in the encoding that a layout states.

        Raises:
            ParameterError: they cannot, or there is no such encoding or option.
            MissingDependencyError: its library is not installed.
        """
        return

    @classmethod
    def effective_shard(cls, size: Zyx, chunk: Zyx, shard: Zyx) -> Zyx:  # noqa: ARG003
        """Return the voxels (zyx) that one writer of a shard must own, in a volume of some size."""
        return shard

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
