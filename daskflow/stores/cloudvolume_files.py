"""Chunk files as CloudVolume names them on local disk: ``0-64_0-64_0-64.gz``, ``.br``, or plain.

tensorstore knows the plain names alone. Raw chunks are placed as they are; a box of any other encoding is read by
decompressing its chunk files into a key-value store in memory, under their plain names, from which tensorstore decodes
them. A write goes the other way.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import (
    CorruptChunkError,
    MissingChunkError,
    MissingDependencyError,
    StoreAccessError,
    StoreError,
    UnknownFormatError,
)
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.base import Array
from daskflow.stores.counting import count
from daskflow.stores.precomputed_driver import chunk_name, chunks_of, read_box, view_in_memory, write_box

MAX_BUFFER = 2**28  # bytes trusted to the size that a gzip file states of itself; beyond, the buffer grows
SUFFIXES = {"gzip": ".gz", "br": ".br", "none": ""}
_CHUNK_NAME = re.compile(r"-?\d+--?\d+_-?\d+--?\d+_-?\d+--?\d+(\.\w+)?")


@dataclass(frozen=True)
class ChunkFiles:
    """The unsharded chunk files of one scale in a local directory.

    Attributes:
        url: the layer, ``file://``.
        spec: the scale.
        metadata: what `precomputed_info.driver_metadata` returned, as text.
    """

    url: str
    spec: VolumeSpec
    metadata: str

    @functools.cached_property
    def _scale(self) -> dict[str, Any]:
        scale: dict[str, Any] = json.loads(self.metadata)["scale_metadata"]
        return scale

    @property
    def encoding(self) -> str:
        """How voxels become bytes, before compression."""
        return str(self._scale["encoding"])

    @functools.cached_property
    def directory(self) -> Path:
        """Where the files are."""
        path = kvstore.local_path(self.url)
        assert path is not None
        return path / str(self._scale["key"])


def peek_compression(files: ChunkFiles) -> str | None:
    """Return how the first chunk file found is compressed: gzip, br or none; None when there is no chunk file yet."""
    try:
        with os.scandir(files.directory) as entries:
            found = next((m for entry in entries if (m := _CHUNK_NAME.fullmatch(entry.name))), None)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refusal("list", files.directory, error) from error
    if found is None:
        return None
    if (found[1] or "") not in SUFFIXES.values():
        raise UnknownFormatError(
            f"{files.directory} has chunk files named {found[0]}; daskflow reads .gz, .br and plain ones"
        )
    return next(name for name, suffix in SUFFIXES.items() if suffix == (found[1] or ""))


def read(files: ChunkFiles, box: BoundingBox, *, fill_missing: bool) -> Array:
    """Return the voxels of `box`, whichever of the three names each chunk has.

    Raises:
        MissingChunkError: a chunk has no file, and `fill_missing` is off.
        CorruptChunkError: a file is truncated or cannot be decoded; the message names it.
    """
    chunks = chunks_of(files.spec, box)
    found = list(_pool().map(functools.partial(_find, files.directory), map(chunk_name, chunks)))
    paths = {chunk: path for chunk, path in zip(chunks, found, strict=True) if path is not None}
    missing = [chunk for chunk in chunks if chunk not in paths]
    if missing and not fill_missing:
        name = files.directory / chunk_name(missing[0])
        raise MissingChunkError(f"chunk {name} (or .gz, .br) is missing; fill_missing reads such chunks as zeros")
    count("missing_chunks", len(missing))
    return _read_raw(files, box, paths) if files.encoding == "raw" else _read_encoded(files, box, paths)


def _read_raw(files: ChunkFiles, box: BoundingBox, paths: dict[BoundingBox, Path]) -> Array:
    """Place the chunks as they are: raw Fortran-ordered xyzc is C-ordered czyx."""
    spec = files.spec
    out = np.zeros(spec.shape_of(box), spec.dtype)

    def place(chunk: BoundingBox) -> None:
        data = _load(paths[chunk])
        if len(data) != spec.nbytes_of(chunk):
            raise CorruptChunkError(f"{paths[chunk]} holds {len(data)} bytes instead of {spec.nbytes_of(chunk)}")
        array = np.frombuffer(data, spec.dtype.newbyteorder("<")).reshape(spec.shape_of(chunk))
        inside = chunk.clip(box)
        out[(..., *inside.slices(box))] = array[(..., *inside.slices(chunk))]

    deque(_pool().map(place, paths), maxlen=0)
    return out


def _read_encoded(files: ChunkFiles, box: BoundingBox, paths: dict[BoundingBox, Path]) -> Array:
    names = {chunk_name(chunk): path for chunk, path in paths.items()}
    with view_in_memory(files.metadata, files.spec) as (memory, view):
        for name, data in zip(names, _pool().map(_load, names.values()), strict=True):
            memory.write(name, data).result()
        try:
            return read_box(view, files.spec, box)
        except ValueError as error:
            named = next((path for name, path in names.items() if f'/{name}"' in str(error)), files.directory)
            reason = kvstore.plain_message(error).rpartition(": ")[2]
            raise CorruptChunkError(f"cannot decode {named}: {reason}") from error


def write(files: ChunkFiles, box: BoundingBox, array: Array, compression: str, *, drop_zeros: bool = False) -> None:
    """Store the voxels of `box`, whole chunks, as files compressed by gzip (ISA-L, level 1) or br.

    With `drop_zeros` a chunk of zeros is deleted instead.

    Raises:
        StoreAccessError: the directory refuses.
        MissingDependencyError: br without the brotli package.
    """
    try:
        files.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal("write", files.directory, error) from error
    with _encoded(files, box, array) as encode:

        def store(chunk: BoundingBox) -> None:
            if drop_zeros and not array[(..., *chunk.slices(box))].any():
                _delete(files.directory, chunk_name(chunk))
                return
            _replace(files.directory, chunk_name(chunk), SUFFIXES[compression], compress(encode(chunk), compression))

        deque(_pool().map(store, chunks_of(files.spec, box)), maxlen=0)


@contextlib.contextmanager
def _encoded(files: ChunkFiles, box: BoundingBox, array: Array) -> Iterator[Callable[[BoundingBox], bytes]]:
    """Yield a function that returns the encoded bytes of one chunk in `box`."""
    if files.encoding == "raw":
        little = array.astype(files.spec.dtype.newbyteorder("<"), copy=False)
        yield lambda chunk: little[(..., *chunk.slices(box))].tobytes()
        return
    with view_in_memory(files.metadata, files.spec) as (memory, view):
        write_box(view, files.spec, box, array)
        yield lambda chunk: memory.read(chunk_name(chunk)).result().value


def compress(data: bytes, compression: str) -> bytes:
    """Return `data` compressed by gzip (ISA-L, level 1, no time stamp) or br."""
    if compression == "gzip":
        from isal import igzip_lib

        return bytes(igzip_lib.compress(data, 1, igzip_lib.COMP_GZIP, igzip_lib.MEM_LEVEL_LARGE))
    return bytes(_brotli().compress(data, quality=4))


def decompress(data: bytes, suffix: str) -> bytes:
    """Return the content of a file that ends in `suffix`: .gz, .br or nothing.

    Raises:
        ValueError: it is truncated or otherwise damaged.
    """
    if suffix == ".gz":
        from isal import igzip_lib

        size = int.from_bytes(data[-4:], "little")
        try:
            return bytes(igzip_lib.decompress(data, igzip_lib.DECOMP_GZIP, bufsize=min(max(size, 1), MAX_BUFFER)))
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # declared as an instance
            raise ValueError(str(error)) from error
    if suffix == ".br":
        brotli = _brotli()
        try:
            return bytes(brotli.decompress(data))
        except brotli.error as error:
            raise ValueError(str(error)) from error
    return data


def _brotli() -> Any:
    try:
        import brotli
    except ImportError as error:
        raise MissingDependencyError.of("brotli", "brotli") from error
    return brotli


def _find(directory: Path, name: str) -> Path | None:
    return next((path for suffix in SUFFIXES.values() if (path := directory / f"{name}{suffix}").exists()), None)


def _load(path: Path) -> bytes:
    try:
        return decompress(path.read_bytes(), path.suffix)
    except ValueError as error:
        raise CorruptChunkError(f"cannot decompress {path}: {error}") from error
    except OSError as error:
        raise _refusal("read", path, error) from error


def _refusal(verb: str, path: Path, error: OSError) -> StoreError:
    """Build the error for what the operating system refused: an access error, or another such as a full disk."""
    refused = isinstance(error, PermissionError | NotADirectoryError | FileExistsError) or error.errno == errno.EROFS
    return (StoreAccessError if refused else StoreError)(f"cannot {verb} {path}: {error}")


def _replace(directory: Path, name: str, suffix: str, data: bytes) -> None:
    """Put a chunk in place atomically, and away with the same chunk under its other names."""
    path = directory / f"{name}{suffix}"
    temporary = directory / f".{path.name}.{uuid.uuid4().hex}"
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
        for other in SUFFIXES.values():
            if other != suffix:
                (directory / f"{name}{other}").unlink(missing_ok=True)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _refusal("write", path, error) from error


def _delete(directory: Path, name: str) -> None:
    """Delete a chunk under all its names."""
    try:
        for suffix in SUFFIXES.values():
            (directory / f"{name}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise _refusal("delete", directory / name, error) from error


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Return this process's threads that compress and decompress, both of which release the interpreter lock."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="chunk-files")
