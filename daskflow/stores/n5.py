"""N5 arrays, alone or as the levels s0, s1, ... of an image, in the metadata of n5-viewer, Paintera and Neuroglancer.

N5 lists axes in Fortran order, x first; here they are turned around as soon as they are read. ``resolution`` is that of
the finest level, of which ``downsamplingFactors`` are the multiples.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.errors import CorruptChunkError, MetadataMismatchError, ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec, as_voxel_size
from daskflow.stores import kvstore
from daskflow.stores.axes import Axes, find_axes
from daskflow.stores.base import Array, Layout, Opening, Store
from daskflow.stores.driven import BACKGROUND_KEY, DrivenStore, StoredArray, check_same, chosen_chunks
from daskflow.stores.refusals import (
    OBJECT,
    check_forms,
    check_mip,
    list_of,
    numbers,
    one_of,
    parse_object,
    refuse_cast,
    whole,
)
from daskflow.stores.stated import settle, whole_voxels
from daskflow.stores.zarr_arrays import OWN_KEY, own, own_attributes, stated_axes, stated_of
from daskflow.stores.zarr_metadata import Node

_FILE = "attributes.json"
_DTYPES = (*(f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)), "float32", "float64")
_LEVELS = {"gzip": "level", "zstd": "level", "blosc": "clevel", "bzip2": "blockSize", "xz": "preset", "raw": ""}
_ARRAY = ("dimensions", "blockSize", "dataType", "compression")
_FORMS = {
    "dimensions": list_of(whole(1, 2**48)),
    "blockSize": list_of(whole(1, 2**31)),
    "dataType": one_of(*_DTYPES),
    "compression": OBJECT,
}
_C_ORDER = ("axis_names", "_ARRAY_DIMENSIONS")  # what Python programs write, which list everything from z to x
_FACTORS = "downsamplingFactors"
_SHOWN = 20


@dataclass(frozen=True)
class _Level:
    """An array, with its own attributes and those of its image."""

    url: str
    attributes: dict[str, Any]

    @property
    def shape(self) -> list[int]:
        """Elements per axis, in C order."""
        return list(reversed(self.attributes["dimensions"]))

    @property
    def node(self) -> Node:
        """The array as zarr would have it: in C order."""
        count, turned = len(self.shape), not any(key in self.attributes for key in _C_ORDER)
        listed = {k: v for k, v in self.attributes.items() if isinstance(v, list) and len(v) == count}
        kept = {k: v[::-1] for k, v in listed.items() if turned and k != "pixelResolution"}
        offset = own(self.attributes).get("voxel_offset")
        kept |= {} if offset is None else {"voxel_offset": offset}
        return Node(self.url, 2, "array", {"shape": self.shape}, {**self.attributes, **kept})

    def stored(self, axes: Axes) -> StoredArray:
        """Return what tensorstore opens."""
        metadata = json.dumps({key: self.attributes[key] for key in _ARRAY}, sort_keys=True)
        chunk = 1 if axes.channel is None else self.attributes["blockSize"][::-1][axes.channel]
        return StoredArray(self.url, metadata, axes, chunk, "n5", fortran=True)

    def factor(self, finest: _Level, axes: Axes) -> list[float]:
        """Return how many voxels of the finest level make one of this (zyx); by the shapes, where nothing says it."""
        shrunk = [max(1, round(a / b)) for a, b in zip(finest.shape, self.shape, strict=True)]
        found: Any = self.node.attributes.get(_FACTORS)
        right, _ = numbers(len(self.shape), positive=True)
        return [float(value) for value in axes.zyx(found if right(found) else shrunk)]


class N5Store(DrivenStore):
    """The voxels of one N5 array, alone or as a level of an image."""

    written = True
    metadata_names = frozenset({_FILE})

    @classmethod
    def recognises(cls, url: str) -> bool:
        return any(kvstore.exists(kvstore.join(place, _FILE)) for place in (url, f"{url}/s0"))

    @classmethod
    def open(cls, url: str, opening: Opening) -> Store:
        """Open an N5 array, or an image, whose levels are its arrays s0, s1, ...; `dataset` is one below the URL."""
        at = kvstore.join(url, opening.dataset) if opening.dataset else url
        levels, shown = _levels(at), kvstore.redact(at)
        if not levels:
            if not cls.recognises(at):
                raise kvstore.missing(at)
            path = kvstore.local_path(at)
            inside = sorted(child.name for child in path.iterdir() if child.is_dir()) if path is not None else []
            raise ParameterError(
                f"{shown} is an N5 group; choose an array or image in it with dataset="
                + (f", below {', '.join(inside[:_SHOWN])}" if inside else "")
            )
        check_mip(opening.mip, len(levels), shown)
        if len({len(level.shape) for level in levels}) > 1:
            raise CorruptChunkError(f"the levels of {shown} have different numbers of axes")
        finest, node = levels[0], levels[0].node
        names, where = stated_axes(node)
        axes = find_axes(finest.shape, names, shown, opening, keep_channel=OWN_KEY in node.attributes)
        stated = stated_of(node, axes, names, where)
        factors = [level.factor(finest, axes) for level in levels]
        if "transform" in stated.sources["voxel_size"]:  # which is that of its level
            factors = [[a / b for a, b in zip(factor, factors[0], strict=True)] for factor in factors]
        given = factors[opening.mip]
        size = opening.voxel_size and as_voxel_size([v / f for v, f in zip(opening.voxel_size, given, strict=True)])
        start = opening.voxel_offset and whole_voxels(
            [a * f for a, f in zip(opening.voxel_offset, given, strict=True)], at
        )
        base, sources = settle(
            stated,
            axes,
            dataclasses.replace(opening, voxel_size=size, voxel_offset=start),
            shape=finest.shape,
            dtype=np.dtype(finest.attributes["dataType"]),
            url=shown,
        )
        specs = [_spec(*pair, base, axes, moved=start is not None) for pair in zip(levels, factors, strict=True)]
        chosen = levels[opening.mip]
        store = cls(at, specs, chosen.stored(axes), mip=opening.mip, fill_missing=opening.fill_missing)
        store.background = 0 if BACKGROUND_KEY in chosen.attributes else None
        store.sources = sources
        return store

    @classmethod
    def create(cls, url: str, spec: VolumeSpec, mip: int, layout: Layout) -> Store:
        refuse_cast(spec.dtype, _DTYPES, "an N5 array")
        levels, shown = _levels(url), kvstore.redact(url)
        if levels and levels[0].url == url:
            raise MetadataMismatchError(f"{shown} is an N5 array already; choose another place for an image")
        if mip < len(levels):
            store = cls.open(url, Opening(mip=mip))
            check_same(store, spec, layout)
            return store
        if mip > len(levels):
            raise ParameterError(f"{shown} has {len(levels)} mips; create mip {len(levels)} before mip {mip}")
        first = cls.open(url, Opening()).spec if levels else spec
        if (first.dtype, first.channels) != (spec.dtype, spec.channels):
            raise MetadataMismatchError(
                f"levels of {shown} are {first.dtype} of {first.channels} channels; the new one is {spec.dtype} of"
                f" {spec.channels}"
            )
        kept = {**own_attributes(spec)[OWN_KEY], "voxel_offset": list(spec.box.start)}
        array = {**_new_array(spec, layout), **_stated(spec, first), OWN_KEY: kept}
        _Level(f"{url}/s{mip}", array).stored(Axes(tuple(range(spec.ndim)))).view()
        group = _read(url) or {"n5": "2.0.0", "multiScale": True, **_stated(first, first)}
        factors = [level.attributes.get(_FACTORS, [1] * spec.ndim) for level in levels]
        _write(f"{url}/s{mip}", array)
        _write(url, {**group, _FACTORS: [*factors, array[_FACTORS]]})
        return cls.open(url, Opening(mip=mip))

    @property
    def layout(self) -> Layout:
        codec = json.loads(self.array.metadata)["compression"]
        name = codec.get("type")
        level = codec.get(_LEVELS.get(name, ""))
        quality = level if isinstance(level, int) and 0 <= level <= 22 else None
        return Layout(self.spec.chunk, None, name if name in _LEVELS else None, quality)

    @property
    def _metadata_file(self) -> tuple[str, int]:
        return _FILE, self.spec.ndim - 1

    def _write_dropping(self, box: Any, array: Array, drop: float) -> None:
        if drop:
            raise ParameterError(f"missing blocks of {kvstore.redact(self.array.url)} are zeros, not {drop:g}")
        super()._write_dropping(box, array, drop)

    def note_background(self, value: float) -> None:
        _write(self.array.url, {**(_read(self.array.url) or {}), BACKGROUND_KEY: value})
        self.background = value


def _spec(level: _Level, factor: list[float], base: VolumeSpec, axes: Axes, *, moved: bool) -> VolumeSpec:
    """Return what a level is, given what the finest would be; `moved` if its own offset does not count."""
    start: Any = own(level.attributes).get("voxel_offset")
    if moved or not numbers(3)[0](start):
        start = [a / f for a, f in zip(base.box.start, factor, strict=True)]
    sized = {
        "coarseness" if base.voxel_size is None else "voxel_size": [
            v if f == 1 else float(f"{v * f:.12g}") for v, f in zip(base.spacing, factor, strict=True)
        ]
    }
    box = BoundingBox.from_size(whole_voxels(start, kvstore.redact(level.url)), axes.zyx(level.shape))
    return base.replace(box=box, chunk=axes.zyx(level.attributes["blockSize"][::-1]), chunk_origin=None, **sized)


def _levels(url: str) -> list[_Level]:
    """Return the array at a URL, or the levels of the image that is there, finest first; none for another group."""
    found = _read(url)
    if found is not None and "dimensions" in found:
        parent, _, name = url.rpartition("/")
        image = _read(parent) if name[:1] == "s" and name[1:].isdecimal() else None
        return [_array(url, found, image or {}, int(name[1:]) if image else 0)]
    levels: list[_Level] = []
    for number in itertools.count():
        array = _read(f"{url}/s{number}")
        if array is None or "dimensions" not in array:
            return levels
        levels.append(_array(f"{url}/s{number}", array, found or {}, number))
    raise AssertionError


def _array(url: str, attributes: dict[str, Any], image: dict[str, Any], number: int) -> _Level:
    """Return an array with what its image says of all levels."""
    listed: list[Any] = next((image[key] for key in (_FACTORS, "scales") if isinstance(image.get(key), list)), [])
    factor = {_FACTORS: listed[number]} if number < len(listed) and isinstance(listed[number], list) else {}
    codec = {"compression": {"type": attributes["compressionType"]}} if "compressionType" in attributes else {}
    shared = {k: v for k, v in image.items() if k not in (*_ARRAY, _FACTORS, "scales")}
    merged = {**shared, **factor, **codec, **attributes}
    name = kvstore.redact(kvstore.join(url, _FILE))
    check_forms(merged, _FORMS, name, required=_ARRAY)
    if len(merged["dimensions"]) != len(merged["blockSize"]) or not merged["dimensions"]:
        raise CorruptChunkError(f"{name} states dimensions {merged['dimensions']} and blockSize {merged['blockSize']}")
    return _Level(url, merged)


def _new_array(spec: VolumeSpec, layout: Layout) -> dict[str, Any]:
    """Return what makes an array; a chunk holds all channels."""
    chunk, shard = chosen_chunks(spec, layout)
    name = layout.encoding or layout.compression or "gzip"
    name = "raw" if name == "none" else name
    if shard is not None or name not in _LEVELS:
        refused = f"shards {shard}" if shard is not None else f"encoding {name!r}"
        raise ParameterError(f"{refused} in N5; it has no shards, and encodings {', '.join(_LEVELS)}")
    codec: dict[str, Any] = {"type": name}
    if name == "blosc":
        codec |= {"cname": "zstd", "clevel": 5, "shuffle": 1}
    if layout.quality is not None and name != "raw":
        codec[_LEVELS[name]] = layout.quality
    channels = () if spec.channels is None else (spec.channels,)
    sizes = {"dimensions": [*spec.shape][::-1], "blockSize": [*channels, *chunk][::-1]}
    return {**sizes, "dataType": spec.dtype.name, "compression": codec}


def _stated(spec: VolumeSpec, first: VolumeSpec) -> dict[str, Any]:
    """Return what is said of a level and, for its axes, of the finest."""
    more = [] if spec.channels is None else [1]
    factor = [int(f) if f.is_integer() else f for f in reversed(spec.ratio(first))]
    said: dict[str, Any] = {"axes": ["x", "y", "z", *(["c"] if more else [])], _FACTORS: [*factor, *more]}
    if first.voxel_size is None:
        return said
    corner = [start * size for start, size in zip(first.box.start, first.voxel_size, strict=True)]
    units = ["nm"] * 3 + [""] * len(more)
    return said | {
        "units": units,
        "resolution": [*reversed(first.voxel_size), *more],
        "offset": [*reversed(corner), *[0] * len(more)],
    }


def _read(url: str) -> dict[str, Any] | None:
    name = kvstore.join(url, _FILE)
    data = kvstore.read_bytes(name)
    return None if data is None else parse_object(data, kvstore.redact(name), CorruptChunkError)


def _write(url: str, attributes: dict[str, Any]) -> None:
    kvstore.write_bytes(kvstore.join(url, _FILE), json.dumps(attributes, indent=2).encode())
