"""Chunk files as CloudVolume names them on local disk: ``0-64_0-64_0-64.gz``, ``.br``, or plain.

tensorstore knows the plain names alone. A chunk's path is text: making it a `Path` takes as long as reading the file.
"""

# ruff: noqa: PTH105, PTH107, PTH116, PTH123

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from daskflow.errors import StoreAccessError, StoreError, UnknownFormatError
from daskflow.geometry import BoundingBox
from daskflow.stores.compressed import SUFFIXES, compress, decompress
from daskflow.stores.precomputed_driver import Load, Put, chunk_name

_CHUNK_NAME = re.compile(r"-?\d+--?\d+_-?\d+--?\d+_-?\d+--?\d+(\.\w+)?")


@dataclass(frozen=True)
class ChunkFiles:
    """The unsharded chunk files of one scale in a local directory.

    Attributes:
        directory: where they are.
        most: bytes of a chunk beyond which a compressed file is damaged.
        compression: by which new ones are compressed, gzip, br or none; each is read whichever name it has.
    """

    directory: Path
    most: int
    compression: str = "none"

    def fetch(self, chunks: Sequence[BoundingBox]) -> list[Load]:
        """Return a function for each chunk that reads and decompresses its file; None without a file.

        Raises:
            CorruptChunkError: from the function: it is damaged; the message names it.
        """
        likeliest = SUFFIXES[self.compression]
        suffixes = [likeliest, *(suffix for suffix in SUFFIXES.values() if suffix != likeliest)]
        return [functools.partial(_load, self.directory, chunk_name(chunk), suffixes, self.most) for chunk in chunks]

    @contextlib.contextmanager
    def writing(self) -> Iterator[Put]:
        """Give a function that puts a file in place atomically, or for None deletes it, under all its names.

        Raises:
            StoreAccessError: the directory refuses.
            MissingDependencyError: br without the brotli package.
        """
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
