"""Encoded chunks of a precomputed scale, and boxes of voxels from and to them, by a few threads.

They are one object each at any URL, files as CloudVolume names them on a local disk (``0-64_0-64_0-64.gz``, ``.br`` or
plain, of which tensorstore knows the last alone), or packed into shards. What only tensorstore decodes is handed to its
driver in a key-value store in memory. A file's path is text: making it a `Path` takes as long as reading the file.
"""

# ruff: noqa: PTH105, PTH107, PTH116, PTH123

from __future__ import annotations

import contextlib
import errno
import functools
import json
import operator
import os
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from daskflow.errors import CorruptChunkError, MissingChunkError, StoreAccessError, StoreError, UnknownFormatError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.answers import plain_message, translated, wait
from daskflow.stores.base import Array
from daskflow.stores.compressed import SUFFIXES, compress, decompress
from daskflow.stores.counting import count
from daskflow.stores.encodings import ENCODINGS, Encoding
from daskflow.stores.precomputed_chunks import (
    chunk_key,
    chunk_name,
    chunks_of,
    open_shards,
    read_box,
    view_in_memory,
    write_box,
    zipped,
)

Load = Callable[[], bytes | None]
Put = Callable[[BoundingBox, bytes | memoryview | None], None]
_GZIP = b"\x1f\x8b"
_CHUNK_NAME = re.compile(r"-?\d+--?\d+_-?\d+--?\d+_-?\d+--?\d+(\.\w+)?")


class ChunkSource(Protocol):
    """Where the encoded chunks of one scale are."""

    def fetch(self, chunks: Sequence[BoundingBox]) -> list[Load]:
        """Begin to read chunks; each call returns the encoded bytes of one, None when it was never written."""

    def writing(self) -> AbstractContextManager[Put]:
        """Give a function, for several threads, that stores the bytes of a chunk or, for None, deletes it.

        When the block is left without an error, all is stored.
        """

    def where(self, chunk: BoundingBox) -> str:
        """Return the name of the object that holds a chunk, for people."""


@dataclass
class ChunkObjects:
    """One object for each chunk of a scale, under the plain name or, where somebody copied files, with .gz or .br.

    A compressed object of more than `most` bytes is damaged, here and below; of `endings` the likeliest is first.
    """

    url: str
    most: int
    endings: list[str] = field(default_factory=lambda: sorted(SUFFIXES.values()))

    @property
    def renamed(self) -> bool:
        """Whether chunks were found under another name than the plain one."""
        return self.endings[0] != ""

    def fetch(self, chunks: Sequence[BoundingBox]) -> list[Load]:
        store, first = kvstore.opened(kvstore.kvstore_spec(self.url)), self.endings[0]
        return [self._loader(store, chunk, store.read(f"{chunk_name(chunk)}{first}"), first) for chunk in chunks]

    def _loader(self, store: Any, chunk: BoundingBox, begun: Any, first: str) -> Load:
        def load() -> bytes | None:
            with translated(self.where(chunk), "read"):
                result, ending = wait(begun, self.where(chunk)), first
                for ending in [first, *(e for e in self.endings if e != first)]:
                    if ending != first:
                        result = wait(store.read(f"{chunk_name(chunk)}{ending}"), self.where(chunk))
                    if result.state == "value":
                        break
                else:
                    return None
            if ending != self.endings[0]:
                self.endings = [ending, *(e for e in self.endings if e != ending)]
            data = bytes(result.value)
            as_sent = ending == SUFFIXES["gzip"] and not data.startswith(_GZIP)  # a server that says it is gzip
            return data if as_sent else decompress(data, ending, f"{self.where(chunk)}{ending}", self.most)

        return load

    @contextlib.contextmanager
    def writing(self) -> Iterator[Put]:
        kvstore.refuse_http(self.url)
        store, begun = kvstore.opened(kvstore.kvstore_spec(self.url)), list[Any]()
        with translated(self.url, "write to"):
            yield lambda chunk, data: begun.append(
                store.write(chunk_name(chunk), None if data is None else bytes(data))
            )
            for writing in begun:
                wait(writing, self.url)

    def where(self, chunk: BoundingBox) -> str:
        return f"{self._shown}/{chunk_name(chunk)}"

    @functools.cached_property
    def _shown(self) -> str:
        return kvstore.redact(self.url)


class ChunkShards(NamedTuple):
    """The chunks of a scale inside its shards, by their ids; metadata are text of `driver_metadata`."""

    url: str
    spec: VolumeSpec
    metadata: str
    most: int

    @property
    def zipped(self) -> bool:
        """Whether chunks are compressed by gzip."""
        return zipped(self.metadata)

    def fetch(self, chunks: Sequence[BoundingBox]) -> list[Load]:
        import tensorstore as ts

        suffix = SUFFIXES["gzip" if self.zipped else "none"]
        store, batch = open_shards(self.url, self.metadata, as_stored=True), ts.Batch()
        begun = [store.read(chunk_key(self.spec, chunk), batch=batch) for chunk in chunks]
        batch.submit()

        def loader(chunk: BoundingBox, reading: Any) -> Load:
            def load() -> bytes | None:
                with translated(self.where(chunk), "read"):
                    result = wait(reading, self.url)
                if result.state != "value":
                    return None
                return decompress(bytes(result.value), suffix, self.where(chunk), self.most)

            return load

        return [loader(chunk, reading) for chunk, reading in zip(chunks, begun, strict=True)]

    @contextlib.contextmanager
    def writing(self) -> Iterator[Put]:
        """Give a function that collects chunks; every shard is written once, when the block is left."""
        import tensorstore as ts

        kvstore.refuse_http(self.url)
        store = open_shards(self.url, self.metadata, as_stored=True)
        with translated(self.url, "write to"), ts.Transaction() as transaction:
            target = store.with_transaction(transaction)

            def put(chunk: BoundingBox, data: bytes | memoryview | None) -> None:
                if data is not None:
                    data = compress(data, "gzip") if self.zipped else bytes(data)
                target.write(chunk_key(self.spec, chunk), data).result()

            yield put

    def where(self, chunk: BoundingBox) -> str:
        return f"chunk {chunk} (z0-z1_y0-y1_x0-x1) in the shards of {kvstore.redact(self.url)}"


class ChunkFiles(NamedTuple):
    """The unsharded chunk files of one scale in a local directory; new ones are compressed by gzip, br or none."""

    directory: Path
    most: int
    compression: str = "none"

    def fetch(self, chunks: Sequence[BoundingBox]) -> list[Load]:
        """Return a function for each chunk that reads and decompresses its file; None without a file."""
        likeliest = SUFFIXES[self.compression]
        suffixes = [likeliest, *(suffix for suffix in SUFFIXES.values() if suffix != likeliest)]
        return [functools.partial(_load, self.directory, chunk_name(chunk), suffixes, self.most) for chunk in chunks]

    @contextlib.contextmanager
    def writing(self) -> Iterator[Put]:
        """Give a function that puts a file in place atomically, or for None deletes it, under all its names."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refusal("write", self.directory, error) from error

        def put(chunk: BoundingBox, data: bytes | memoryview | None) -> None:
            if data is None:
                _delete(self.directory, chunk_name(chunk))
            else:
                packed = data if self.compression == "none" else compress(data, self.compression)
                _replace(self.directory, chunk_name(chunk), SUFFIXES[self.compression], packed)

        yield put

    def where(self, chunk: BoundingBox) -> str:
        """Return the path of a chunk's file."""
        names = [f"{chunk_name(chunk)}{suffix}" for suffix in SUFFIXES.values()]
        there = [name for name in names if (self.directory / name).exists()]
        there.sort(key=lambda name: (self.directory / name).stat().st_mtime_ns, reverse=True)
        return f"{self.directory / there[0]}" if there else f"{self.directory / chunk_name(chunk)} (or .gz, .br)"


def peek_compression(directory: Path) -> str | None:
    """Return how the first chunk file found is compressed: gzip, br or none; None when there is no chunk file yet."""
    try:
        with os.scandir(directory) as entries:
            found = next((m for entry in entries if (m := _CHUNK_NAME.fullmatch(entry.name))), None)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refusal("list", directory, error) from error
    if found is None:
        return None
    if (found[1] or "") not in SUFFIXES.values():
        raise UnknownFormatError(
            f"{directory} has chunk files named {found[0]}; daskflow reads .gz, .br and plain ones"
        )
    return next(name for name, suffix in SUFFIXES.items() if suffix == (found[1] or ""))


def has_other_names(directory: Path, chunks: Iterable[BoundingBox]) -> bool:
    """Return whether one of some chunks has a file with another name than the plain one."""
    names = [f"{chunk_name(chunk)}{suffix}" for chunk in chunks for suffix in SUFFIXES.values() if suffix]
    return any((directory / name).exists() for name in names)


def _load(directory: Path, name: str, suffixes: Sequence[str], most: int) -> bytes | None:
    """Return what the newest file of a chunk holds; of files of one age that with the likeliest name."""
    found: list[tuple[int, int, str]] = []
    for suffix in suffixes:
        with contextlib.suppress(FileNotFoundError):
            found.append((-os.stat(f"{directory}/{name}{suffix}").st_mtime_ns, len(found), suffix))
    for _, _, suffix in sorted(found):
        path = f"{directory}/{name}{suffix}"
        try:
            with open(path, "rb", buffering=0) as file:
                data = file.read()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _refusal("read", path, error) from error
        return decompress(data, suffix, path, most)
    return None


def _refusal(verb: str, path: Path | str, error: OSError) -> StoreError:
    """Build the error for what the operating system refused: an access error, or another such as a full disk."""
    refused = isinstance(error, PermissionError | NotADirectoryError | FileExistsError) or error.errno == errno.EROFS
    return (StoreAccessError if refused else StoreError)(f"cannot {verb} {path}: {error}")


def _replace(directory: Path, name: str, suffix: str, data: bytes | memoryview) -> None:
    """Put a chunk in place atomically, and away with the same chunk under its other names."""
    path = f"{directory}/{name}{suffix}"
    temporary = f"{directory}/.{name}{suffix}.{uuid.uuid4().hex}"
    try:
        with open(temporary, "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
        os.replace(temporary, path)
        for other in SUFFIXES.values():
            if other != suffix:
                _remove(f"{directory}/{name}{other}")
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise (_refusal("write", path, error) if isinstance(error, OSError) else error) from error


def _delete(directory: Path, name: str) -> None:
    """Delete a chunk under all its names."""
    try:
        for suffix in SUFFIXES.values():
            _remove(f"{directory}/{name}{suffix}")
    except OSError as error:
        raise _refusal("delete", directory / name, error) from error


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


@dataclass(frozen=True)
class EncodedChunks:
    """The chunks of one scale, wherever they are; metadata are text of `precomputed_info.driver_metadata`."""

    source: ChunkSource
    spec: VolumeSpec
    metadata: str

    @functools.cached_property
    def _scale(self) -> dict[str, Any]:
        scale: dict[str, Any] = json.loads(self.metadata)["scale_metadata"]
        return scale

    @property
    def _encoding(self) -> Encoding:
        return ENCODINGS[self._scale["encoding"]]

    def read(self, box: BoundingBox, *, fill_missing: bool, background: float | None = None) -> Array:
        """Return the voxels of `box`; chunks that are not there hold `background`, if it is given."""
        chunks = chunks_of(self.spec, box)
        decoding = self._read_by_driver if self._encoding.codec is None else self._read_by_codec
        array, found = decoding(box, chunks)
        missing = [chunk for chunk, there in zip(chunks, found, strict=True) if not there]
        if background is not None:
            for chunk in missing:
                array[(..., *chunk.clip(box).slices(box))] = background
            return array
        if missing and not fill_missing:
            where = self.source.where(missing[0])
            raise MissingChunkError(f"{where} is missing; fill_missing reads such chunks as zeros")
        count("missing_chunks", len(missing))
        return array

    def _read_by_codec(self, box: BoundingBox, chunks: list[BoundingBox]) -> tuple[Array, list[bool]]:
        """Return the voxels of a box, zeros where a chunk is missing, and which of its chunks are there."""
        spec, encoding = self.spec, self._encoding
        out = np.empty(spec.shape_of(box), spec.dtype)

        def place(chunk: BoundingBox, load: Load) -> bool:
            inside, data = chunk.clip(box), load()
            if data is None:
                out[(..., *inside.slices(box))] = 0
                return False
            try:
                voxels = encoding.decode(data, spec.shape_of(chunk), spec.dtype)
            except ValueError as error:
                raise CorruptChunkError(f"cannot decode {self.source.where(chunk)}: {error}") from error
            out[(..., *inside.slices(box))] = voxels[(..., *inside.slices(chunk))]
            return True

        return out, list(_pool().map(place, chunks, self.source.fetch(chunks)))

    def _read_by_driver(self, box: BoundingBox, chunks: list[BoundingBox]) -> tuple[Array, list[bool]]:
        """Do the same, by tensorstore's driver and a key-value store in memory."""
        with view_in_memory(self.metadata, self.spec) as (memory, view):

            def keep(chunk: BoundingBox, load: Load) -> bool:
                data = load()
                if data is not None:
                    memory.write(chunk_name(chunk), data).result()
                return data is not None

            found = list(_pool().map(keep, chunks, self.source.fetch(chunks)))
            try:
                return read_box(view, self.spec, box), found
            except ValueError as error:
                named = [chunk for chunk in chunks if f'/{chunk_name(chunk)}"' in str(error)]
                where = self.source.where(named[0]) if named else f"a chunk of {box}"
                reason = plain_message(error).rpartition(": ")[2]
                raise CorruptChunkError(f"cannot decode {where}: {reason}") from error

    def write(self, box: BoundingBox, array: Array, *, drop: float | None = None) -> None:
        """Store the voxels of `box`, whole chunks; one that holds nothing but `drop` is deleted instead."""
        with self._encoded(box, array) as encode, self.source.writing() as put:

            def store(chunk: BoundingBox) -> None:
                blank = drop is not None and bool((array[(..., *chunk.slices(box))] == drop).all())
                put(chunk, None if blank else encode(chunk))

            deque(_pool().map(store, chunks_of(self.spec, box)), maxlen=0)

    def encoded(self, box: BoundingBox) -> dict[BoundingBox, bytes]:
        """Return the bytes of the chunks of `box` as they are encoded.

        Raises:
            MissingChunkError: a chunk was never written.
        """
        chunks = chunks_of(self.spec, box)
        found = dict(zip(chunks, _pool().map(operator.call, self.source.fetch(chunks)), strict=True))
        there = {chunk: data for chunk, data in found.items() if data is not None}
        missing = next((chunk for chunk in chunks if chunk not in there), None)
        if missing is not None:
            raise MissingChunkError(f"{self.source.where(missing)} is missing; fill_missing reads such chunks as zeros")
        return there

    def put(self, chunks: Mapping[BoundingBox, bytes]) -> None:
        """Store chunks that are encoded as the scale says."""
        with self.source.writing() as put:
            deque(_pool().map(put, chunks.keys(), chunks.values()), maxlen=0)

    @contextlib.contextmanager
    def _encoded(self, box: BoundingBox, array: Array) -> Iterator[Callable[[BoundingBox], bytes | memoryview]]:
        """Give a function that returns the encoded bytes of one chunk in `box`."""
        encoding = self._encoding
        if encoding.codec is not None:
            yield lambda chunk: encoding.encode(array[(..., *chunk.slices(box))], self._scale)
            return
        with view_in_memory(self.metadata, self.spec) as (memory, view):
            write_box(view, self.spec, box, array)
            yield lambda chunk: memory.read(chunk_name(chunk)).result().value


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Return this process's threads that compress, decompress and wait for files."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="chunks")
