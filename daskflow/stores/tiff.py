"""TIFF stacks: a file, or a directory with one file per section or per few sections."""

# ruff: noqa: ARG003 (every format is asked with the same arguments)

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import logging
import math
import re
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import (
    GeometryError,
    MissingChunkError,
    MissingDependencyError,
    ParameterError,
    StoreAccessError,
    StoreNotFoundError,
)
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore, local_files
from daskflow.stores.axes import Axes
from daskflow.stores.base import Array, Layout, Opening, ReadBox, Store
from daskflow.stores.counting import count
from daskflow.stores.local_files import FileStore
from daskflow.stores.refusals import check_mip
from daskflow.stores.stated import settle
from daskflow.stores.tiff_set import description_of, names_others, open_set
from daskflow.stores.tiff_stack import NAMESPACE, TiffStack, stack_of

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"(\d+)")
_SUFFIXES = (".tif", ".tiff")
_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ZLIB = ("zlib", "deflate", "gzip")
_OTHERS = ("lzw", "lzma")
_STRIP_BYTES = 2**20
_BIG = 2**32 - 2**25
_OME_DTYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")
_PLAIN_DTYPES = ("int64", "uint64", "float16")
_CENTIMETER_NM = 1e7


def with_skipped(files: Sequence[Path]) -> list[Path]:
    """Return the files and, in their places, those whose numbers are skipped: ``z3.tif`` between z2 and z4.

    That takes names which differ in one number only; its step is the largest that meets all of them, so that every
    tenth section is not a gap. Numbers that skip more than there are files, such as dates, are not a sequence.
    """
    names = [_NUMBER.split(file.name) for file in files]
    at = _place(names)
    if at is None:
        _warn_of_a_grid(files, names)
        return list(files)
    numbers = [int(parts[at]) for parts in names]
    step = math.gcd(*(b - a for a, b in itertools.pairwise(numbers)))
    every = range(numbers[0], numbers[-1] + 1, step)
    if len(every) > 2 * len(files):
        logger.warning(
            "%s: the numbers %d to %d in the names of %d files are taken for no sequence, since most would be missing",
            files[0].parent,
            numbers[0],
            numbers[-1],
            len(files),
        )
        return list(files)
    known = dict(zip(numbers, files, strict=True))
    head, width, tail = "".join(names[0][:at]), len(names[0][at]), "".join(names[0][at + 1 :])
    return [known.get(number) or files[0].with_name(f"{head}{number:0{width}d}{tail}") for number in every]


def _warn_of_a_grid(files: Sequence[Path], names: Sequence[Sequence[str]]) -> None:
    """Say in the log when names count two numbers, each with each: sections and channels, or sections of wafers."""
    if len({len(parts) for parts in names}) != 1:
        return
    counts = [len(set(column)) for column in zip(*names, strict=True)]
    if sum(count > 1 for count in counts) > 1 and math.prod(counts) == len(names):
        logger.warning(
            "%s: the names of %d files count %s; all are read as sections, in the order %s, ...: if a number counts"
            " channels or tiles, keep the files of one in a directory of their own",
            files[0].parent,
            len(files),
            " x ".join(str(count) for count in counts if count > 1),
            ", ".join(file.name for file in files[:3]),
        )


def _place(names: Sequence[Sequence[str]]) -> int | None:
    """Return which part of names, split at their numbers, is the number that counts up; None without one."""
    if len(names) < 2 or len({len(parts) for parts in names}) != 1:
        return None
    differing = [i for i, column in enumerate(zip(*names, strict=True)) if len(set(column)) > 1]
    if len(differing) != 1 or differing[0] % 2 == 0:
        return None
    numbers = [int(parts[differing[0]]) for parts in names]
    return differing[0] if all(a < b for a, b in itertools.pairwise(numbers)) else None


class TiffStore(FileStore):
    """The pages of a TIFF file, or of the files of a directory in natural order; only the pages of a box are read.

    Each file has `per_file` sections; of `opening` the axes and the time point are stated.
    """

    format_name = "tiff"

    def __init__(
        self, url: str, spec: VolumeSpec, per_file: int, opening: Opening, *, fill_missing: bool = False
    ) -> None:
        super().__init__(url, spec, fill_missing=fill_missing)
        self.per_file = per_file
        self.opening = opening

    @classmethod
    def recognises(cls, url: str) -> bool:
        path = kvstore.local_path(url)
        if path is not None and path.is_dir():
            return bool(_files(path))
        return local_files.begins_with(url, _MAGICS)

    @classmethod
    def open(cls, url: str, opening: Opening) -> Store:
        path = local_files.local_file(url)
        check_mip(opening.mip, 1, url)
        if opening.dataset is not None:
            raise ParameterError(f"{url} holds one stack; drop dataset={opening.dataset!r}")
        if not path.exists():
            raise kvstore.missing(url)
        there, files = _files(path), _sections(path)
        if not files:
            raise StoreNotFoundError(f"{url} is a directory without TIFF files")
        description = description_of(there[0])
        if description is not None and names_others(description, there[0]):
            return open_set(url, there[0], description, opening, there if path.is_dir() else ())
        if not opening.fill_missing:
            local_files.refuse_skipped(url, "TIFF", there, files)
        try:
            stated = Opening(axes=opening.axes, time=opening.time)
            first = stack_of(files[0], **local_files.file_state(files[0]), opening=stated)
        except PermissionError as error:
            raise StoreAccessError(f"cannot read {files[0]}: {error}") from error
        spec, sources = _settled(url, first, first.shape[0] * len(files), opening)
        store = cls(url, spec, first.shape[0], stated, fill_missing=opening.fill_missing)
        store.sources = sources
        with ThreadPoolExecutor(8) as pool:
            for stack in pool.map(functools.partial(_stack, opening=stated), there):
                store._check(stack)
        return store

    @classmethod
    def check_file(cls, url: str, spec: VolumeSpec, layout: Layout, dataset: str | None) -> None:
        local_files.refuse_layout(layout, ("chunk", "shard"), "TIFF")
        _compression(layout)
        _write_options(spec)
        local_files.check_place(url, spec)

    @classmethod
    def write_file(cls, url: str, spec: VolumeSpec, read: ReadBox, layout: Layout, dataset: str | None) -> None:
        """Write a volume to a TIFF file, page by page; the file appears when it is whole and replaces an older one.

        It is an OME-TIFF with voxel size, offset and channel names, axes ZYX or ZCYX, the dtype unchanged (64-bit
        integers and float16, which OME has not, go with our own tags). Strips are compressed by zlib (ISA-L) unless the
        layout says lzw, lzma or none; BigTIFF is used from 4 GB on.
        """
        import tifffile

        options = _write_options(spec)
        compression, level = _compression(layout)
        rows = max(1, min(spec.box.shape[1], _STRIP_BYTES // (spec.box.shape[2] * spec.dtype.itemsize or 1)))
        shape = (spec.box.shape[0], *(() if spec.channels is None else (spec.channels,)), *spec.box.shape[1:])
        with (
            local_files.replacing(local_files.local_file(url)) as path,
            tifffile.TiffWriter(
                path, bigtiff=spec.nbytes > _BIG, ome=spec.dtype.name in _OME_DTYPES, byteorder="<"
            ) as writer,
        ):
            pages = _pages(read, spec)
            writer.write(
                pages if level is None else _strips(pages, rows, level),
                shape=shape,
                dtype=spec.dtype,
                rowsperstrip=rows,
                compression=compression,
                **options,
            )

    def _read(self, box: BoundingBox) -> Array:
        inside = box.shift([-start for start in self.spec.box.start])
        out = np.zeros(self.spec.shape_of(box), self.spec.dtype)
        files, whole = _sections(self.path), self.spec.box.shape[0] // self.per_file
        if len(files) != whole:
            raise MissingChunkError(f"{self.path} has {len(files)} TIFF files now; it had {whole} when it was opened")
        z0, z1 = inside.start[0], inside.stop[0]
        missing = 0
        for number in range(z0 // self.per_file, -(-z1 // self.per_file)):
            first = number * self.per_file
            a, b = max(z0, first), min(z1, first + self.per_file)
            if self.fill_missing and not files[number].exists():
                missing += b - a
                continue
            stack = _stack(files[number], self.opening)
            self._check(stack)
            part = BoundingBox((a - first, *inside.start[1:]), (b - first, *inside.stop[1:]))
            missing += stack.read_into(out[..., a - z0 : b - z0, :, :], part)
        if missing and not self.fill_missing:
            raise MissingChunkError(
                f"{missing} strips or tiles of {self.url} in {box} were never written; fill_missing reads zeros"
            )
        if missing:
            count("missing_chunks", missing)
        return out

    def _check(self, stack: TiffStack) -> None:
        spec = self.spec
        wanted = ((self.per_file, *spec.box.shape[1:]), spec.channels, spec.dtype)
        found = (stack.shape, stack.channels, stack.dtype)
        if found != wanted:
            raise GeometryError(f"{stack.path} is {_words(*found)}; the others of {self.url} are {_words(*wanted)}")

    def _state(self) -> dict[str, Any]:
        view = {} if self.opening == Opening() else {"axes": f"{self.opening.axes}, time {self.opening.time}"}
        return (local_files.states_of(_files(self.path)) if self.path.is_dir() else super()._state()) | view


def _compression(layout: Layout) -> tuple[str | None, int | None]:
    """Return tifffile's name of the compression of strips, and the level where they are compressed here."""
    other = next((name for name in _OTHERS if name in (layout.compression, layout.encoding)), None)
    if other is not None:
        if importlib.util.find_spec("imagecodecs") is None:
            raise MissingDependencyError.of("imagecodecs", "tiff")
        return other, None
    level = local_files.deflate_level(layout, _ZLIB, "TIFF", others=_OTHERS)
    return None if level is None else "zlib", level


def _words(shape: tuple[int, ...], channels: int | None, dtype: np.dtype[Any]) -> str:
    return f"{' x '.join(map(str, shape))} (zyx) of {dtype}" + (f" with {channels} channels" if channels else "")


def _files(path: Path) -> list[Path]:
    return _listed(path, path.stat().st_mtime_ns) if path.is_dir() else [path]


@functools.lru_cache(maxsize=8)
def _listed(path: Path, mtime_ns: int) -> list[Path]:  # noqa: ARG001 (a changed directory is another list)
    found = [entry for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES and not entry.name.startswith(".")]
    return sorted(found, key=lambda entry: local_files.natural_order(entry.name))


@functools.lru_cache(maxsize=8)
def _expected(path: Path, mtime_ns: int) -> list[Path]:
    return with_skipped(_listed(path, mtime_ns))


def _sections(path: Path) -> list[Path]:
    """Return the files in order, and among them those that the numbers in their names skip."""
    return _expected(path, path.stat().st_mtime_ns) if path.is_dir() else [path]


def _stack(file: Path, opening: Opening) -> TiffStack:
    try:
        return stack_of(file, **local_files.file_state(file), opening=opening)
    except FileNotFoundError:
        raise MissingChunkError(f"{file} is missing; fill_missing reads its sections as zeros") from None


def _settled(url: str, stack: TiffStack, depth: int, opening: Opening) -> tuple[VolumeSpec, dict[str, str]]:
    """Return the spec of a stack of `depth` sections, and where its fields come from."""
    axes = Axes(tuple(range(3 if stack.channels is None else 4)))
    shape = (*(() if stack.channels is None else (stack.channels,)), depth, *stack.shape[1:])
    named = stack.tags.stated.sources.get("voxel_size", "").split(" ")[0] in ("OME", "ImageJ", "our")
    source = {"axes": "TIFF tags" if named else "assumed: pages are sections"}
    stated = replace(stack.tags.stated, sources={**source, **stack.tags.stated.sources})
    return settle(stated, axes, opening, shape=shape, dtype=stack.dtype, url=url)


def _write_options(spec: VolumeSpec) -> dict[str, Any]:
    """Return the arguments of tifffile's writer that say what the voxels are: OME-TIFF where it has the dtype.

    Pages go section by section, and within a section channel by channel (axes ZCYX), as ImageJ orders them.
    """
    if spec.dtype.name not in _OME_DTYPES + _PLAIN_DTYPES:
        raise ParameterError(f"TIFF files here cannot hold {spec.dtype}; cast with astype('uint8')")
    note: dict[str, Any] = {"voxel_offset": spec.box.start, "layer_type": spec.layer_type, "channels": spec.channels}
    if spec.channel_names:
        note["channel_names"] = spec.channel_names
    common: dict[str, Any] = {"photometric": "minisblack"}
    physical: dict[str, Any] = {}
    if spec.voxel_size is not None:
        y, x = (_CENTIMETER_NM / size for size in spec.voxel_size[1:])
        common |= {"resolution": (x, y), "resolutionunit": "CENTIMETER"}
        physical = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", spec.voxel_size, strict=True)}
        physical |= {f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"}
    if spec.dtype.name in _PLAIN_DTYPES:
        said = json.dumps({NAMESPACE: {**note, "voxel_size": spec.voxel_size}})
        return {**common, "metadata": None, "description": said}
    axes = "ZYX" if spec.channels is None else "ZCYX"
    annotation = {"Namespace": NAMESPACE, **{key: json.dumps(value) for key, value in note.items()}}
    names = {"Channel": {"Name": list(spec.channel_names)}} if spec.channel_names else {}
    same = str(uuid.uuid5(uuid.NAMESPACE_URL, repr(spec)))
    return {**common, "metadata": {"axes": axes, "UUID": same, **physical, **names, "MapAnnotation": annotation}}


def _pages(read: ReadBox, spec: VolumeSpec) -> Iterator[Array]:
    dtype = spec.dtype.newbyteorder("<")
    for box in local_files.slabs(spec):
        voxels = read(box).reshape(spec.channels or 1, *box.shape)
        for section in range(box.shape[0]):
            for channel in voxels:
                yield np.ascontiguousarray(channel[section], dtype)


def _strips(pages: Iterator[Array], rows: int, level: int) -> Iterator[bytes]:
    compress = local_files.deflate(level)
    for page in pages:
        for y in range(0, len(page), rows):
            yield compress(page[y : y + rows].data)
