"""Files of a directory of objects: CloudVolume's ``.gz`` and ``.br`` names, written whole, listed without opening."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from daskflow.errors import StoreAccessError, StoreError, StoreNotFoundError
from daskflow.stores import kvstore
from daskflow.stores.compressed import SUFFIXES, compress, decompress
from daskflow.stores.local_files import replacing

_GZIP = b"\x1f\x8b\x08"


def gzip(data: bytes) -> bytes:
    """Return gzip's form of some bytes, always the same."""
    return zlib.compress(data, 6, zlib.MAX_WBITS | 16)  # ISA-L's is not seen to give the same bytes each time


def read_file(directory: str, name: str) -> bytes | None:
    """Return the content of a file, whichever of the three names it has: ``name``, ``name.gz`` or ``name.br``.

    In a bucket a file has its plain name, and what gzip has made is known by how it begins.

    Raises:
        CorruptChunkError: it is damaged, or holds far more than it takes; see `compressed`.
        ParameterError: a name that leads out of the directory.
    """
    url = kvstore.join(directory, name)
    local = kvstore.local_path(url) is not None
    for suffix in sorted(SUFFIXES.values()) if local else [""]:
        data = kvstore.read_bytes(f"{url}{suffix}")
        if data is None:
            continue
        if not local and data.startswith(_GZIP):
            suffix = SUFFIXES["gzip"]
        return decompress(data, suffix, f"{kvstore.redact(url)}{suffix}")
    return None


def require_file(directory: str, name: str) -> bytes:
    """Return what `read_file` does; a file that is not there raises `StoreNotFoundError`."""
    data = read_file(directory, name)
    if data is None:
        raise StoreNotFoundError(f"there is no {name} in {kvstore.redact(directory)}")
    return data


def write_file(directory: str, name: str, data: bytes, *, compression: str = "none") -> None:
    """Store a file atomically, with CloudVolume's name on a local disk; its other names are removed.

    Data are compressed by gzip, br or none; in a bucket always by none, as others must be said in a header.
    """
    url = kvstore.join(directory, name)
    local = kvstore.local_path(url) is not None
    kind = compression if local else "none"
    kvstore.write_bytes(f"{url}{SUFFIXES[kind]}", data if kind == "none" else compress(data, kind))
    if local:
        for other in SUFFIXES.values():
            if other != SUFFIXES[kind] and kvstore.exists(f"{url}{other}"):
                kvstore.delete(f"{url}{other}")


def names_below(directory: str) -> Iterator[str]:
    """Yield the names of the files right in a directory, without ``.gz`` and ``.br``, in no order.

    Raises:
        StoreAccessError: it cannot be listed.
    """
    for name, _ in sized_names(directory):
        stem, dot, suffix = name.rpartition(".")
        yield stem if dot and f".{suffix}" in SUFFIXES.values() else name


def sized_names(directory: str) -> Iterator[tuple[str, int]]:
    """Yield the names and bytes of the files right in a directory as they are; bytes are 0 in a bucket.

    Raises:
        StoreAccessError: it cannot be listed.
    """
    path = kvstore.local_path(directory)
    if path is None:
        yield from ((name, 0) for name in kvstore.list_names(directory) if "/" not in name)
        return
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                    yield entry.name, entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreAccessError(f"cannot list {path}: {error}") from error


@contextmanager
def writing(url: str) -> Iterator[IO[bytes]]:
    """Give a file that can be sought in, which takes its place at the end, atomically; not if the block raises.

    Raises:
        StoreAccessError: the location refuses.
        StoreError: it cannot be written, e.g. because the disk is full.
    """
    path = kvstore.local_path(url)
    if path is None:
        stream = io.BytesIO()
        yield stream
        kvstore.write_bytes(url, stream.getvalue())
        return
    try:
        with replacing(path) as temporary, temporary.open("w+b") as file:
            yield file
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}") from error
