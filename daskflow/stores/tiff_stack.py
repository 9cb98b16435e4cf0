"""One TIFF file as a stack zyx or czyx: where its pages are, the voxels of a box, and what its tags say."""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from daskflow.errors import (
    CorruptChunkError,
    GeometryError,
    MissingDependencyError,
    ParameterError,
    StoreAccessError,
    UnknownFormatError,
)
from daskflow.geometry import BoundingBox, Zyx
from daskflow.stores.axes import Axes, as_text, axis_names, find_axes
from daskflow.stores.base import Array, Opening
from daskflow.stores.local_files import file_state
from daskflow.stores.stated import Stated, nm_per, numbers_in

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


NAMESPACE = "daskflow"
_OWN = f'{{"{NAMESPACE}": '
_SCREEN = (72.0, 72.0)
_SEGMENT_BYTES = 2**31
_UNNAMED = "IQ"
_WORDS = (270, 282, 283)  # ImageDescription, XResolution, YResolution
_DAMAGE = (
    *(ValueError, RuntimeError, IndexError, TypeError, KeyError, SyntaxError, ArithmeticError, AssertionError),
    *(AttributeError, struct.error, zlib.error),
)


@dataclass(frozen=True)
class Tags:
    """What a file says of its voxels.

    Attributes:
        stated: sizes, place and meaning, zyx.
        pages: how many pages there should be, None when the file does not say.
        described: planes by sections, channels and time points, as OME tags say.
        channels: size of the channel axis, in files that we wrote; None for all others.
    """

    stated: Stated
    pages: int | None = None
    described: str = ""
    channels: int | None = None


def read_tags(tif: Any) -> Tags:
    """Return what an open tifffile.TiffFile says of its voxels."""
    if tif.is_ome:
        return ome_tags(parsed(tif.ome_metadata))
    if tif.is_imagej:
        return _imagej(tif)
    description = tif.pages[0].description
    if description.startswith(_OWN):
        note = json.loads(description)[NAMESPACE]
        return _with_note(Tags(Stated(voxel_size=note.get("voxel_size"), sources={"voxel_size": "our own tags"})), note)
    for said in tif.shaped_metadata or ():
        return Tags(_of_tifffile(tif.pages[0], said))
    return Tags(Stated(sources={"voxel_size": _plain(tif.pages[0])}))


def parsed(text: str) -> Element:
    """Return the root of OME's XML; ElementTree.ParseError is a SyntaxError."""
    from xml.etree import ElementTree as ET

    return ET.fromstring(text)  # noqa: S314 (expat bounds the expansion of entities)


def ome_tags(root: Element) -> Tags:
    """Return what the XML of an OME-TIFF says of its first image."""
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return Tags(Stated(sources={"voxel_size": "OME tags without pixels"}))
    names = tuple(channel.get("Name", "") for channel in pixels.findall("{*}Channel"))
    note = {
        item.get("K", ""): json.loads(item.text or "null")
        for annotation in root.findall(".//{*}MapAnnotation")
        if annotation.get("Namespace") == NAMESPACE
        for item in annotation.iter()
        if item.tag.endswith("}M")
    }
    sizes, units = _physical(pixels)
    stated = Stated(
        voxel_size=sizes if any(sizes) else None,
        units=units,
        channel_names=names if any(names) else (),
        sources={"voxel_size": "OME tags" if any(sizes) else "OME tags without sizes", "channel_names": "OME tags"},
    )
    return _with_note(Tags(stated, described=" x ".join(pixels.get(f"Size{axis}", "?") for axis in "ZCT")), note)


def _physical(said: Any) -> tuple[list[Any], list[Any]]:
    """Return the lengths of a voxel (zyx) as OME names them, and their units."""
    return [said.get(f"PhysicalSize{axis}") for axis in "ZYX"], [said.get(f"PhysicalSize{a}Unit", "µm") for a in "ZYX"]


def _of_tifffile(page: Any, said: dict[str, Any]) -> Stated:
    """Return what the description says that tifffile writes outside OME and ImageJ files: names of either, as given."""
    source = {"axes": "TIFF tags"} if said.get("axes") else {}
    sizes, units = _physical(said)
    if any(sizes):
        return Stated(voxel_size=sizes, units=units, sources={**source, "voxel_size": "tags PhysicalSize of tifffile"})
    if said.get("unit") is None:
        return Stated(sources={**source, "voxel_size": _plain(page)})
    y, x = (_per_unit(page, axis) for axis in "YX")
    sizes = [said.get("spacing"), y and 1 / y, x and 1 / x]
    where = "tags unit, spacing of tifffile"
    return Stated(voxel_size=sizes, units=as_text(said["unit"]), sources={**source, "voxel_size": where})


def _with_note(tags: Tags, note: dict[str, Any]) -> Tags:
    """Return tags with what daskflow itself wrote beside them."""
    ours = {"voxel_offset": "our own tags", "layer_type": "our own tags"}
    stated = replace(
        tags.stated,
        voxel_offset=note.get("voxel_offset"),
        layer_type=note.get("layer_type"),
        channel_names=tuple(note.get("channel_names", tags.stated.channel_names)),
        sources={"channel_names": "our own tags", **tags.stated.sources, **(ours if note else {})},
    )
    return replace(tags, stated=stated, channels=note.get("channels") or None)


def _imagej(tif: Any) -> Tags:
    """Return what ImageJ's tags say: lengths of a pixel in `unit`, and sections `spacing` or 1 unit apart.

    One section alone, as in a directory of them, has no thickness unless its tags say so.
    """
    said = tif.imagej_metadata or {}
    unit, where = as_text(said.get("unit")), "ImageJ tags unit, spacing"
    y, x = (_per_unit(tif.pages[0], axis) for axis in "YX")
    if not unit and (x, y) != _SCREEN:
        unit, where = _resolution_unit(tif.pages[0]), "ImageJ tags ResolutionUnit, spacing"
    sections = said.get("images", 1) // (said.get("channels", 1) * said.get("frames", 1) or 1)
    found = numbers_in(said.get("spacing", 1 if sections > 1 else 0), least=1)
    z = abs(found[0]) if found else 0.0
    if "spacing" not in said:
        where = where.replace("spacing", f"no spacing{', which ImageJ takes as 1 unit' if z else ''}")
    stated = Stated(
        voxel_size=[z, y and 1 / y, x and 1 / x],
        units=[as_text(said.get("zunit")) or unit, as_text(said.get("yunit")) or unit, unit],
        sources={"voxel_size": where},
    )
    return Tags(stated, pages=said.get("images"))


def _per_unit(page: Any, axis: str) -> float:
    """Return the resolution tag of an axis: pixels per unit, 0 when there is none."""
    tag = page.tags.get(f"{axis}Resolution")
    if tag is None:
        return 0.0
    pixels, units = tag.value
    return float(pixels / units) if units else 0.0


def _resolution_unit(page: Any) -> str:
    tag = page.tags.get("ResolutionUnit")
    return {2: "inch", 3: "cm"}.get(int(tag.value) if tag else 1, "")


def _plain(page: Any) -> str:
    """Plain resolution tags know nothing of the third axis, and are mostly the printer's: they are only shown."""
    unit = nm_per(_resolution_unit(page))
    y, x = (_per_unit(page, axis) for axis in "YX")
    if unit and y and x:
        return f"resolution tags say {unit / y:.6g} x {unit / x:.6g} nm (yx), and nothing of the thickness"
    return "no tags"


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
        shape: sections, rows and columns (zyx).
        stored_shape: elements per stored axis: of pages, then y, x and samples.
        stored: dtype in the file's byte order.
        start: byte position of the voxels, when they lie uncompressed in one piece.
        segments: strips or tiles otherwise; None of one volumetric page, which is decoded as a whole.
    """

    path: Path
    shape: Zyx
    channels: int | None
    dtype: np.dtype[Any]
    tags: Tags
    stored_shape: tuple[int, ...]
    axes: Axes
    stored: np.dtype[Any]
    start: int | None
    segments: Segments | None

    def read_into(self, out: Array, box: BoundingBox) -> int:
        """Read a box, counted from the first voxel, into an array; return how many segments were never written."""
        if self.start is not None:
            out[...] = self._part(np.memmap(self.path, self.stored, "r", self.start, self.stored_shape), box)
            return 0
        if self.segments is None:
            out[...] = self._part(_decoded(self.path, **file_state(self.path)), box)
            return 0
        out = out[np.newaxis] if self.channels is None else out
        missing = 0
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for channel, page, section in self._pages(box):
                for number in self._segments_in(box):
                    missing += self._decode_into(out, file.fileno(), size, (channel, page, section, number), box)
        return missing

    def _part(self, array: Array, box: BoundingBox) -> Array:
        found: Array = self.axes.view(array, [slice(a, b) for a, b in zip(box.start, box.stop, strict=True)])
        return found

    def _pages(self, box: BoundingBox) -> Iterator[tuple[int | None, int, int]]:
        """Yield channel, page and section; the channel is None when a page holds all of them."""
        inner = self.axes.spatial[1:]
        lead = [n if i < min(inner) else 1 for i, n in enumerate(self.stored_shape)]
        numbers = np.arange(math.prod(lead)).reshape(lead)
        pages = self.axes.view(numbers, (slice(box.start[0], box.stop[0]), slice(None), slice(None)))[..., 0, 0]
        samples = self.axes.channel is not None and self.axes.channel > max(inner)
        pages = pages if pages.ndim == 2 else pages[np.newaxis]
        for (c, z), page in np.ndenumerate(pages):
            yield None if samples else c, int(page), z

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
        if min(offset, count) < 0 or offset + count > size:
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


@functools.lru_cache(maxsize=2)
def _decoded(path: Path, size: int, mtime_ns: int) -> Array:  # noqa: ARG001 (a changed file is another array)
    """Return all voxels of a file, e.g. of chunkflow, that keeps them in one page."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            voxels: Array = tif.series[0].asarray()
    except _DAMAGE as error:
        raise _translated(error, str(path)) from error
    return voxels


def _translated(error: Exception, what: str) -> Exception:
    if "imagecodecs" in str(error):
        return MissingDependencyError(
            f"{what} is compressed in a way that needs imagecodecs: pip install 'daskflow[tiff]'"
        )
    return CorruptChunkError(f"cannot decode {what}: {error}")


@functools.lru_cache(maxsize=256)
def stack_of(path: Path, size: int, mtime_ns: int, opening: Opening, *, ome: bool = True) -> TiffStack:  # noqa: ARG001
    """Return the stack in a TIFF file of `size` bytes.

    Without `ome` its pages count as they come, whatever OME's description of the file says.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path, is_ome=None if ome else False) as tif:
            _check_chain(tif, size)
            alone = {(series.shape, series.dtype, len(series)) for series in tif.series}
            if len(tif.series) > 1 == len(alone) == next(iter(alone))[2] and not tif.is_ome:
                return _pages_alike(path, size, opening)
            if len(tif.series) != 1:
                shapes = ", ".join(f"{series.shape} {series.dtype}" for series in tif.series)
                raise GeometryError(
                    f"{path} holds {len(tif.series)} images ({shapes}); a stack has pages of one shape and dtype"
                )
            return _stack(path, size, tif, opening)
    except PermissionError as error:
        raise StoreAccessError(f"cannot read {path}: {error}") from error
    except (GeometryError, ParameterError):
        raise
    except (*_DAMAGE, tifffile.TiffFileError) as error:
        raise _translated(error, str(path)) from error


def _pages_alike(path: Path, size: int, opening: Opening) -> TiffStack:
    """Return the stack of pages that were written one by one, each of which describes itself alone."""
    import tifffile

    with tifffile.TiffFile(path, is_shaped=False, is_imagej=False) as tif:
        return _stack(path, size, tif, opening)


def _stack(path: Path, size: int, tif: Any, opening: Opening) -> TiffStack:
    series = tif.series[0]
    key = series.keyframe
    if series.dtype is None or series.dtype.kind not in "biuf":
        raise UnknownFormatError(f"{path} holds {series.dtype}, which is not a voxel type")
    if (key.planarconfig != 1 and series.dataoffset is None) or key.is_subsampled:
        raise UnknownFormatError(f"{path} has separate sample planes or subsampled colours, which are not read")
    tags = read_tags(tif)
    if tif.is_ome and series.kind != "ome":  # tifffile would read the pages as something else
        raise CorruptChunkError(
            f"{path} is truncated, or not what its OME description says: that has {tags.described} planes (zct), and"
            f" the file {len(tif.pages)} pages"
        )
    shape, names = _stored(series, tags, path, opening)
    axes = find_axes(shape, names, str(path), opening, keep_channel=tags.channels is not None)
    if axes.spatial[1:] != tuple(sorted(axes.spatial[1:])) or axes.spatial[0] > axes.spatial[1]:
        raise GeometryError(f"{path} has pages that are not yx; such TIFF files are not read")
    written = len([page for page in series.pages if page is not None])
    if written < len(series.pages) or tags.pages not in (None, len(series), math.prod(series.shape[:-2])):
        planes = tags.pages or len(series.pages)
        raise CorruptChunkError(f"{path} is truncated: it says {planes} pages and has {written}")
    stored = series.dtype.newbyteorder(tif.byteorder)
    channels = None if axes.channel is None else shape[axes.channel]
    common = (path, axes.zyx(shape), channels, series.dtype.newbyteorder("="), tags, shape, axes)
    if series.dataoffset is not None:
        end = series.dataoffset + math.prod(shape) * stored.itemsize
        if end > size:
            raise CorruptChunkError(f"{path} is truncated: its voxels end at byte {end} of {size}")
        return TiffStack(*common, stored, series.dataoffset, None)
    return TiffStack(*common, stored, None, None if key.imagedepth != 1 else _segments(series, path, size))


def _stored(series: Any, tags: Tags, path: Path, opening: Opening) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the shape and the names of the stored axes; pages that nothing names are sections."""
    shape = tuple(series.shape)
    names = ["" if axis in _UNNAMED else axis for axis in series.axes]
    if opening.axes is not None and len(axis_names(opening.axes)) == len(shape):
        return shape, tuple(names)
    unnamed = [i for i, name in enumerate(names) if not name]
    if "Z" not in names and len(unnamed) == 1:
        names[unnamed[0]] = "Z"
    elif unnamed:
        raise GeometryError(
            f"{path} has {len(shape)} axes {shape} and does not say which they are; say so, in stored order, e.g. "
            f"--axes {'zyxc' if len(shape) == 4 else 'tzcyx'}"
        )
    if "Z" not in names:
        shape, names = (1, *shape), ["Z", *names]
    if tags.channels is not None and "C" not in names and "S" not in names:
        at = names.index("Z")
        shape = (*shape[:at], shape[at] // tags.channels, tags.channels, *shape[at + 1 :])
        names.insert(at + 1, "C")
    return shape, tuple(names)


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


def _check_chain(tif: Any, size: int) -> None:
    """Raise when the chain of pages, or what describes the first, leads out of the file, where tifffile just stops."""
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
            raise CorruptChunkError(f"{handle.path} is truncated: page {len(seen) - 1} is at byte {at} of {size}")
        tags = handle.read(end - form.offsetsize - handle.tell())
        if len(seen) == 1 and (last := _end_of_words(tags, form)) > size:
            raise CorruptChunkError(f"{handle.path} is truncated: its description ends at byte {last} of {size}")
        (at,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))


def _end_of_words(tags: bytes, form: Any) -> int:
    """Return the byte at which the description of a page and its resolution end, from its directory."""
    ends = [0]
    layout = f"{form.byteorder}HH{form.offsetformat[1:]}"
    for at in range(0, len(tags) - form.tagsize + 1, form.tagsize):
        code, kind, count = struct.unpack_from(layout, tags, at)
        width = count * {2: 1, 5: 8}.get(kind, 0)
        if code in _WORDS and width > form.offsetsize:
            ends.append(struct.unpack_from(form.offsetformat, tags, at + form.tagsize - form.offsetsize)[0] + width)
    return max(ends)
