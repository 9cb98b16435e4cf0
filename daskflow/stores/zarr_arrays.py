"""Zarr v2 and v3 arrays: voxels through tensorstore, and bare arrays with their place in attributes."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import (
    CorruptChunkError,
    MetadataMismatchError,
    MissingChunkError,
    ParameterError,
    UnknownFormatError,
)
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, Zyx, as_zyx
from daskflow.stores import kvstore, stamps
from daskflow.stores.axes import SPATIAL, Axes, find_axes
from daskflow.stores.base import Array, Format, Layout, Opening, Store, check_mip, refuse_mismatch, refuse_unknown_size
from daskflow.stores.counting import count
from daskflow.stores.stated import settle
from daskflow.stores.zarr_attributes import OWN_KEY, own_attributes, stated_axes, stated_of
from daskflow.stores.zarr_metadata import array_metadata, array_shape, chunk_depth, codec_of, plain_metadata
from daskflow.stores.zarr_nodes import Node, read_node, write_node

BACKGROUND_KEY = "daskflow_background"
DEFAULT_CHUNK = (64, 64, 64)


@dataclass(frozen=True)
class StoredArray:
    """One array as tensorstore must open it; small, hashable and picklable.

    Attributes:
        url: of the array.
        metadata: its own JSON, without the attributes.
        axes: which stored axis is which.
        channel_chunk: channels per chunk.
    """

    url: str
    metadata: str
    axes: Axes
    channel_chunk: int

    @classmethod
    def of(cls, node: Node, axes: Axes) -> StoredArray:
        """Return what `node` is, seen with these axes."""
        shape = array_shape(node)
        chunk = 1 if axes.channel is None else shape.chunk[axes.channel]
        return cls(node.url, json.dumps(plain_metadata(node), sort_keys=True), axes, chunk)

    def view(self, *, background: float | None = None) -> Any:
        """Return the voxels as a tensorstore, (c)zyx, that refuses missing chunks and stores every chunk.

        With `background` chunks that are missing hold that value, and those that hold nothing else are deleted.

        Raises:
            UnknownFormatError: a codec that tensorstore does not know.
        """
        return _view(self, background)


@functools.lru_cache(maxsize=64)
def _view(array: StoredArray, background: float | None) -> Any:
    import tensorstore as ts

    metadata = json.loads(array.metadata)
    if background is not None:
        metadata["fill_value"] = background
    version = metadata.get("zarr_format", 2)
    spec = {
        "driver": "zarr" if version == 2 else "zarr3",
        "kvstore": kvstore.kvstore_spec(array.url),
        "metadata": metadata,
        "fill_missing_data_reads": background is not None,
        "store_data_equal_to_fill_value": background is None,
    }
    try:
        with kvstore.translated(array.url, "open"):
            opened = kvstore.wait(ts.open(spec, open=True, assume_metadata=True, context=kvstore.context()), array.url)
    except (OSError, OverflowError, TypeError, ValueError) as error:
        raise UnknownFormatError(f"tensorstore cannot open the zarr array: {error}") from error
    return array.axes.view(opened)


class ZarrStore(Store):
    """The voxels of one zarr array, alone or as a level of an OME-Zarr image."""

    def __init__(
        self, url: str, mips: Sequence[VolumeSpec], array: StoredArray, *, mip: int = 0, fill_missing: bool = False
    ) -> None:
        super().__init__(url, mips, mip=mip, fill_missing=fill_missing)
        self.array = array

    def _read(self, box: BoundingBox) -> Array:
        part = self.array.view(background=self.background)[(..., *box.slices(self.spec.box))]
        try:
            with kvstore.translated(self.array.url, "read"):
                voxels: Array = kvstore.wait(part.read(order="C"), self.array.url)
        except MissingChunkError as error:
            if not self.fill_missing:
                raise MissingChunkError(f"{error}; fill_missing reads such chunks as zeros") from error
            return self._read_filled(box)
        return voxels

    def _read_filled(self, box: BoundingBox) -> Array:
        """Read chunk by chunk, so that those that are missing can be told from those that are not, and counted."""
        import tensorstore as ts

        spec, view = self.spec, self.array.view()
        assert spec.chunk is not None
        voxels = np.full(spec.shape_of(box), view.fill_value or 0, spec.dtype)
        step = self.array.channel_chunk
        total = spec.channels
        channels = [()] if total is None else [(slice(c, min(c + step, total)),) for c in range(0, total, step)]
        pieces = list(itertools.product(channels, BlockGrid(box, spec.chunk, spec.chunk_origin)))
        batch = ts.Batch()
        futures = [view[(*c, *piece.slices(spec.box))].read(order="C", batch=batch) for c, piece in pieces]
        batch.submit()
        missing = 0
        for (c, piece), future in zip(pieces, futures, strict=True):
            try:
                with kvstore.translated(self.array.url, "read"):
                    voxels[(*c, *piece.slices(box))] = kvstore.wait(future, self.array.url)
            except MissingChunkError:
                missing += 1
        count("missing_chunks", missing)
        return voxels

    @property
    def layout(self) -> Layout:
        encoding, quality = codec_of(json.loads(self.array.metadata))
        return Layout(self.spec.chunk, self.spec.shard, encoding, quality)

    def _write(self, box: BoundingBox, array: Array) -> None:
        self._store(self.array.view(), box, array)

    def _write_dropping(self, box: BoundingBox, array: Array, drop: float) -> None:
        filled = json.loads(self.array.metadata).get("fill_value")
        if filled and filled != drop:
            raise ParameterError(
                f"missing chunks of {kvstore.redact(self.array.url)} read as {filled}, not as {drop}; so chunks of"
                " background cannot be deleted"
            )
        self._store(self.array.view(background=self.spec.dtype.type(drop).item()), box, array)

    def note_background(self, value: float) -> None:
        node = read_node(self.array.url)
        if node is None:
            raise kvstore.missing(self.array.url)
        write_node(replace(node, attributes={**node.attributes, BACKGROUND_KEY: value}))
        self.background = value

    def stored_chunks(self, box: BoundingBox) -> Iterator[BoundingBox]:
        """Yield all chunks, or shards, that share a voxel with `box` and are stored, by halving it where any is.

        tensorstore lists names by their prefixes, so that a box in which nothing is stored takes few requests.
        """
        spec, unit, left = self.spec, self.spec.write_unit, [box.clip(self.spec.box)]
        assert unit is not None
        assert spec.chunk_origin is not None
        while left:
            one = left.pop()
            if one.empty or self._bare(one):
                continue
            whole, pieces = one.align(unit, spec.chunk_origin), BlockGrid(one, unit, spec.chunk_origin).shape
            if max(pieces) == 1:
                yield whole.clip(spec.box)
                continue
            longest = pieces.index(max(pieces))
            half = [
                u * (-(-n // 2) if axis == longest else n) for axis, (u, n) in enumerate(zip(unit, pieces, strict=True))
            ]
            left += [part.clip(one) for part in BlockGrid(whole, as_zyx(half))]

    def _bare(self, box: BoundingBox) -> bool:
        """Return whether no chunk that shares a voxel with `box` is stored."""
        part = self.array.view()[(..., *box.slices(self.spec.box))]
        with kvstore.translated(self.array.url, "list"):
            return bool(kvstore.wait(part.storage_statistics(query_not_stored=True), self.array.url).not_stored)

    def _store(self, view: Any, box: BoundingBox, array: Array) -> None:
        kvstore.refuse_http(self.array.url)
        part = view[(..., *box.slices(self.spec.box))]
        while True:
            try:
                with kvstore.translated(self.array.url, "write"):
                    kvstore.wait(part.write(array), self.array.url)
            except CorruptChunkError as error:
                self._delete_damaged(error)
            else:
                return

    def _delete_damaged(self, error: CorruptChunkError) -> None:
        """Delete the damaged chunk that stands in the way of being replaced: tensorstore reads those at edges first."""
        directory = kvstore.local_path(self.array.url)
        named = re.findall(r'"([^"]+)"', str(error))
        if directory is None or not named or not Path(named[-1]).is_relative_to(directory):
            raise error
        Path(named[-1]).unlink()

    def fingerprint(self) -> dict[str, Any]:
        """Return the location, the level, a hash of what the metadata say, and what changes when it is rewritten."""
        metadata = json.loads(self.array.metadata)
        name = ".zarray" if metadata.get("zarr_format", 2) == 2 else "zarr.json"
        written = {
            "metadata": stamps.object_stamp(kvstore.join(self.array.url, name)),
            "provenance": stamps.provenance_stamp(f"{self.url}.provenance.json", self.mip),
        }
        directory = kvstore.local_path(self.array.url)
        if directory is not None:
            written["chunks"] = stamps.directory_stamp(directory, chunk_depth(metadata))
        digest = stamps.digest(f"{self.array}{self.spec}")
        return {"url": kvstore.redact(self.url), "mip": self.mip, "metadata": digest, "written": written}

    def check_writable(self) -> None:
        """Raise StoreAccessError unless objects can be written beside the chunks."""
        kvstore.check_writable(self.array.url)


def open_zarr(url: str, opening: Opening) -> Store:
    """Open a bare zarr array, v2 or v3; `dataset` is one below the URL.

    Raises:
        StoreNotFoundError: nothing is there.
        ParameterError: a group.
    """
    at = kvstore.join(url, opening.dataset) if opening.dataset else url
    node = read_node(at)
    if node is None:
        raise kvstore.missing(at)
    if node.kind == "group":
        raise ParameterError(
            f"{kvstore.redact(at)} is a zarr group; choose an array with dataset=, or open it as ome-zarr"
        )
    check_mip(opening.mip, 1, kvstore.redact(at))
    shown, shape, (names, where) = kvstore.redact(node.url), array_shape(node), stated_axes(node)
    axes = find_axes(shape.shape, names, shown, opening, keep_channel=OWN_KEY in node.attributes)
    spec, sources = settle(
        stated_of(node, axes, names, where),
        axes,
        opening,
        shape=shape.shape,
        dtype=shape.dtype,
        chunk=shape.chunk,
        shard=shape.shard,
        url=shown,
    )
    store = ZarrStore(node.url, (spec,), StoredArray.of(node, axes), fill_missing=opening.fill_missing)
    store.background = node.attributes.get(BACKGROUND_KEY)
    store.sources = sources
    return store


def chosen_chunks(spec: VolumeSpec, layout: Layout) -> tuple[Zyx, Zyx | None]:
    """Return the chunk and shard (zyx) of a new array: from the layout, else from the spec, else 64x64x64 unsharded."""
    chunk = layout.chunk or spec.chunk or DEFAULT_CHUNK
    shard = layout.shard or (None if layout.chunk else spec.shard)
    return chunk, shard


def new_array(url: str, spec: VolumeSpec, layout: Layout, version: int, attributes: dict[str, Any]) -> Node:
    """Return the node of a new array (c)zyx that is not stored yet; a chunk holds all channels.

    Raises:
        ParameterError: a dtype, codec or shard that this version of zarr cannot hold.
        GeometryError: a shard that is no multiple of the chunk.
    """
    chunk, shard = chosen_chunks(spec, layout)
    spec.replace(chunk=chunk, shard=shard, chunk_origin=None)
    channels = () if spec.channels is None else (spec.channels,)
    names = ("c", *SPATIAL)[4 - spec.ndim :]
    metadata = array_metadata(
        version, spec.shape, spec.dtype, (*channels, *chunk), None if shard is None else (*channels, *shard), layout
    )
    if version == 3:
        metadata["dimension_names"] = list(names)
    else:
        attributes = {"_ARRAY_DIMENSIONS": list(names), **attributes}
    return Node(url, version, "array", metadata, attributes)


def create_bare(url: str, spec: VolumeSpec, mip: int, layout: Layout, *, version: int) -> Store:
    """Create a zarr array that stands alone, or open it when it is there and agrees.

    The voxel size is in `resolution` and the physical position of the first voxel in `offset` (nm, zyx); where the
    voxel size is unknown, `voxel_offset` has the position in voxels.
    """
    if mip:
        raise ParameterError(f"a bare zarr array has only mip 0 (asked for {mip}); write OME-Zarr for several")
    there = read_node(url)
    attributes: dict[str, Any] = {"voxel_offset": list(spec.box.start)}
    if spec.voxel_size is not None:
        offset = [start * size for start, size in zip(spec.box.start, spec.voxel_size, strict=True)]
        attributes = {"units": ["nm"] * 3, "resolution": list(spec.voxel_size), "offset": offset}
    attributes |= own_attributes(spec)
    if there is None or _half_written(there, attributes):
        node = new_array(url, spec, layout, version, attributes)
        StoredArray.of(node, Axes(tuple(range(spec.ndim)))).view()
        write_node(node)
    elif there.kind == "group" or there.version != version:
        raise MetadataMismatchError(
            f"{kvstore.redact(url)} is a zarr v{there.version} {there.kind} already; choose another place"
        )
    store = open_zarr(url, Opening())
    check_same(store, spec, layout)
    return store


def _half_written(there: Node, attributes: dict[str, Any]) -> bool:
    """Return whether a writer was killed after the attributes of a v2 array and before the array itself."""
    return (
        (there.version, there.kind) == (2, "group")
        and attributes.items() <= there.attributes.items()
        and not kvstore.exists(kvstore.join(there.url, ".zgroup"))
    )


def check_same(store: Store, spec: VolumeSpec, layout: Layout) -> None:
    """Raise unless an existing level is what would be created now; what either does not state is taken as it is.

    Raises:
        MetadataMismatchError: with one line per field that differs.
    """
    there, location = store.spec, f"mip {store.mip} of {kvstore.redact(store.url)}"
    refuse_unknown_size(location, there, spec)
    wanted: dict[str, Any] = {"shape": spec.shape, "voxel_offset": spec.box.start, "dtype": spec.dtype.name}
    if not np.allclose(there.spacing, spec.spacing, rtol=1e-9, atol=0):
        wanted["voxel_size"] = spec.voxel_size
    meaning = ("layer_type", "channel_names")
    wanted |= {name: getattr(spec, name) for name in meaning if getattr(spec, name) and getattr(there, name)}
    if layout.chunk or spec.chunk:
        wanted["chunk"], wanted["shard"] = chosen_chunks(spec, layout)
    stored = {name: getattr(there, name, None) for name in wanted}
    stored |= {"voxel_offset": there.box.start, "dtype": there.dtype.name}
    refuse_mismatch(location, stored, wanted)


def _is_array(url: str, version: int) -> bool:
    node = read_node(url)
    return node is not None and node.version == version


FORMATS = tuple(
    Format(
        name=f"zarr{version}",
        open=open_zarr,
        recognises=functools.partial(_is_array, version=version),
        create=functools.partial(create_bare, version=version),
        rank=41 if version == 2 else 40,
        levels=False,
    )
    for version in (3, 2)
)
