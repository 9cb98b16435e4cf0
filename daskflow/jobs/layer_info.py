"""What a layer is, on one screen: levels, chunks, what of them is stored, meshes and skeletons."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from daskflow.config import format_bytes
from daskflow.errors import StoreAccessError, StoreError
from daskflow.geometry import VolumeSpec, Zyx
from daskflow.jobs.table import html_table, text_table
from daskflow.stores import Store, kvstore
from daskflow.stores.contents import LevelContents, levels_of
from daskflow.stores.objects.files import sized_names
from daskflow.stores.objects.meshes import Meshes, load_object_info, object_directory
from daskflow.stores.objects.skeletons import Skeletons
from daskflow.stores.opening import open_store
from daskflow.stores.precomputed import PrecomputedStore
from daskflow.stores.precomputed_info import load_info

_COUNTED_SHARDS = 1024  # in more of them labels are not counted, which reads every index
_HEADER = ("mip", "voxel size (nm)", "size (voxels)", "chunk", "shard", "encoding", "stored", "empty", "on disk")
_OBJECT_HEADER = ("objects", "directory", "format", "labels", "files", "on disk")


@dataclass(frozen=True)
class LevelInfo:
    """One level of a layer.

    Attributes:
        spec: geometry.
        encoding: of chunks, and their compression.
        expected: chunks, or shards, when none is missing.
        stored: how many there are; None where they were not counted.
        size: bytes of them; None where that is not known.
    """

    spec: VolumeSpec
    encoding: str
    expected: int
    stored: int | None
    size: int | None


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
    """

    kind: str
    directory: str
    format: str
    labels: int | None
    files: int | None
    size: int | None


@dataclass(frozen=True, repr=False)
class LayerInfo:
    """What `layer_info` found.

    Attributes:
        url: of the layer.
        format: of its store.
        levels: finest first.
        objects: meshes and skeletons.
    """

    url: str
    format: str
    levels: tuple[LevelInfo, ...]
    objects: tuple[ObjectInfo, ...] = ()

    @property
    def size(self) -> int | None:
        """Bytes of all that was found, None where that is not known."""
        sizes = [*(level.size for level in self.levels), *(found.size for found in self.objects)]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def __repr__(self) -> str:
        return f"<LayerInfo {kvstore.redact(self.url)} · {self._what}>"

    def __str__(self) -> str:
        lines = [kvstore.redact(self.url), self._what, "", text_table(_HEADER, self._level_rows), "(axes: z y x)"]
        if self.objects:
            lines += ["", text_table(_OBJECT_HEADER, self._object_rows)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        objects = html_table(_OBJECT_HEADER, self._object_rows) if self.objects else ""
        title = f"<b>{html.escape(kvstore.redact(self.url))}</b><br>{html.escape(self._what)}"
        return f"<div>{title}{html_table(_HEADER, self._level_rows)}axes: z y x{objects}</div>"

    @property
    def _what(self) -> str:
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
            share = "-" if stored is None else f"{max(0.0, 1 - stored / level.expected):.0%}"
            sizes = ["-" if shape is None else _spaced(shape) for shape in (spec.chunk, spec.shard)]
            where = f"{'?' if stored is None else f'{stored:,}'} of {level.expected:,}"
            size = "-" if level.size is None else format_bytes(level.size)
            spacing = "unknown" if spec.voxel_size is None else _spaced(spec.voxel_size)
            row = (str(mip), spacing, _spaced(spec.box.shape), *sizes)
            rows.append((*row, level.encoding, where, share, size))
        return rows

    @property
    def _object_rows(self) -> list[tuple[str, ...]]:
        return [
            (
                found.kind,
                found.directory,
                found.format,
                *("-" if n is None else f"{n:,}" for n in (found.labels, found.files)),
                "-" if found.size is None else format_bytes(found.size),
            )
            for found in self.objects
        ]


def layer_info(url: str | os.PathLike[str], *, scan: bool | None = None) -> LayerInfo:
    """Return what a layer is: its levels, how much of them is stored, its meshes and skeletons.

    Args:
        url: path or URL of a precomputed, zarr or OME-Zarr layer.
        scan: list what is stored, to count chunks, labels and bytes. None does so on a local disk; in a bucket a
            listing takes long, and tells no bytes.

    Raises:
        StoreNotFoundError: there is nothing.
        ParameterError: no layer of chunks.
    """
    store = open_store(url)
    look = scan if scan is not None else kvstore.local_path(store.url) is not None
    levels = tuple(_level(level, look=look) for level in levels_of(store))
    return LayerInfo(store.url, _format(store), levels, _objects(store, look=look))


def _format(store: Store) -> str:
    return "precomputed" if isinstance(store, PrecomputedStore) else "zarr"


def _level(level: LevelContents, *, look: bool) -> LevelInfo:
    layout = level.layout
    names = [layout.encoding or "raw", "" if layout.compression in (None, "none") else str(layout.compression)]
    encoding = " ".join(filter(None, names))
    if not look:
        return LevelInfo(level.spec, encoding, level.expected, None, None)
    stored = size = 0
    for found in level.objects():
        stored, size = stored + 1, size + found.size
    local = kvstore.local_path(level.url) is not None
    return LevelInfo(level.spec, encoding, level.expected, stored, size if local else None)


def _objects(store: Store, *, look: bool) -> tuple[ObjectInfo, ...]:
    if not isinstance(store, PrecomputedStore):
        return ()
    info = load_info(store.url)
    return tuple(_object(store.url, kind, look=look) for kind in ("mesh", "skeletons") if info.get(kind))


def _object(layer: str, kind: str, *, look: bool) -> ObjectInfo:
    url = object_directory(layer, kind)
    name = url.removeprefix(f"{kvstore.normalise(layer)}/")
    try:
        objects = Meshes(layer) if kind == "mesh" else Skeletons(layer)
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
