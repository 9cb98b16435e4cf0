"""The pages of one TIFF file as a stack zyx or czyx: where they are, what they say, and the voxels of a box."""

from __future__ import annotations

import functools
import itertools
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import (
    CorruptChunkError,
    GeometryError,
    MissingDependencyError,
    StoreAccessError,
    UnknownFormatError,
)
from daskflow.geometry import BoundingBox, Zyx
from daskflow.stores.base import Array
from daskflow.stores.tiff_tags import Tags, read_tags

_SEGMENT_BYTES = 2**31
_DAMAGE = (ValueError, RuntimeError, IndexError, TypeError, KeyError, SyntaxError, struct.error, zlib.error)


@dataclass(frozen=True)
class Segments:
    """The strips or tiles of the pages of a file.

    Attributes:
        offsets: byte positions, per page.
        counts: bytes, per page; 0 for a segment that was never written.
        shape: rows and columns of a segment.
        decode: (bytes, number of the segment) -> (voxels (1, rows, columns, samples), position, shape).
    """

    offsets: tuple[Sequence[int], ...]
    counts: tuple[Sequence[int], ...]
    shape: tuple[int, int]
    decode: Callable[[bytes, int], tuple[Array | None, tuple[int, ...], tuple[int, ...]]]


@dataclass(frozen=True)
class TiffStack:
    """One TIFF file, closed again; reads need no lock.

    Attributes:
        path: of the file.
        shape: sections, rows and columns (zyx).
        channels: size of the channel axis, None without one.
        dtype: in native byte order.
        tags: what the file says of its voxels.
        axes: stored order: a permutation of ZC before YX, or before YXS when samples are the channels.
        stored: dtype in the file's byte order.
        start: byte position of the voxels, when they lie uncompressed in one piece.
        segments: strips or tiles otherwise.
    """

    path: Path
    shape: Zyx
    channels: int | None
    dtype: np.dtype[Any]
    tags: Tags
    axes: str
    stored: np.dtype[Any]
    start: int | None
    segments: Segments | None

    def read_into(self, out: Array, box: BoundingBox) -> int:
        """Read a box, counted from the first voxel, into an array; return how many segments were never written."""
        if self.start is not None:
            out[...] = self._map(box)
            return 0
        out = out[np.newaxis] if self.channels is None else out
        missing = 0
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for channel, page, section in self._pages(box):
                for number in self._segments_in(box):
                    missing += self._decode_into(out, file.fileno(), size, (channel, page, section, number), box)
        return missing

    def _map(self, box: BoundingBox) -> Array:
        sizes = {
            "Z": self.shape[0],
            "C": self.channels or 1,
            "S": self.channels or 1,
            "Y": self.shape[1],
            "X": self.shape[2],
        }
        mapped = np.memmap(self.path, self.stored, "r", self.start or 0, tuple(sizes[axis] for axis in self.axes))
        lead = "".join(axis for axis in "CS" if axis in self.axes)
        voxels: Any = mapped.transpose([self.axes.index(axis) for axis in f"{lead}ZYX"])
        inside = tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))
        found: Array = voxels[(..., *inside)]
        return found

    def _pages(self, box: BoundingBox) -> Iterator[tuple[int | None, int, int]]:
        """Yield channel, page and section; the channel is None when a page holds all of them."""
        depth, per_section = self.shape[0], self.channels if "C" in self.axes and self.channels else 1
        for z, c in itertools.product(range(box.start[0], box.stop[0]), range(per_section)):
            page = c * depth + z if self.axes.startswith("C") else z * per_section + c
            yield None if "S" in self.axes else c, page, z - box.start[0]

    def _segments_in(self, box: BoundingBox) -> Iterator[int]:
        assert self.segments is not None
        rows, columns = self.segments.shape
        across = math.ceil(self.shape[2] / columns)
        cells = BoundingBox((0, *box.start[1:]), (1, *box.stop[1:])).coarsen((1, rows, columns))
        for row, column in itertools.product(
            range(cells.start[1], cells.stop[1]), range(cells.start[2], cells.stop[2])
        ):
            yield row * across + column

    def _decode_into(
        self, out: Array, file: int, size: int, at: tuple[int | None, int, int, int], box: BoundingBox
    ) -> bool:
        """Decode one segment into `out`; return whether it was never written."""
        assert self.segments is not None
        channel, page, section, number = at
        offset, count = self.segments.offsets[page][number], self.segments.counts[page][number]
        if count == 0:
            return True
        if offset + count > size:
            raise CorruptChunkError(f"{self.path} is truncated: page {page} ends at byte {offset + count} of {size}")
        try:
            data, place, _ = self.segments.decode(os.pread(file, count, offset), number)
        except _DAMAGE as error:
            raise _translated(error, f"page {page} of {self.path}") from error
        if data is None:
            return True
        _, _, top, left, _ = place
        y0, x0 = max(top, box.start[1]), max(left, box.start[2])
        y1, x1 = min(top + data.shape[1], box.stop[1]), min(left + data.shape[2], box.stop[2])
        voxels = data[0, y0 - top : y1 - top, x0 - left : x1 - left]
        inside = (section, slice(y0 - box.start[1], y1 - box.start[1]), slice(x0 - box.start[2], x1 - box.start[2]))
        if channel is None:
            out[(slice(None), *inside)] = np.moveaxis(voxels, -1, 0)
        else:
            out[(channel, *inside)] = voxels[..., 0]
        return False


def _translated(error: Exception, what: str) -> Exception:
    if "imagecodecs" in str(error):
        return MissingDependencyError(
            f"{what} is compressed in a way that needs imagecodecs: pip install 'daskflow[tiff]'"
        )
    return CorruptChunkError(f"cannot decode {what}: {error}")


@functools.lru_cache(maxsize=256)
def stack_of(path: Path, size: int, mtime_ns: int) -> TiffStack:  # noqa: ARG001 (a changed file is another stack)
    """Return the stack in a file of this size and time; raises as `parse_stack`."""
    return parse_stack(path, size)


def parse_stack(path: Path, size: int) -> TiffStack:
    """Return the stack in a TIFF file of `size` bytes.

    Raises:
        CorruptChunkError: the file is truncated or damaged.
        GeometryError: its axes are not those of a volume, or its pages differ.
        UnknownFormatError: a kind of TIFF that is not read.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            _check_chain(tif, size)
            if len(tif.series) != 1:
                shapes = ", ".join(f"{series.shape} {series.dtype}" for series in tif.series)
                raise GeometryError(
                    f"{path} holds {len(tif.series)} images ({shapes}); a stack has pages of one shape and dtype"
                )
            return _stack(path, size, tif)
    except PermissionError as error:
        raise StoreAccessError(f"cannot read {path}: {error}") from error
    except GeometryError:
        raise
    except (*_DAMAGE, tifffile.TiffFileError) as error:
        raise _translated(error, str(path)) from error


def _stack(path: Path, size: int, tif: Any) -> TiffStack:
    series = tif.series[0]
    key = series.keyframe
    if series.dtype is None or series.dtype.kind not in "biuf":
        raise UnknownFormatError(f"{path} holds {series.dtype}, which is no voxel type")
    if key.planarconfig != 1 or key.imagedepth != 1 or key.is_subsampled:
        raise UnknownFormatError(
            f"{path} has separate sample planes, volumetric tiles or subsampled colours, which are not read"
        )
    tags = read_tags(tif)
    axes, depth, channels = _axes(series, path)
    if channels is None and tags.channels is not None:
        axes, depth, channels = "ZCYX", depth // tags.channels, tags.channels
    expected = tags.pages
    if expected is not None and depth * (channels or 1) not in (expected, expected * key.samplesperpixel):
        raise CorruptChunkError(f"{path} is truncated: it says {expected} pages and has {depth * (channels or 1)}")
    shape = (depth, key.imagelength, key.imagewidth)
    stored = series.dtype.newbyteorder(tif.byteorder)
    common = (path, shape, channels, series.dtype.newbyteorder("="), tags)
    if series.dataoffset is not None:
        end = series.dataoffset + math.prod(shape) * (channels or 1) * stored.itemsize
        if end > size:
            raise CorruptChunkError(f"{path} is truncated: its voxels end at byte {end} of {size}")
        return TiffStack(*common, axes, stored, series.dataoffset, None)
    return TiffStack(*common, axes, stored, None, _segments(series, path, size))


def _segments(series: Any, path: Path, size: int) -> Segments:
    key = series.keyframe
    pages = list(series.pages)
    if any(page is None or page.parent is not key.parent for page in pages):
        raise UnknownFormatError(f"{path} is spread over several files; open a directory of sections instead")
    shape = (
        (key.tilelength, key.tilewidth) if key.is_tiled else (min(key.rowsperstrip, key.imagelength), key.imagewidth)
    )
    if math.prod(shape) * key.samplesperpixel * series.dtype.itemsize > _SEGMENT_BYTES:
        raise UnknownFormatError(f"{path} says its strips or tiles have {shape} pixels each, which is more than 2 GiB")
    number = math.ceil(key.imagelength / shape[0]) * math.ceil(key.imagewidth / shape[1])
    for index, page in enumerate(pages):
        if len(page.dataoffsets) < number or len(page.databytecounts) < number:
            raise CorruptChunkError(
                f"{path} is damaged: page {index} has {len(page.dataoffsets)} strips or tiles of {number}"
            )
        end = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=False)))
        if end > size:
            raise CorruptChunkError(f"{path} is truncated: page {index} ends at byte {end} of {size}")
    tables = {"jpegtables": key.jpegtables, "jpegheader": key.jpegheader} if key.jpegtables or key.jpegheader else {}
    decode = functools.partial(key.decode, **tables)
    return Segments(tuple(p.dataoffsets for p in pages), tuple(p.databytecounts for p in pages), shape, decode)


def _axes(series: Any, path: Path) -> tuple[str, int, int | None]:
    """Return the stored axes as Z, C, Y, X and S, and the numbers of sections and channels.

    Sections may be called Z, or time, or nothing at all where there is no Z; of two unnamed axes the first is channels.
    """
    stored = zip(series.get_axes(squeeze=False), series.get_shape(squeeze=False), strict=True)
    sizes = [(axis, n) for axis, n in stored if n > 1 or axis in "YX"]
    lead = [axis for axis, _ in sizes if axis not in "YXS"]
    named = "CZ" if lead == ["Q", "Q"] else "".join(axis if axis == "C" else "Z" for axis in lead)
    samples = "S" if sizes[-1][0] == "S" else ""
    if named not in ("", "Z", "C", "CZ", "ZC") or (samples and "C" in named):
        raise GeometryError(f"{path} has axes {series.axes} of shape {series.shape}; a volume has zyx or czyx")
    counts = dict(zip(named, (n for axis, n in sizes if axis not in "YXS"), strict=True))
    channels = sizes[-1][1] if samples else counts.get("C")
    return f"{named if 'Z' in named else f'Z{named}'}YX{samples}", counts.get("Z", 1), channels


def _check_chain(tif: Any, size: int) -> None:
    """Raise when the chain of page directories leads out of the file, where tifffile would just stop."""
    form, handle = tif.tiff, tif.filehandle
    seen: set[int] = set()
    handle.seek(4 if form.offsetsize == 4 else 8)
    (at,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
    while at and at not in seen:
        seen.add(at)
        handle.seek(min(at, size))
        head = handle.read(form.tagnosize)
        end = (
            at
            + form.tagnosize
            + (struct.unpack(form.tagnoformat, head)[0] * form.tagsize if head else 0)
            + form.offsetsize
        )
        if not head or end > size:
            raise CorruptChunkError(
                f"{tif.filehandle.path} is truncated: page {len(seen) - 1} is at byte {at} of {size}"
            )
        handle.seek(end - form.offsetsize)
        (at,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
