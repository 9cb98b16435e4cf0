"""Boxes of voxels from and to encoded chunks, wherever these are stored, by a few threads.

What only tensorstore decodes is handed to its driver in a key-value store in memory.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.errors import CorruptChunkError, MissingChunkError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.answers import plain_message
from daskflow.stores.base import Array
from daskflow.stores.chunk_objects import ChunkSource
from daskflow.stores.counting import count
from daskflow.stores.encodings import ENCODINGS, Encoding
from daskflow.stores.precomputed_driver import Load, chunk_name, chunks_of, read_box, view_in_memory, write_box


@dataclass(frozen=True)
class EncodedChunks:
    """The chunks of one scale.

    Attributes:
        source: where they are.
        spec: the scale.
        metadata: what `precomputed_info.driver_metadata` returned, as text.
    """

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
        """Return the voxels of `box`; chunks that are not there hold `background`, if it is given.

        Raises:
            MissingChunkError: a chunk was never written, and `fill_missing` is off.
            CorruptChunkError: a chunk is truncated or cannot be decoded; the message names it.
            MissingDependencyError: the library of the encoding is not installed.
        """
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
        """Store the voxels of `box`, whole chunks; one that holds nothing but `drop` is deleted instead.

        Raises:
            StoreAccessError: the location refuses.
            MissingDependencyError: the library of the encoding is not installed.
        """
        with self._encoded(box, array) as encode, self.source.writing() as put:

            def store(chunk: BoundingBox) -> None:
                blank = drop is not None and bool((array[(..., *chunk.slices(box))] == drop).all())
                put(chunk, None if blank else encode(chunk))

            deque(_pool().map(store, chunks_of(self.spec, box)), maxlen=0)

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
