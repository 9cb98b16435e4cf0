"""What a layer is, on one screen: levels, chunks, what of them is stored, meshes and skeletons."""

from __future__ import annotations

import contextlib
import html
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from daskflow.config import format_bytes, html_table, text_table
from daskflow.errors import GeometryError, ParameterError, StoreAccessError, StoreError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx
from daskflow.stores import Store, kvstore
from daskflow.stores.base import Member
from daskflow.stores.objects.files import sized_names
from daskflow.stores.objects.layer_objects import Meshes, Skeletons, load_object_info, object_directory
from daskflow.stores.opening import members_of, open_store, recognise, split_dataset, split_prefix

_COUNTED_SHARDS = 1024  # in more of them labels are not counted, which reads every index
_HEADER = ("mip", "voxel size (nm)", "size (voxels)", "chunk", "shard", "encoding", "stored", "empty", "on disk")
_MEMBER_HEADER = ("dataset", "shape", "dtype")
_OBJECT_HEADER = ("objects", "directory", "format", "labels", "files", "on disk")

_STATED = ("dataset", "voxel_size", "voxel_offset", "axes", "time")


@dataclass(frozen=True)
class LevelInfo:
    """One level of a layer.

    Attributes:
        spec: geometry.
        encoding: of chunks, and their compression.
        expected: chunks, or shards, when none is missing; None for files.
        stored: how many there are; None where they were not counted.
        size: bytes of them; None where that is not known.
        found: the box of the chunks that are there, by their names; None where those do not say.
        others: chunks that are there and reach out of what the metadata say is the level.
    """

    spec: VolumeSpec
    encoding: str
    expected: int | None
    stored: int | None
    size: int | None
    found: BoundingBox | None = None
    others: int = 0


@dataclass(frozen=True)
class ObjectInfo:
    """The meshes or the skeletons of a layer.

    Attributes:
        kind: mesh or skeletons.
        directory: its name in the layer.
        format: e.g. "multi-resolution, sharded".
        labels: how many have one; None where they were not counted.
        files: how many there are; None where they were not counted.
        size: bytes of them; None where that is not known.
        named: whether the layer's info names the directory, so that viewers find it.
    """

    kind: str
    directory: str
    format: str
    labels: int | None
    files: int | None
    size: int | None
    named: bool = True


@dataclass(frozen=True, repr=False)
class LayerInfo:
    """What `layer_info` found.

    Attributes:
        url: of the layer.
        format: of its store.
        levels: finest first.
        objects: meshes and skeletons.
        sources: where axes, voxel size, offset and kind are stated, in words.
        members: arrays and images inside, which `dataset` can name.
        problem: why it cannot be opened as it is.
    """

    url: str
    format: str
    levels: tuple[LevelInfo, ...]
    objects: tuple[ObjectInfo, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    problem: str = ""

    @property
    def size(self) -> int | None:
        """Bytes of all that was found, None where that is not known."""
        sizes = [*(level.size for level in self.levels), *(found.size for found in self.objects)]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def __repr__(self) -> str:
        return f"<LayerInfo {kvstore.redact(self.url)} · {self._what}>"

    def __str__(self) -> str:
        lines = [kvstore.redact(self.url), self._what, *self._stated]
        lines += ["", text_table(_HEADER, self._level_rows), "(axes: z y x)"] if self.levels else []
        lines += self._findings
        if self.objects:
            lines += ["", text_table(_OBJECT_HEADER, self._object_rows)]
        if self.members:
            lines += ["", text_table(_MEMBER_HEADER, self._member_rows)]
        return "\n".join([*lines, *self.problem.splitlines()])

    def _repr_html_(self) -> str:
        objects = html_table(_OBJECT_HEADER, self._object_rows) if self.objects else ""
        members = html_table(_MEMBER_HEADER, self._member_rows) if self.members else ""
        levels = f"{html_table(_HEADER, self._level_rows)}axes: z y x" if self.levels else ""
        below = [*self._findings, *([self.problem] if self.problem else [])]
        title, text = ("<br>".join(map(html.escape, lines)) for lines in ((self._what, *self._stated), ("", *below)))
        name = html.escape(kvstore.redact(self.url))
        return f"<div><b>{name}</b><br>{title}{levels}{text}{objects}{members}</div>"

    @property
    def _what(self) -> str:
        if not self.levels:
            return self.format
        spec = self.levels[0].spec
        channels = "" if spec.channels is None else f", {spec.channels} channels"
        size = "" if self.size is None else f", {format_bytes(self.size)} on disk"
        box = f"from {_spaced(spec.box.start)}"
        return f"{self.format} {spec.layer_type or 'volume'}, {spec.dtype}{channels}, {box}{size}"

    @property
    def _level_rows(self) -> list[tuple[str, ...]]:
        rows = []
        for mip, level in enumerate(self.levels):
            spec, stored = level.spec, level.stored
            share = "-" if stored is None or not level.expected else f"{max(0.0, 1 - stored / level.expected):.0%}"
            sizes = ["-" if shape is None else _spaced(shape) for shape in (spec.chunk, spec.shard)]
            there = "?" if stored is None else f"{stored:,}"
            where = "-" if level.expected is None else f"{there} of {level.expected:,}"
            size = "-" if level.size is None else format_bytes(level.size)
            spacing = "unknown" if spec.voxel_size is None else _spaced(spec.voxel_size)
            row = (str(mip), spacing, _spaced(spec.box.shape), *sizes)
            rows.append((*row, level.encoding, where, share, size))
        return rows

    @property
    def _stated(self) -> list[str]:
        """Return axes, voxel size, offset and kind, and where each is stated, a line each."""
        if not self.levels:
            return []
        spec = self.levels[0].spec
        values = {
            "axes": "zyx" if spec.channels is None else "czyx",
            "voxel_size": "unknown" if spec.voxel_size is None else spec.size_text,
            "voxel_offset": _spaced(spec.box.start),
            "layer_type": spec.layer_type or "unknown",
            "channel_names": ", ".join(spec.channel_names),
        }
        return [
            f"{name.replace('_', ' ')}: {value}{self._where(name, known=value != 'unknown')}"
            for name, value in values.items()
            if value
        ]

    def _where(self, name: str, *, known: bool) -> str:
        """Return in brackets where a value is stated."""
        where = self.sources.get(name) or ("" if known else "not stated")
        return f" ({where})" if where else ""

    @property
    def _findings(self) -> list[str]:
        """Return, of every level, where chunks lie if they do not fill it."""
        return [
            f"mip {mip}: chunks lie in {level.found} (z0-z1_y0-y1_x0-x1), and the info says {level.spec.box}"
            + (f": {level.others:,} of them reach out of that, so its size is wrong" if level.others else "")
            for mip, level in enumerate(self.levels)
            if level.found is not None and level.found != level.spec.box
        ]

    @property
    def _member_rows(self) -> list[tuple[str, ...]]:
        return [(one.name, _spaced(one.shape), str(one.dtype)) for one in self.members]

    @property
    def _object_rows(self) -> list[tuple[str, ...]]:
        return [
            (
                found.kind,
                found.directory,
                found.format + ("" if found.named else ", not named by the info"),
                *("-" if n is None else f"{n:,}" for n in (found.labels, found.files)),
                "-" if found.size is None else format_bytes(found.size),
            )
            for found in self.objects
        ]


def layer_info(url: str | os.PathLike[str], *, scan: bool | None = None, **opening: Any) -> LayerInfo:
    """Return what a volume is: its levels, how much of them is stored, what is stated where, meshes and skeletons.

    Args:
        url: path or URL of anything that `open` opens. Of a file or group with several arrays all are listed.
        scan: list what is stored, to count chunks, labels and bytes. None does so on a local disk; in a bucket a
            listing takes long, and shows no bytes.
        opening: how the data are understood where they do not say, as for `open`, e.g. ``axes="zyxc"``.

    Raises:
        StoreNotFoundError: there is nothing.
        StoreError: it cannot be opened, and nothing that it holds can be listed.
    """
    location = kvstore.normalise(split_dataset(split_prefix(os.fspath(url))[1])[0])
    members = members_of(location)
    try:
        store = open_store(url, **opening)
    except (ParameterError, GeometryError, StoreError) as error:
        if members:
            held = f"{len(members):,} array{'s' * (len(members) != 1)}, none opened"
            return LayerInfo(location, held, (), members=members, problem=str(error))
        refused = any(opening.get(name) is not None for name in _STATED)  # by a layer that may be whole
        bounds = [] if refused else _remains(location)
        if bounds:
            raise type(error)("\n".join([str(error), *bounds])) from error
        raise
    look = scan if scan is not None else kvstore.local_path(store.url) is not None
    levels = _levels(store, look=look)
    listed = members if len(members) > 1 or any(one.name.startswith("labels/") for one in members) else ()
    return LayerInfo(store.url, store.family, levels, _objects(store, look=look), store.sources, listed)


def _remains(url: str) -> list[str]:
    """Return, in words, what there is of a layer whose metadata make no volume."""
    with contextlib.suppress(StoreError):
        return recognise(url).store.remains(url)
    return []


def _levels(store: Store, *, look: bool) -> tuple[LevelInfo, ...]:
    if store.of_chunks:
        return tuple(_level(level, look=look) for level in store.levels())
    path = kvstore.local_path(store.url)
    size = _bytes_of(path) if look and path is not None else None
    encoding = store.layout.encoding or "-"
    return tuple(LevelInfo(spec, encoding, None, None, size) for spec in store.mips)


def _bytes_of(path: Path) -> int:
    """Return the bytes of a file, or of the files right in a directory."""
    if path.is_dir():
        return sum(size for _, size in sized_names(path.as_uri()))
    return path.stat().st_size


def _level(level: Store, *, look: bool) -> LevelInfo:
    layout = level.layout
    names = [layout.encoding or "raw", "" if layout.compression in (None, "none") else str(layout.compression)]
    if level.background is not None:
        names.append(f"without chunks of {level.background:g}")
    encoding = " ".join(filter(None, names))
    if not look:
        return LevelInfo(level.spec, encoding, level.expected, None, None)
    stored = others = size = 0
    bounds: BoundingBox | None = None
    for found in level.contents():
        outside = found.box is not None and found.box not in level.spec.box
        once = not outside and not _other_name(found.url)
        stored, others, size = stored + once, others + outside, size + found.size
        bounds = found.box if bounds is None or found.box is None else bounds.union(found.box)
    local = kvstore.local_path(level.directory) is not None
    return LevelInfo(level.spec, encoding, level.expected, stored, size if local else None, bounds, others)


def _other_name(url: str) -> bool:
    """Return whether a chunk on a local disk also lies there under a name that is counted instead."""
    path = kvstore.local_path(url)
    if path is None or path.suffix not in (".gz", ".br"):
        return False
    return path.with_suffix("").exists() or (path.suffix == ".br" and path.with_suffix(".gz").exists())


def _objects(store: Store, *, look: bool) -> tuple[ObjectInfo, ...]:
    named = store.objects()
    return tuple(
        replace(_object(store.url, kind, name, look=look), named=named.get(kind) == name)
        for kind, name in (store.object_sets() if look else named.items())
    )


def _object(layer: str, kind: str, name: str, *, look: bool) -> ObjectInfo:
    url = object_directory(layer, kind, name)
    try:
        objects = Meshes(layer, directory=name) if kind == "mesh" else Skeletons(layer, directory=name)
    except StoreError:
        kinds = load_object_info(url).get("@type", "unknown")
        return ObjectInfo(kind, name, str(kinds), None, None, None)
    words = [] if not isinstance(objects, Meshes) else ["multi-resolution" if objects.multires else "legacy"]
    words.append("unsharded" if objects.shards is None else "sharded")
    if "spatial_index" in objects.info:
        words.append("spatial index")
    if not look:
        return ObjectInfo(kind, name, ", ".join(words), None, None, None)
    files = size = 0
    for _, nbytes in sized_names(url):
        files, size = files + 1, size + nbytes
    local = kvstore.local_path(url) is not None
    return ObjectInfo(kind, name, ", ".join(words), _label_count(objects), files, size if local else None)


def _label_count(objects: Meshes | Skeletons) -> int | None:
    try:
        if objects.shards is not None and len(objects.shards.numbers()) > _COUNTED_SHARDS:
            return None
        return len(objects.labels())
    except StoreAccessError:
        return None


def _spaced(values: Zyx | Sequence[float]) -> str:
    numbers = [f"{v:g}" if not math.isclose(v, round(v)) else str(round(v)) for v in values]
    return " ".join(numbers)
