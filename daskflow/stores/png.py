"""PNG files, one per section: a file, or a directory whose names end in the number of the section."""

# ruff: noqa: ARG003 (every format is asked with the same arguments)

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from daskflow.errors import (
    CorruptChunkError,
    GeometryError,
    MissingChunkError,
    ParameterError,
    StoreAccessError,
    StoreNotFoundError,
    optional_module,
)
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore, local_files
from daskflow.stores.axes import Axes
from daskflow.stores.base import Array, Layout, Opening, ReadBox, Store
from daskflow.stores.counting import count
from daskflow.stores.local_files import FileStore, local_file
from daskflow.stores.refusals import check_mip, refuse_cast
from daskflow.stores.stated import Stated, settle
from daskflow.stores.tiff import with_skipped

_MAGIC = b"\x89PNG\r\n\x1a\n"
_BANDS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by the colour type of the header; palettes are read as their colours
_NUMBERED = re.compile(r".*?(\d+)\.png", re.IGNORECASE)


def _imagecodecs() -> Any:
    return optional_module("imagecodecs", package="imagecodecs", extra="tiff")


class _Header(NamedTuple):
    """What a PNG file says of itself."""

    height: int
    width: int
    dtype: str
    bands: int


class PngStore(FileStore):
    """Sections in PNG files that all have one header."""

    format_name = "png"
    sections = True

    def __init__(self, url: str, spec: VolumeSpec, header: _Header, *, fill_missing: bool) -> None:
        super().__init__(url, spec, fill_missing=fill_missing)
        self.header = header

    @classmethod
    def recognises(cls, url: str) -> bool:
        path = kvstore.local_path(url)
        if path is None or path.is_file():
            return local_files.begins_with(url, (_MAGIC,))
        return bool(_files(path)[0])

    @classmethod
    def open(cls, url: str, opening: Opening) -> Store:
        _imagecodecs()
        check_mip(opening.mip, 1, url)
        path = local_file(url)
        if opening.dataset is not None or opening.axes is not None or opening.time is not None:
            raise ParameterError(f"{url} holds one stack of sections; drop dataset, axes and time")
        there, files = _files(path)
        if not files:
            raise StoreNotFoundError(f"{url} is neither a PNG file, nor a directory of them, nor how their names begin")
        if not opening.fill_missing:
            local_files.refuse_skipped(url, "PNG", there, files)
        headers = {file: _header_of(file) for file in there}
        header = headers[there[0]]
        odd = next((file for file, found in headers.items() if found != header), None)
        if odd is not None:
            raise GeometryError(f"{odd} is {_words(headers[odd])}; {there[0]} is {_words(header)}")
        channels = None if header.bands == 1 else header.bands
        first = None if path.is_file() else _first_section(files)
        stated = Stated(
            voxel_offset=None if first is None else (first, 0, 0),
            sources={"axes": "PNG", "voxel_offset": "z from the numbers in the names"},
        )
        axes = Axes(tuple(range(3 if channels is None else 4)))
        shape = (*(() if channels is None else (channels,)), len(files), header.height, header.width)
        spec, sources = settle(stated, axes, opening, shape=shape, dtype=np.dtype(header.dtype), url=url)
        store = cls(url, spec, header, fill_missing=opening.fill_missing)
        store.sources = sources
        return store

    @classmethod
    def check_file(cls, url: str, spec: VolumeSpec, layout: Layout, dataset: str | None) -> None:
        _imagecodecs()
        local_files.refuse_layout(layout, ("chunk", "shard"), "PNG")
        local_files.deflate_level(layout, ("zlib",), "PNG")
        refuse_cast(spec.dtype, ("uint8", "uint16"), "a PNG file")
        if spec.channels not in (None, 1, 3, 4):
            raise ParameterError(f"PNG files have 1, 3 or 4 channels, not {spec.channels}; pick-channels takes some")
        if url.lower().endswith(".png") or spec.box.start[0] < 0:
            raise ParameterError(
                f"sections {spec.box.start[0]} to {spec.box.stop[0]} cannot be the files of {url}: name a directory,"
                " and numbers from 0 on"
            )
        path = local_file(url)
        if path.exists() and not path.is_dir():
            raise StoreAccessError(f"{path} is a file; PNG files are written into a directory, one per section")
        kvstore.check_writable(str(next(parent for parent in (path, *path.parents) if parent.is_dir())))

    @classmethod
    def there(cls, url: str, spec: VolumeSpec) -> bool:
        return any((local_file(url) / _name(z)).exists() for z in range(spec.box.start[0], spec.box.stop[0]))

    @classmethod
    def write_file(cls, url: str, spec: VolumeSpec, read: ReadBox, layout: Layout, dataset: str | None) -> None:
        """Write ``00012.png`` for section 12 and so on, as chunkflow names them; other files stay as they are."""
        level = local_files.deflate_level(layout, ("zlib",), "PNG") or 0
        encode, folder = _imagecodecs().png_encode, local_file(url)
        for box in local_files.slabs(spec):
            voxels = read(box).reshape(spec.channels or 1, *box.shape)
            for z, section in enumerate(np.moveaxis(voxels, 0, -1), box.start[0]):
                image = np.ascontiguousarray(section[..., 0] if section.shape[-1] == 1 else section)
                with local_files.replacing(folder / _name(z)) as path:
                    path.write_bytes(encode(image, level=level))

    def _read(self, box: BoundingBox) -> Array:
        inside = box.shift([-start for start in self.spec.box.start])
        out = np.zeros((*box.shape, self.header.bands), self.spec.dtype)
        _, files = _files(self.path)
        if len(files) != self.spec.box.shape[0]:
            raise CorruptChunkError(f"{self.url} now has {len(files)} sections; it had {self.spec.box.shape[0]}")
        y, x = (slice(a, b) for a, b in zip(inside.start[1:], inside.stop[1:], strict=True))
        for place, z in enumerate(range(inside.start[0], inside.stop[0])):
            if self.fill_missing and not files[z].exists():
                count("missing_chunks", 1)
                continue
            out[place] = _image(files[z], self.header)[y, x]
        return out[..., 0] if self.spec.channels is None else np.ascontiguousarray(np.moveaxis(out, -1, 0))

    def _state(self) -> dict[str, Any]:
        return local_files.states_of(_files(self.path)[0])


def _name(z: int) -> str:
    return f"{z:05d}.png"


def _files(path: Path) -> tuple[list[Path], list[Path]]:
    """Return a file, those of a directory, or those whose names begin so and end in a number; and the sections.

    Sections are the files in order, and among them those that the numbers in their names skip.
    """
    if path.is_file():
        return [path], [path]
    folder, prefix = (path, "") if path.is_dir() else (path.parent, path.name)
    return _listed(folder, prefix, folder.stat().st_mtime_ns) if folder.is_dir() else ([], [])


@functools.lru_cache(maxsize=8)
def _listed(folder: Path, prefix: str, mtime_ns: int) -> tuple[list[Path], list[Path]]:  # noqa: ARG001 (a changed directory is another list)
    wanted = re.compile(rf"{re.escape(prefix)}\d+\.png" if prefix else r"[^.].*\.png", re.IGNORECASE)
    found = [file for file in folder.iterdir() if wanted.fullmatch(file.name)]
    there = sorted(found, key=lambda file: local_files.natural_order(file.name))
    return there, with_skipped(there)


def _first_section(files: Sequence[Path]) -> int | None:
    """Return the number of the first file, if the names count up by one and so say which section each is."""
    numbers = [int(found[1]) for file in files if (found := _NUMBERED.fullmatch(file.name))]
    return numbers[0] if numbers and numbers == list(range(numbers[0], numbers[0] + len(files))) else None


def _header_of(file: Path) -> _Header:
    """Return size, dtype and bands, which stand at the beginning of a file."""
    with file.open("rb") as opened:
        start = opened.read(33)
    if not start.startswith(_MAGIC) or len(start) < 33 or zlib.crc32(start[12:29]) != int.from_bytes(start[29:33]):
        raise CorruptChunkError(f"{file} is not a PNG file, or damaged")
    width, height = int.from_bytes(start[16:20]), int.from_bytes(start[20:24])
    bits, colour = start[24], start[25]
    return _Header(height, width, "uint16" if bits == 16 else "uint8", _BANDS.get(colour, 1))


def _image(file: Path, header: _Header) -> Array:
    """Return the pixels (y, x, band) of a file that has a known header."""
    try:
        image: Array = _imagecodecs().png_decode(file.read_bytes())
    except FileNotFoundError:
        raise MissingChunkError(f"{file} is missing; fill_missing reads its section as zeros") from None
    except Exception as error:  # imagecodecs' own
        raise CorruptChunkError(f"cannot read {file} as PNG: {error}") from error
    found = image.reshape(*image.shape[:2], -1)
    if (*found.shape[:2], found.dtype.name) != header[:3] or found.shape[2] < header.bands:
        raise GeometryError(f"{file} is {found.shape} (y, x, band) of {found.dtype}; it was {_words(header)}")
    return found[..., : header.bands]


def _words(header: _Header) -> str:
    return f"{header.height} x {header.width} (yx) of {header.dtype} with {header.bands} bands"
