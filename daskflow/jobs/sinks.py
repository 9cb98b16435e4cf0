"""Where the blocks of a volume go: a layer of chunks, or a file that one writer makes."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from daskflow.config import format_bytes
from daskflow.errors import AlignmentError, MetadataMismatchError, StoreAccessError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, Zyx
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.outputs import refuse_taken
from daskflow.jobs.report import Finish, Report
from daskflow.stores import Layout, Store, kvstore
from daskflow.stores.memory import ScratchStore
from daskflow.stores.opening import check_file, create_store, find_store, format_named, open_level, open_store
from daskflow.volume import BlockResult, Estimate
from daskflow.volume.node import Array
from daskflow.volume.stage import BAD_CHUNK, Output, Own, Scope, Scopes, verify_all

_MOST_LOOKED = 256


@dataclass(frozen=True)
class Sink(Consumer):
    """A consumer that writes one volume.

    Attributes:
        url: the layer or file.
        spec: what it will hold.
    """

    url: str
    spec: VolumeSpec

    def further(self, box: BoundingBox) -> Estimate:
        return Estimate(bytes_written=self.spec.nbytes_of(box))


@dataclass(frozen=True)
class LayerSink(Sink):
    """A layer of chunks that many workers write.

    Attributes:
        mip: the level written.
        format: name of the format.
        layout: chunk, shard and encoding; the chunk is given.
        drop: chunks that hold nothing but this value are deleted instead of written; None writes every chunk.
        overwrite: whether to replace chunks that another job or program has stored.
        complete: whether chunks that the volume fills in part keep what else they hold.
        finer: levels before this one, which are made without chunks.
        run: identifies the run; another may have recreated the layer.
    """

    verifiable = True
    mip: int
    format: str
    layout: Layout
    drop: float | None = None
    overwrite: bool = False
    complete: bool = False
    finer: tuple[VolumeSpec, ...] = ()
    run: str = ""

    @property
    def unit(self) -> Zyx | None:
        return self.layout.shard or self.layout.chunk

    @property
    def origin(self) -> Zyx:
        return self.spec.box.start

    @property
    def output(self) -> Output:
        """What is there in the end."""
        return Output(self.url, "level", mip=self.mip, base=self.mip, background=self.drop, overwrite=self.overwrite)

    def makes(self) -> tuple[Output, ...]:
        return (self.output,)

    def store(self) -> Store:
        """Return the level, once it was created."""
        store = open_level(self.url, format=self.format, mip=self.mip, token=self.run)
        if self.drop is not None:
            store = copy.copy(store)
            store.background = store.spec.dtype.type(self.drop).item()
        return store

    def planned(self) -> Store:
        """Return the level as it will be; nothing is created."""
        with kvstore.rehearsing():
            return self._created()

    def _created(self) -> Store:
        bare = dataclasses.replace(self.layout, shard=None)
        for mip, spec in enumerate(self.finer):
            create_store(self.url, spec, mip=mip, format=self.format, layout=bare)
        return create_store(self.url, self.spec, mip=self.mip, format=self.format, layout=self.layout)

    def check(self) -> None:
        store = self._created()
        store.check_writable()
        if store.spec.write_unit != self.unit:
            raise AlignmentError(
                f"{self.url} stores chunks of {store.spec.chunk} and shards of {store.spec.shard} voxels (zyx),"
                f" not {self.unit} as planned; pass them as chunk= and shard="
            )

    def refuse_to_replace(self, box: BoundingBox, own: Own) -> None:
        if self.overwrite or own(self.url, self.mip):
            return
        store = find_store(self.url, mip=self.mip, format=self.format)
        if store is None:
            return
        create_store(self.url, self.spec, mip=self.mip, format=self.format, layout=self.layout)  # compares the two
        refuse_taken(store, self.url, box, self._replaced(store, box))

    def _replaced(self, store: Store, box: BoundingBox) -> Iterator[BoundingBox]:
        """Yield the chunks whose voxels would change, of those filled in part at most the first 256 that are there."""
        there = _filled(store)
        looked = 0
        for chunk in store.stored_chunks(box):
            common = chunk.clip(box)
            if self.complete and common != chunk:
                looked += 1
                if looked > _MOST_LOOKED or not (there.read(common) != (store.background or 0)).any():
                    continue
            yield chunk

    def intact(self) -> bool:
        """Return whether the level is there, and on a local disk any chunk of it."""
        level = find_store(self.url, mip=self.mip, format=self.format)
        if level is None or self.drop is not None or kvstore.local_path(self.url) is None:
            return level is not None
        try:
            return next(level.contents(), None) is not None
        except StoreAccessError:
            return True

    def write(self, box: BoundingBox, array: Array) -> BlockResult:
        store = self.store()
        whole = box
        if self.complete and self.unit is not None and not box.empty:
            whole = box.align(self.unit, self.origin).clip(self.spec.box)
        empty = not array.any()
        if whole != box:
            voxels = _filled(store).read(whole)
            voxels[(..., *box.slices(whole))] = array
            array = voxels
        store.write(whole, array, drop=self.drop)
        return BlockResult(empty=empty)

    def verify(self, box: BoundingBox) -> None:
        """Raise with a line for every chunk that is missing or damaged."""
        store = self.store()
        try:
            store.read(box)
        except BAD_CHUNK:
            chunks = BlockGrid(box, store.spec.chunk or box.shape, store.spec.chunk_origin)
            verify_all(functools.partial(_read_chunk, store, chunk) for chunk in chunks)
            raise

    def describe(self) -> dict[str, Any]:
        layout = dataclasses.asdict(self.layout)
        dropped = {} if self.drop is None else {"drop": self.drop}
        where = {"url": self.url, "mip": self.mip, "format": self.format}
        return {**where, "layout": layout, **dropped, **_described(self.spec)}


@dataclass(frozen=True)
class NoteBackground(Finish):
    """Writes down, once every block is done, what the chunks hold that were left out of levels written whole."""

    levels: tuple[LayerSink, ...]

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        for level in self.levels:
            if level.drop is not None:
                store = open_store(level.url, mip=level.mip, format=level.format)
                store.note_background(store.spec.dtype.type(level.drop).item())


@dataclass(frozen=True)
class ScratchSink(Sink):
    """A layer among the scratch data of a job, a block is its chunk; until it is bound, its URL is a name."""

    block: Zyx
    scope: Scope

    def placed(self, block: Zyx) -> ScratchSink:
        return dataclasses.replace(self, block=block)

    def store(self) -> Store:
        """Return the layer, once it was created."""
        return open_level(self.url, format="zarr3", mip=0, token=self.scope.run)

    def check(self) -> None:
        z, y, x = map(min, self.block, self.spec.box.shape)  # a chunk is stored whole, however little the volume fills
        create_store(self.url, self.spec, format="zarr3", layout=Layout(chunk=(z, y, x), encoding="raw"))

    def write(self, box: BoundingBox, array: Array) -> BlockResult:
        self.store().write(box, array)
        return BlockResult(empty=not array.any())

    def kept(self, box: BoundingBox) -> str:
        return f"{format_bytes(self.spec.nbytes_of(box))}, computed once and kept in scratch data"

    def describe(self) -> dict[str, Any]:
        return {"scratch": self.url, **_described(self.spec)}

    def bind(self, scopes: Scopes) -> ScratchSink:
        scope = self.scope.bind(scopes)
        return dataclasses.replace(self, url=kvstore.join(scope.url, f"{self.url}.zarr"), scope=scope)


class KeptStore(ScratchStore):
    """What a scratch sink was given, once it is bound."""

    def __init__(self, sink: ScratchSink) -> None:
        super().__init__(sink.url, [sink.spec])
        self._sink = sink

    def _read(self, box: BoundingBox) -> Array:
        return self._sink.store().read(box)

    def fingerprint(self) -> dict[str, Any]:
        return {"kept": self._sink.scope.name}


@dataclass(frozen=True)
class FileSink(Sink):
    """A file that one writer makes whole: blocks gather in a scratch layer, from which `Assemble` writes it.

    Attributes:
        format: name of the format.
        layout: compression and chunk within the file.
        dataset: name inside the file, where the format has several.
        block: voxels per block (zyx), the chunk of the scratch layer.
        overwrite: whether to replace a file that another job or program has stored.
        scratch: the scratch layer, once bound.
        job: URL of the job's directory, once bound.
    """

    format: str
    layout: Layout
    dataset: str | None = None
    block: Zyx = (64, 64, 64)
    overwrite: bool = False
    scratch: ScratchSink | None = None
    job: str | None = None

    def placed(self, block: Zyx) -> FileSink:
        return dataclasses.replace(self, block=block)

    @property
    def output(self) -> Output:
        """What is there in the end."""
        return Output(self.url, dataset=self.dataset, overwrite=self.overwrite)

    @property
    def gathered(self) -> ScratchSink:
        """The layer in which the blocks gather."""
        assert self.scratch is not None
        return self.scratch

    def check(self) -> None:
        check_file(self.url, self.spec, format=self.format, layout=self.layout, dataset=self.dataset)
        if not self.overwrite and self.exists() and not kvstore.exists(f"{self.job}/job.json"):
            raise MetadataMismatchError(
                f"{self.url} exists and was not written by this job; delete it, write to another file, or replace it:"
                " --overwrite (overwrite=True in Python)"
            )
        self.gathered.check()

    def exists(self) -> bool:
        """Return whether the file, and the dataset in it, is there."""
        if not format_named(self.format).store.there(self.url, self.spec):
            return False
        return self.dataset is None or find_store(self.url, format=self.format, dataset=self.dataset) is not None

    def write(self, box: BoundingBox, array: Array) -> BlockResult:
        return self.gathered.write(box, array)

    def describe(self) -> dict[str, Any]:
        layout = dataclasses.asdict(self.layout)
        where = {"url": self.url, "dataset": self.dataset, "format": self.format}
        return {**where, "layout": layout, **_described(self.spec)}

    def bind(self, scopes: Scopes) -> FileSink:
        scope = Scope("gathered", (self.url, self.dataset))
        scratch = ScratchSink("blocks", self.spec, self.block, scope).bind(scopes)
        return dataclasses.replace(self, scratch=scratch, job=scopes.job)


def _filled(store: Store) -> Store:
    """Return the same level, of which missing chunks are read as background or zeros."""
    filled = copy.copy(store)
    filled.fill_missing = True
    return filled


def _read_chunk(store: Store, chunk: BoundingBox) -> None:
    try:
        store.read(chunk)
    except BAD_CHUNK as error:
        raise type(error)(f"mip {store.mip} {chunk}: {error}") from error


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
