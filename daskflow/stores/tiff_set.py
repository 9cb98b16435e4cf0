"""An OME-TIFF image whose planes lie in several files, which name each other."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from daskflow.errors import CorruptChunkError, GeometryError, MissingChunkError, UnknownFormatError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.axes import Axes, find_axes
from daskflow.stores.base import Array, Opening
from daskflow.stores.counting import count
from daskflow.stores.local_files import FileStore, file_state, first_of
from daskflow.stores.stated import settle
from daskflow.stores.tiff_stack import TiffStack, ome_tags, parsed, stack_of

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


@dataclass(frozen=True)
class Plane:
    """One plane of an image: a page of a file."""

    file: Path
    page: int


class TiffSetStore(FileStore):
    """An image in several files of a directory; `planes` are sections by channel, None where no file is named."""

    format_name = "tiff"

    def __init__(
        self, url: str, spec: VolumeSpec, planes: Sequence[Sequence[Plane | None]], *, fill_missing: bool = False
    ) -> None:
        super().__init__(url, spec, fill_missing=fill_missing)
        self.planes = planes

    @property
    def files(self) -> list[Path]:
        """The files that hold planes."""
        return sorted({plane.file for channel in self.planes for plane in channel if plane is not None})

    def _read(self, box: BoundingBox) -> Array:
        inside = box.shift([-start for start in self.spec.box.start])
        out = np.zeros((len(self.planes), *box.shape), self.spec.dtype)
        lacking: list[str] = []
        for channel, planes in enumerate(self.planes):
            for z, plane in enumerate(planes[inside.start[0] : inside.stop[0]]):
                section = out[channel, z : z + 1]
                lacking += self._read_plane(section, plane, inside, z + inside.start[0])
        if lacking and not self.fill_missing:
            raise missing_planes(self.url, lacking)
        if lacking:
            count("missing_chunks", len(lacking))
        return out if self.spec.channels is not None else out[0]

    def _read_plane(self, out: Array, plane: Plane | None, box: BoundingBox, z: int) -> list[str]:
        """Read one plane of a box; return in words what is missing of it."""
        if plane is None or not plane.file.is_file():
            return [_lack(plane, z)]
        stack = pages_of(plane.file)
        if (stack.shape[1:], stack.dtype, stack.channels) != (self.spec.box.shape[1:], self.spec.dtype, None):
            raise GeometryError(
                f"{plane.file} has pages of {stack.shape[1:]} {stack.dtype}; the image of {self.url} has "
                f"{self.spec.box.shape[1:]} {self.spec.dtype} (yx)"
            )
        if plane.page >= stack.shape[0]:
            raise CorruptChunkError(f"{plane.file} is truncated: page {plane.page} of the image, of {stack.shape[0]}")
        part = BoundingBox((plane.page, *box.start[1:]), (plane.page + 1, *box.stop[1:]))
        return [f"strips of {plane.file.name}"] if stack.read_into(out, part) else []

    def _state(self) -> dict[str, Any]:
        states = {path.name: file_state(path) if path.is_file() else None for path in self.files}
        return {"files": states, "planes": repr(self.planes)}


def pages_of(path: Path) -> TiffStack:
    """Return the pages of one file of a set, as they come."""
    return stack_of(path, **file_state(path), opening=Opening(), ome=False)


def missing_planes(url: str, lacking: Sequence[str]) -> MissingChunkError:
    """Return the error that names files or sections that are not there."""
    return MissingChunkError(
        f"{url} is an OME-TIFF image of several files and lacks {first_of(list(dict.fromkeys(lacking)))}; "
        "fill_missing reads their sections as zeros"
    )


def description_of(path: Path) -> Element | None:
    """Return the OME description of a file, None of other TIFF files and of damaged ones."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            text = tif.pages.first.description.strip()
    except (OSError, ValueError, IndexError, RuntimeError, KeyError, TypeError, struct.error, tifffile.TiffFileError):
        return None
    if not text.endswith("OME>"):
        return None
    root = _parsed(text)
    binary = None if root is None else root.find("{*}BinaryOnly")
    if binary is None:
        return root
    companion = path.with_name(Path(binary.get("MetadataFile", "")).name)
    if not companion.is_file():
        raise missing_planes(str(path), [companion.name])
    if companion.suffix.lower() in (".tif", ".tiff"):
        return description_of(companion) if companion != path else None
    return _parsed(companion.read_text(encoding="utf-8"))


def _parsed(text: str) -> Element | None:
    try:
        return parsed(text)
    except SyntaxError:
        return None


def names_others(root: Element | None, path: Path) -> bool:
    """Return whether a description names other files than `path`, which may have been renamed since."""
    if root is None:
        return False
    own = root.get("UUID")
    uuids = [uuid for uuid in root.findall(".//{*}TiffData/{*}UUID") if uuid.get("FileName")]
    others = {uuid.get("FileName") for uuid in uuids if (uuid.text or "").strip() != own}
    return len(_named(root)) > 1 and bool(others - {path.name})


def _named(root: Element) -> list[str]:
    pixels = root.find(".//{*}Pixels")
    found = [] if pixels is None else pixels.findall("{*}TiffData/{*}UUID")
    return list(dict.fromkeys(Path(uuid.get("FileName", "")).name for uuid in found if uuid.get("FileName")))


def open_set(url: str, path: Path, root: Element, opening: Opening, listed: Sequence[Path]) -> TiffSetStore:
    """Open the image of several files that the description of one of them, at `path`, names.

    `url` is one of the files, or their directory, whose files are `listed`: each must belong to the image.
    """
    pixels = root.find(".//{*}Pixels")
    assert pixels is not None
    others = [file.name for file in listed if file.name not in _named(root)]
    moved = _by_uuid(root, path, listed) if others else {}
    others = [name for name in others if name not in {file.name for file in moved.values()}]
    if others:
        raise GeometryError(
            f"{url} holds {first_of(others)}, which the image of {path.name} does not name; move them away, "
            "or open one of its files"
        )
    table = _table(pixels, path, moved)
    names = "tczyx"
    shape = (*table.shape, int(pixels.get("SizeY", 0)), int(pixels.get("SizeX", 0)))
    axes = find_axes(shape, names, url, opening if opening.axes is None else Opening(time=opening.time))
    chosen = table[dict(axes.fixed).get(0, 0)]
    planes = tuple(tuple(channel) for channel in chosen)
    lacking = [_lack(plane, z) for channel in planes for z, plane in enumerate(channel)]
    if any(lacking) and not opening.fill_missing:
        raise missing_planes(url, [word for word in lacking if word])
    there = next((plane for channel in planes for plane in channel if plane and plane.file.is_file()), None)
    if there is None:
        raise missing_planes(url, [word for word in lacking if word])
    czyx = (*(() if len(planes) == 1 else (len(planes),)), *shape[2:])
    order = Axes(tuple(range(len(czyx))))
    dtype = pages_of(there.file).dtype
    spec, sources = settle(ome_tags(root).stated, order, opening, shape=czyx, dtype=dtype, url=url)
    store = TiffSetStore(url, spec, planes, fill_missing=opening.fill_missing)
    store.sources = {**sources, "axes": "OME tags"}
    return store


def _lack(plane: Plane | None, z: int) -> str:
    if plane is None:
        return f"section {z}"
    return "" if plane.file.is_file() else plane.file.name


def _by_uuid(root: Element, path: Path, listed: Sequence[Path]) -> dict[str, Path]:
    """Return the files that were renamed, by the UUID that each has in its own description."""
    wanted = {(uuid.text or "").strip() for uuid in root.iter() if uuid.tag.endswith("}UUID")}
    found = {}
    for file in listed:
        own = description_of(file)
        if own is not None and own.get("UUID") in wanted:
            found[own.get("UUID", "")] = file
    return {**found, root.get("UUID", ""): path}


def _table(pixels: Element, path: Path, moved: dict[str, Path]) -> Any:
    """Return the planes as an array of time points, channels and sections; None where no file is named."""
    order = pixels.get("DimensionOrder", "XYZCT").upper()[2:]
    channels = pixels.findall("{*}Channel")
    samples = max((int(channel.get("SamplesPerPixel", 1)) for channel in channels), default=1)
    if samples > 1:
        raise UnknownFormatError(f"{path} belongs to an image of several files in colours, which is not read")
    sizes = {axis: int(pixels.get(f"Size{axis}", 1)) for axis in "TCZ"}
    table = np.full(tuple(sizes.values()), None, object)
    total = math.prod(sizes.values())
    for data in pixels.findall("{*}TiffData"):
        firsts = {axis: int(data.get(f"First{axis}", 0)) for axis in "TCZ"}
        step, start = 1, 0
        for axis in order:
            start, step = start + firsts[axis] * step, step * sizes[axis]
        file = _file_of(data, path, moved)
        for k, page in enumerate(_pages_of(data, file)):
            if start + k >= total:
                break
            at, left = {}, start + k
            for axis in order:
                left, at[axis] = divmod(left, sizes[axis])
            table[at["T"], at["C"], at["Z"]] = Plane(file, page)
    return table


def _pages_of(data: Element, file: Path) -> Iterator[int]:
    """Yield the pages that an entry names: from IFD on, PlaneCount of them, or all."""
    first = int(data.get("IFD", 0))
    planes = data.get("PlaneCount", "1" if "IFD" in data.attrib else None)
    if planes is None:
        planes = str(pages_of(file).shape[0]) if file.is_file() else "1"
    yield from range(first, first + int(planes))


def _file_of(data: Element, path: Path, moved: dict[str, Path]) -> Path:
    uuid = data.find("{*}UUID")
    if uuid is None:
        return path
    named = path.with_name(Path(uuid.get("FileName", "")).name or path.name)
    known = moved.get((uuid.text or "").strip())
    return named if named.is_file() or known is None else known
