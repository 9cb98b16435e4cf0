"""Zarr v2 and v3 arrays: voxels through tensorstore, and bare arrays with their place in attributes."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from daskflow.errors import (
    MetadataMismatchError,
    ParameterError,
)
from daskflow.geometry import VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.axes import SPATIAL, Axes, find_axes
from daskflow.stores.base import Format, Layout, Opening, Store
from daskflow.stores.driven import BACKGROUND_KEY, DrivenStore, StoredArray, check_same, chosen_chunks
from daskflow.stores.refusals import check_mip
from daskflow.stores.stated import settle
from daskflow.stores.zarr_attributes import OWN_KEY, own_attributes, stated_axes, stated_of
from daskflow.stores.zarr_corrected import corrected_files
from daskflow.stores.zarr_metadata import array_metadata, array_shape, chunk_depth, codec_of, plain_metadata
from daskflow.stores.zarr_nodes import Node, read_node, write_node


def stored_array(node: Node, axes: Axes) -> StoredArray:
    """Return what a zarr array is, seen with these axes."""
    shape = array_shape(node)
    chunk = 1 if axes.channel is None else shape.chunk[axes.channel]
    metadata = json.dumps(plain_metadata(node), sort_keys=True)
    return StoredArray(node.url, metadata, axes, chunk, "zarr" if node.version == 2 else "zarr3")


class ZarrStore(DrivenStore):
    """The voxels of one zarr array, alone or as a level of an OME-Zarr image."""

    family = "zarr"
    metadata_names = frozenset({"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"})

    @property
    def layout(self) -> Layout:
        encoding, quality = codec_of(json.loads(self.array.metadata))
        return Layout(self.spec.chunk, self.spec.shard, encoding, quality)

    def note_background(self, value: float) -> None:
        node = read_node(self.array.url)
        if node is None:
            raise kvstore.missing(self.array.url)
        write_node(replace(node, attributes={**node.attributes, BACKGROUND_KEY: value}))
        self.background = value

    @property
    def _metadata_file(self) -> tuple[str, int]:
        metadata = json.loads(self.array.metadata)
        return ".zarray" if metadata.get("zarr_format", 2) == 2 else "zarr.json", chunk_depth(metadata)

    def corrected(
        self,
        specs: Sequence[VolumeSpec],
        *,
        moved: bool,
        objects: Mapping[str, str],  # noqa: ARG002 (it has none)
    ) -> dict[str, bytes]:
        return corrected_files(self.url, self.array.axes, self.mips, specs, moved=moved)


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
    store = ZarrStore(node.url, (spec,), stored_array(node, axes), fill_missing=opening.fill_missing)
    store.background = node.attributes.get(BACKGROUND_KEY)
    store.sources = sources
    return store


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
        stored_array(node, Axes(tuple(range(spec.ndim)))).view()
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
        store=ZarrStore,
    )
    for version in (3, 2)
)
