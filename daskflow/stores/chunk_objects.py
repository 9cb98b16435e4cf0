"""Encoded chunks as stored objects: one object each at any URL, or packed into shards."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.answers import translated, wait
from daskflow.stores.compressed import SUFFIXES, decompress
from daskflow.stores.precomputed_driver import Load, Put, chunk_name
from daskflow.stores.precomputed_shards import chunk_key, open_shards, zipped

_GZIP = b"\x1f\x8b"


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

    Attributes:
        url: of the scale.
        most: bytes of a chunk beyond which a compressed object is damaged.
        endings: what names may end in, the likeliest first.
    """

    url: str
    most: int
    endings: list[str] = field(default_factory=lambda: sorted(SUFFIXES.values()))

    @property
    def renamed(self) -> bool:
        """Whether chunks were found under another name than the plain one."""
        return self.endings[0] != ""

    def fetch(self, chunks: Sequence[BoundingBox]) -> list[Load]:
        store, first = self._open(), self.endings[0]
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
        store, begun = self._open(), list[Any]()
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

    def _open(self) -> Any:
        import tensorstore as ts

        return ts.KvStore.open(kvstore.kvstore_spec(self.url), context=kvstore.context()).result()


@dataclass(frozen=True)
class ChunkShards:
    """The chunks of a scale inside its shards, by their ids.

    Attributes:
        url: of the layer.
        spec: the scale.
        metadata: what `precomputed_info.driver_metadata` returned, as text.
        most: bytes of a chunk beyond which one that is compressed in its shard is damaged.
    """

    url: str
    spec: VolumeSpec
    metadata: str
    most: int

    def fetch(self, chunks: Sequence[BoundingBox]) -> list[Load]:
        import tensorstore as ts

        suffix = SUFFIXES["gzip" if zipped(self.metadata) else "none"]
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
        store = open_shards(self.url, self.metadata)
        with translated(self.url, "write to"), ts.Transaction() as transaction:
            target = store.with_transaction(transaction)

            def put(chunk: BoundingBox, data: bytes | memoryview | None) -> None:
                target.write(chunk_key(self.spec, chunk), None if data is None else bytes(data)).result()

            yield put

    def where(self, chunk: BoundingBox) -> str:
        return f"chunk {chunk} (z0-z1_y0-y1_x0-x1) in the shards of {kvstore.redact(self.url)}"
