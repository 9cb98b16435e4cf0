"""Formats that are one file on a local disk: written whole by one writer, fingerprinted by size and time."""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import os
import re
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from daskflow.errors import MissingChunkError, ParameterError, StoreAccessError, StoreError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.base import Array, Layout, Store

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}(?:\.partial)?")
_SLAB_SECTIONS = 64
_NAMED = 10
_SLAB_BYTES = 256 * 2**20


class FileStore(Store):
    """The voxels in one local file, or in a directory of files; only read, because such files are written whole."""

    written = True
    format_name: ClassVar[str]

    def __init__(self, url: str, spec: VolumeSpec, *, fill_missing: bool = False) -> None:
        super().__init__(url, (spec,), fill_missing=fill_missing)

    @property
    def path(self) -> Path:
        """Where the file is."""
        return local_file(self.url)

    def _write(self, box: BoundingBox, array: Array) -> None:  # noqa: ARG002
        raise StoreAccessError(f"{self.url} is a {self.format_name} file, which is written whole, not in part ({box})")

    def fingerprint(self) -> dict[str, Any]:
        """Return the location, and what changes with the file, or any file of a directory."""
        return {"format": self.format_name, "url": self.url, "spec": repr(self.spec), **self._state()}

    def _state(self) -> dict[str, Any]:
        return file_state(self.path)

    def check_writable(self) -> None:
        """Raise StoreAccessError unless a file can be made beside this one."""
        kvstore.check_writable(str(self.path.parent))


def local_file(url: str) -> Path:
    """Return the path of a local URL."""
    path = kvstore.local_path(url)
    if path is None:
        raise StoreAccessError(f"{kvstore.redact(url)} must be on a local disk for this format; copy it there first")
    return path


def file_state(path: Path) -> dict[str, int]:
    """Return the size and modification time of a file."""
    state = path.stat()
    return {"size": state.st_size, "mtime_ns": state.st_mtime_ns}


def states_of(paths: Iterable[Path]) -> dict[str, str]:
    """Return a hash of the names, sizes and times of files."""
    listed = [(path.name, *file_state(path).values()) for path in paths]
    return {"files": hashlib.sha256(repr(listed).encode()).hexdigest()}


def refuse_skipped(url: str, kind: str, there: Sequence[Path], sections: Sequence[Path]) -> None:
    """Raise MissingChunkError where sections are none of the files that are there."""
    if skipped := [file.name for file in sections if file not in there]:
        raise MissingChunkError(
            f"{url} has {len(there)} {kind} files, and by their numbers lacks {first_of(skipped)}; "
            "fill_missing reads their sections as zeros"
        )


def begins_with(url: str, magics: Sequence[bytes]) -> bool:
    """Return whether a local file begins with one of some byte strings."""
    path = kvstore.local_path(url)
    if path is None or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(max(map(len, magics)))
    except PermissionError:
        return False
    return any(start.startswith(magic) for magic in magics)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; the file made there takes its place, or is removed if the block raises."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except PermissionError as error:
        raise StoreAccessError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def flush(urls: Iterable[str]) -> None:
    """Wait until all that was written to the local file systems of URLs is on their disks, where Linux can be asked."""
    paths = [path for url in urls if (path := kvstore.local_path(url)) is not None]
    there = [next(one for one in (path, *path.parents) if one.exists()) for path in paths]
    library = ctypes.CDLL(None, use_errno=True)
    for path in {one.stat().st_dev: one for one in there}.values() if hasattr(library, "syncfs") else ():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if library.syncfs(descriptor) and ctypes.get_errno() in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
                raise StoreError(f"cannot write what is below {path} to disk: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(descriptor)


def sweep(url: str, *, before: float) -> int:
    """Delete temporary files, older than a time (s since 1970), that a killed process left; return how many."""
    path = kvstore.local_path(url)
    if path is None:
        return 0
    beside = path.parent.glob(f".{glob.escape(path.name)}.*.partial")
    files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names) if path.is_dir() else beside
    removed = 0
    for file in files:
        if _TEMPORARY.fullmatch(file.name) and file.lstat().st_mtime < before:
            file.unlink(missing_ok=True)
            removed += 1
    return removed


def check_place(url: str, spec: VolumeSpec) -> None:
    """Raise unless a volume that is not empty can be written at a URL, to which directories may lack."""
    next(slabs(spec))
    path = local_file(url)
    if path.is_dir():
        raise StoreAccessError(f"{path} is a directory; name a file")
    above = next(parent for parent in path.parents if parent.exists())
    if not above.is_dir():
        raise StoreAccessError(f"cannot write {path}: {above} is not a directory")
    kvstore.check_writable(str(above))


def refuse_layout(layout: Layout, names: Sequence[str], kind: str) -> None:
    """Raise when a layout asks for what of `chunk` and `shard` a kind of files has not."""
    for name in names:
        value = getattr(layout, name)
        if value is not None:
            raise ParameterError(f"{kind} files have no {name}s; drop {name}={value}")


def deflate_level(layout: Layout, names: Sequence[str], kind: str, others: Sequence[str] = ()) -> int | None:
    """Return the level at which a layout asks to compress, 1 unless it says one; None for none.

    `names` are what the format calls its compression; the first is shown, and what else it has is in `others`.
    """
    name = layout.compression or layout.encoding or names[0]
    if name in ("none", "raw"):
        return None
    if name not in names:
        known = ", ".join([names[0], *others])
        raise ParameterError(f"{kind} files are compressed by {known} or none; got {name!r}")
    level = 1 if layout.quality is None else layout.quality
    if not 0 <= level <= zlib.Z_BEST_COMPRESSION:
        raise ParameterError(f"level {level} of zlib must be 0 to {zlib.Z_BEST_COMPRESSION}")
    return level


def slabs(spec: VolumeSpec, unit: int = 1) -> Iterator[BoundingBox]:
    """Yield whole sections of a volume in order, `unit` of them or a multiple, as many as take little memory."""
    box = spec.box
    if box.empty:
        raise ParameterError(f"box {box} holds no voxel; there is nothing to write")
    section = spec.nbytes_of(BoundingBox(box.start, (box.start[0] + 1, *box.stop[1:])))
    depth = unit * max(1, min(_SLAB_SECTIONS, _SLAB_BYTES // section) // unit)
    for z in range(box.start[0], box.stop[0], depth):
        yield BoundingBox((z, *box.start[1:]), (min(z + depth, box.stop[0]), *box.stop[1:]))


def first_of(names: Sequence[str], separator: str = ", ") -> str:
    """Return the first ten names for a message, and how many more there are."""
    more = len(names) - _NAMED
    return separator.join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def natural_order(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts names as people count: ``z2`` before ``z10``."""
    return [(text, int(digits or -1)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


@contextmanager
def gzipped(path: Path, level: int | None) -> Iterator[Any]:
    """Give a file to append to, of which what is written is gzipped (ISA-L) unless the level is None."""
    from isal import igzip, isal_zlib

    with path.open("ab") as file:
        if level is None:
            yield file
            return
        packer: Any = igzip.IGzipFile  # without types
        with packer("", "wb", min(level, isal_zlib.Z_BEST_COMPRESSION), file, mtime=0) as packed:
            yield packed


def deflate(level: int) -> Callable[[Any], bytes]:
    """Return a function that compresses a buffer to zlib's format: by ISA-L up to level 3, which is much faster."""
    from isal import isal_zlib

    compress = isal_zlib.compress if level <= isal_zlib.Z_BEST_COMPRESSION else zlib.compress
    return lambda data: bytes(compress(data, level))
