"""Where the blocks of a volume go: a layer of chunks, or a file that one writer makes."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from daskflow.errors import (
    AlignmentError,
    CorruptChunkError,
    MetadataMismatchError,
    MissingChunkError,
    StoreAccessError,
    StoreNotFoundError,
)
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, Zyx
from daskflow.jobs.report import Report
from daskflow.stores import Layout, Store, kvstore
from daskflow.stores.contents import levels_of
from daskflow.stores.opening import check_file, create_store, open_level, open_store
from daskflow.volume import BlockResult, Estimate
from daskflow.volume.node import Array

_BAD = (MissingChunkError, CorruptChunkError)
_MOST_LINES = 20


class Sink(Protocol):
    """Where the blocks of one volume go."""

    @property
    def url(self) -> str:
        """The layer or file."""

    @property
    def unit(self) -> Zyx | None:
        """The shape that one block must own, counted from the volume's corner; None when any block will do."""

    def check(self) -> None:
        """Raise what can be known to fail, and create what the blocks are written to."""

    def write(self, box: BoundingBox, array: Array) -> BlockResult:
        """Store one block."""

    def intact(self) -> bool:
        """Return whether what earlier runs wrote is still there."""

    def verify(self, box: BoundingBox) -> None:
        """Raise when what was stored for a block is missing or damaged."""

    def describe(self) -> dict[str, Any]:
        """Return all that the stored bytes depend on, the voxels apart, as JSON."""

    def bind(self, directory: str) -> Sink:
        """Return the sink with its scratch data placed below the URL `directory`."""


@runtime_checkable
class Deriving(Protocol):
    """A sink that makes more of a block than the block itself."""

    def further(self, box: BoundingBox) -> Estimate:
        """Predict what that takes: bytes written besides the block, and memory."""


@dataclass(frozen=True)
class LayerSink:
    """A layer of chunks that many workers write.

    Attributes:
        url: the layer.
        spec: what it will hold.
        mip: the level written.
        format: name of the format.
        layout: chunk, shard and encoding; the chunk is given.
        drop: chunks that hold nothing but this value are deleted instead of written; None writes every chunk.
        run: tells runs apart, in which the layer may have been made anew.
    """

    url: str
    spec: VolumeSpec
    mip: int
    format: str
    layout: Layout
    drop: float | None = None
    run: str = ""

    @property
    def unit(self) -> Zyx | None:
        """The shard, else the chunk."""
        return self.layout.shard or self.layout.chunk

    def store(self) -> Store:
        """Return the level, once it was created."""
        store = open_level(self.url, format=self.format, mip=self.mip, token=self.run)
        if self.drop is not None:
            store = copy.copy(store)
            store.background = store.spec.dtype.type(self.drop).item()
        return store

    def check(self) -> None:
        store = create_store(self.url, self.spec, mip=self.mip, format=self.format, layout=self.layout)
        store.check_writable()
        if store.spec.write_unit != self.unit:
            raise AlignmentError(
                f"{self.url} stores chunks of {store.spec.chunk} and shards of {store.spec.shard} voxels (zyx),"
                f" not {self.unit} as planned; pass them as chunk= and shard="
            )

    def intact(self) -> bool:
        """Return whether the level is there, and on a local disk any chunk of it."""
        if not _opens(self.url, mip=self.mip, format=self.format):
            return False
        if self.drop is not None or kvstore.local_path(self.url) is None:
            return True
        level = levels_of(open_store(self.url, mip=self.mip, format=self.format))[self.mip]
        try:
            return next(level.objects(), None) is not None
        except StoreAccessError:
            return True

    def write(self, box: BoundingBox, array: Array) -> BlockResult:
        self.store().write(box, array, drop=self.drop)
        return BlockResult(empty=not array.any())

    def verify(self, box: BoundingBox) -> None:
        """Raise with a line for every chunk that is missing or damaged."""
        store = self.store()
        try:
            store.read(box)
        except _BAD:
            chunks = BlockGrid(box, store.spec.chunk or box.shape, store.spec.chunk_origin)
            verify_all(functools.partial(_read_chunk, store, chunk) for chunk in chunks)
            raise

    def describe(self) -> dict[str, Any]:
        layout = dataclasses.asdict(self.layout)
        dropped = {} if self.drop is None else {"drop": self.drop}
        where = {"url": self.url, "mip": self.mip, "format": self.format}
        return {**where, "layout": layout, **dropped, **_described(self.spec)}

    def bind(self, directory: str) -> LayerSink:  # noqa: ARG002
        return dataclasses.replace(self, run=uuid.uuid4().hex)


@dataclass(frozen=True)
class NoteBackground:
    """Writes down, once every block is done, what the chunks hold that were left out of levels.

    Attributes:
        levels: the levels, each written whole.
    """

    levels: tuple[LayerSink, ...]

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002 (what every finish is called with)
        for level in self.levels:
            if level.drop is not None:
                store = open_store(level.url, mip=level.mip, format=level.format)
                store.note_background(store.spec.dtype.type(level.drop).item())


@dataclass(frozen=True)
class FileSink:
    """A file that one writer makes whole: blocks gather in a scratch layer, from which `Assemble` writes it.

    Attributes:
        url: the file.
        spec: what it will hold.
        format: name of the format.
        layout: compression and chunk within the file.
        dataset: name inside the file, where the format has several.
        block: voxels per block (zyx), the chunk of the scratch layer.
        scratch: URL of the scratch layer, once bound.
        job: URL of the job's directory, once bound.
        run: as in `LayerSink`.
    """

    url: str
    spec: VolumeSpec
    format: str
    layout: Layout
    dataset: str | None = None
    block: Zyx = (64, 64, 64)
    scratch: str | None = None
    job: str | None = None
    run: str = ""

    @property
    def unit(self) -> Zyx | None:
        """Any block will do."""
        return None

    def scratch_store(self) -> Store:
        """Return the layer in which the blocks gather."""
        assert self.scratch is not None
        return open_level(self.scratch, format="zarr3", mip=0, token=self.run)

    def check(self) -> None:
        check_file(self.url, self.spec, format=self.format, layout=self.layout, dataset=self.dataset)
        if self.exists() and not kvstore.exists(f"{self.job}/job.json"):
            raise MetadataMismatchError(
                f"{self.url} exists and was not written by this job; delete it, or write to another file"
            )
        assert self.scratch is not None
        create_store(self.scratch, self.spec, format="zarr3", layout=Layout(chunk=self.block, encoding="raw"))

    def exists(self) -> bool:
        """Return whether the file, and the dataset in it, is there."""
        if not kvstore.exists(self.url):
            return False
        return self.dataset is None or _opens(self.url, format=self.format, dataset=self.dataset)

    def intact(self) -> bool:
        return True

    def write(self, box: BoundingBox, array: Array) -> BlockResult:
        self.scratch_store().write(box, array)
        return BlockResult(empty=not array.any())

    def verify(self, box: BoundingBox) -> None:
        """The scratch layer is gone once the file is written, which `Assemble` verifies."""

    def describe(self) -> dict[str, Any]:
        layout = dataclasses.asdict(self.layout)
        where = {"url": self.url, "dataset": self.dataset, "format": self.format}
        return {**where, "layout": layout, **_described(self.spec)}

    def bind(self, directory: str) -> FileSink:
        scratch = kvstore.join(directory, f"{safe_name(f'{self.url}-{self.dataset}')}.zarr")
        job = directory.rstrip("/").rpartition("/")[0]
        return dataclasses.replace(self, scratch=scratch, job=job, run=uuid.uuid4().hex)


def _read_chunk(store: Store, chunk: BoundingBox) -> None:
    try:
        store.read(chunk)
    except _BAD as error:
        raise type(error)(f"mip {store.mip} {chunk}: {error}") from error


def verify_all(checks: Iterable[Callable[[], None]]) -> None:
    """Call all functions, and raise afterwards what the first that raised did, with the lines of all that did.

    Raises:
        MissingChunkError: a chunk is missing.
        CorruptChunkError: a chunk is damaged.
    """
    errors = []
    for check in checks:
        try:
            check()
        except _BAD as error:
            errors.append(error)
    lines = [line for error in errors for line in str(error).splitlines()]
    if errors:
        more = [f"and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
        raise type(errors[0])("\n".join([*lines[:_MOST_LINES], *more])) from errors[0]


def _opens(url: str, **how: Any) -> bool:
    """Return whether there is something to open at a URL; `how` as for `open_store`."""
    try:
        open_store(url, **how)
    except StoreNotFoundError:
        return False
    return True


def safe_name(url: str) -> str:
    """Return the last component of a URL, fit to name a stage or an object."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", url.rstrip("/").rpartition("/")[2]).strip(".") or "volume"


def _described(spec: VolumeSpec) -> dict[str, Any]:
    return {
        "box": str(spec.box),
        "dtype": spec.dtype.name,
        "channels": spec.channels,
        "voxel_size": spec.voxel_size and list(spec.voxel_size),
        "layer_type": spec.layer_type,
    }
