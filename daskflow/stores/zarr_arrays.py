"""Bare zarr arrays, v2 and v3: voxels through tensorstore, and what attributes say of their place and meaning.

Read are the attributes of daskflow, chunkflow, CREMI, n5 and xarray.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from daskflow.errors import MetadataMismatchError, ParameterError
from daskflow.geometry import VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.axes import SPATIAL, Axes, axis_names, find_axes, name_of
from daskflow.stores.base import Layout, Opening, Store
from daskflow.stores.driven import BACKGROUND_KEY, DrivenStore, StoredArray, check_same, chosen_chunks
from daskflow.stores.ome_metadata import ome_of, parse_image, placed
from daskflow.stores.refusals import check_mip
from daskflow.stores.stated import (
    SIZES,
    Stated,
    in_nm,
    nm_per,
    parse_length,
    settle,
    stated_names,
    stated_size,
    unit_names,
)
from daskflow.stores.zarr_metadata import (
    Node,
    array_metadata,
    array_shape,
    as_object,
    chunk_depth,
    codec_of,
    plain_metadata,
    read_node,
    write_node,
)

OWN_KEY = "daskflow"
Files = dict[str, bytes]


def own(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return what daskflow itself keeps in the attributes of a node."""
    content = attributes.get(OWN_KEY)
    return content if isinstance(content, dict) else {}


def own_attributes(spec: VolumeSpec) -> dict[str, Any]:
    """Return what daskflow keeps in the attributes of a new node: the fields that no convention has a place for."""
    content: dict[str, Any] = {}
    if spec.layer_type is not None:
        content["layer_type"] = spec.layer_type
    if spec.channel_names:
        content["channel_names"] = list(spec.channel_names)
    return {OWN_KEY: content}


def stated_axes(node: Node) -> tuple[tuple[str, ...], str]:
    """Return the names of an array's axes and where they stand, in metadata or in the attributes of some convention."""
    attributes = node.attributes
    ndim = len(node.metadata["shape"])
    names, key = stated_names({key: _names_in(value, attributes) for key, value in attributes.items()}, ndim)
    places = {
        "dimension_names": node.metadata.get("dimension_names"),
        f"attribute {key}": names,
        "attribute transform": as_object(attributes.get("transform")).get("axes"),
    }
    for where, value in places.items():
        if isinstance(value, str | list | tuple) and any(names := axis_names(_names_in(value, {}))):
            return names, where
    return (), ""


def stated_of(node: Node, axes: Axes, names: tuple[str, ...], where: str) -> Stated:
    """Return what an array's attributes say of its place and meaning; `names` and `where` are from `stated_axes`.

    Known are `voxel_size` or `resolution` (nm, or in `units`), `voxel_offset` (voxels) and `offset` (a position), as
    chunkflow, CREMI, daisy and funlib write them, in the order of the stored axes; `transform`, as COSEM writes it;
    `pixelResolution` (xyz), as n5 tools do; `element_size_um`; and `dimension_units`, e.g. ``["4 nm", "40 nm"]``.
    """
    attributes = node.attributes
    size, units, found = _stated_size(attributes, axes)
    position, position_units, place = _stated_position(attributes, axes)
    voxels = attributes.get("voxel_offset")
    channels = own(attributes).get("channel_names", ())
    return Stated(
        names,
        voxel_size=size,
        units=units,
        voxel_offset=voxels if axes.pick(voxels) else None,
        position=position,
        position_units=position_units,
        layer_type=own(attributes).get("layer_type", attributes.get("layer_type")),
        channel_names=channels if isinstance(channels, list) else (),
        sources={
            "axes": where or "assumed: nothing states them",
            "voxel_size": found,
            "voxel_offset": "attribute voxel_offset" if axes.pick(voxels) else place,
            "layer_type": "attributes",
            "channel_names": "attributes",
        },
    )


def _stated_size(attributes: dict[str, Any], axes: Axes) -> tuple[Any, Any, str]:
    """Return the voxel size, its units and where it stands."""
    stated = stated_size(attributes)
    if stated is not None and axes.pick(stated[0]):
        return *stated[:2], f"attribute {stated[2]}"
    transform = as_object(attributes.get("transform"))
    if axes.pick(transform.get("scale")):
        return transform["scale"], transform.get("units", "nm"), "attribute transform"
    n5 = attributes.get("pixelResolution")
    dimensions = as_object(n5).get("dimensions") if isinstance(n5, dict) else n5
    if isinstance(dimensions, list) and len(dimensions) == len(SPATIAL):
        unit = as_object(n5).get("unit", "nm") if isinstance(n5, dict) else "nm"
        return _in_stored_order(dict(zip("xyz", dimensions, strict=True)), axes), unit, "attribute pixelResolution"
    texts = axes.pick(attributes.get("dimension_units"))
    if texts:
        lengths = dict(zip(SPATIAL, (parse_length(str(text)) for text in texts), strict=True))
        return _in_stored_order(lengths, axes), "nm", f"attribute dimension_units {', '.join(map(str, texts))}"
    return None, None, ""


def _stated_position(attributes: dict[str, Any], axes: Axes) -> tuple[Any, Any, str]:
    """Return the position of the first voxel, its units and where it stands."""
    if axes.pick(attributes.get("offset")):
        return attributes["offset"], attributes.get("units", attributes.get("unit", "nm")), "attribute offset"
    transform = as_object(attributes.get("transform"))
    if axes.pick(transform.get("translate")):
        return transform["translate"], transform.get("units", "nm"), "attribute transform"
    return None, None, ""


def _in_stored_order(values: dict[str, Any], axes: Axes) -> list[Any]:
    """Return values by axis of space in the order in which those axes are stored."""
    return [values[SPATIAL[axes.spatial.index(position)]] for position in sorted(axes.spatial)]


def _names_in(value: Any, attributes: dict[str, Any]) -> Any:
    """Return names of axes, where each may be an object that has a name, and `types` beside them as daisy has it."""
    if not isinstance(value, list | tuple):
        return value
    types = attributes.get("types")
    kinds = types if isinstance(types, list) and len(types) == len(value) else [None] * len(value)
    axes = zip(value, kinds, strict=True)
    return [name_of(axis if isinstance(axis, dict) else {"name": axis, "type": kind}) for axis, kind in axes]


def corrected_attributes(attributes: dict[str, Any], spec: VolumeSpec, axes: Axes) -> dict[str, Any]:
    """Return the attributes of an array with the kind, voxel size and offset of `spec`, in nm, wherever they stand."""
    size, start = spec.spacing, spec.box.start
    corner = [a * s for a, s in zip(start, size, strict=True)]
    nm = [f"{s:g} nm" for s in size]
    stated: dict[str, Any] = {**attributes, OWN_KEY: {**own(attributes), "layer_type": spec.layer_type}}
    if spec.layer_type is None:
        del stated[OWN_KEY]["layer_type"]
    elif "layer_type" in attributes:
        stated["layer_type"] = spec.layer_type
    stated["voxel_offset"] = axes.with_zyx(attributes.get("voxel_offset"), start)
    if spec.voxel_size is None:
        return stated
    stated["resolution"] = axes.with_zyx(attributes.get("resolution"), size)
    stated["units"] = axes.with_zyx(attributes.get("units"), ["nm"] * 3)
    places: dict[str, list[Any]] = {"offset": corner, "dimension_units": nm}
    stated |= {key: axes.with_zyx(attributes[key], new) for key, new in places.items() if key in attributes}
    if axes.pick(as_object(attributes.get("transform")).get("scale")):
        transform = attributes["transform"]
        moved = {"scale": size, "translate": corner, "units": ["nm"] * 3}
        stated["transform"] = transform | {key: axes.with_zyx(transform.get(key), new) for key, new in moved.items()}
    for key in (key for key in attributes if key.lower() in SIZES):
        unit = nm_per(SIZES[key.lower()]) or 1
        stated[key] = axes.with_zyx(attributes[key], [in_nm(s, 1 / unit) for s in size])
        stated |= {other: stated["units"] for other in attributes if other.lower() in unit_names(key.lower())}
    if "pixelResolution" in attributes:
        stated["pixelResolution"] = {"unit": "nm", "dimensions": list(reversed(size))}
    return stated


def corrected_files(
    url: str, axes: Axes, before: Sequence[VolumeSpec], specs: Sequence[VolumeSpec], *, moved: bool
) -> Files:
    """Return the metadata files of the array or image at `url`, as `Store.corrected` does."""
    node = read_node(url)
    assert node is not None
    if node.kind == "array":
        image = read_node(url.rpartition("/")[0])
        if image is not None and parse_image(image.attributes, image.version, image.url) is not None:
            name = kvstore.redact(image.url)
            raise ParameterError(f"{kvstore.redact(url)} is a level of an image; name {name}")
        return _attributes(node, corrected_attributes(node.attributes, specs[0], axes))
    return _attributes(node, _image_attributes(node, axes, before, specs, moved=moved))


def _image_attributes(
    node: Node, axes: Axes, before: Sequence[VolumeSpec], specs: Sequence[VolumeSpec], *, moved: bool
) -> dict[str, Any]:
    image = parse_image(node.attributes, node.version, kvstore.redact(node.url))
    assert image is not None
    ome = dict(ome_of(node.attributes, node.version))
    if moved or any(new.voxel_size != old.voxel_size for new, old in zip(specs, before, strict=True)):
        first, *others = ome["multiscales"]
        starts = [spec.box.start for spec in specs] if moved else None
        ome["multiscales"] = [placed(first, image, axes, [s.spacing for s in specs], starts), *others]
    kind = specs[0].layer_type
    if kind == "segmentation":
        ome.setdefault("image-label", {"version": "0.4"} if node.version == 2 else {})
    else:
        ome.pop("image-label", None)
    kept = {OWN_KEY: {**own(node.attributes), **({} if kind is None else {"layer_type": kind})}}
    if node.version == 3:
        return {**node.attributes, "ome": ome, **kept}
    return {**ome, **kept}


def _attributes(node: Node, attributes: dict[str, Any]) -> Files:
    """Return the files that hold the attributes of a zarr node, with others in them."""
    if node.version == 3:
        whole = {**node.metadata, "attributes": attributes}
        return {kvstore.join(node.url, "zarr.json"): json.dumps(whole, indent=2).encode()}
    files: Files = {kvstore.join(node.url, ".zattrs"): json.dumps(attributes, indent=2).encode()}
    name = kvstore.join(node.url, ".zmetadata")
    consolidated = kvstore.read_bytes(name)
    if consolidated is not None:
        content = json.loads(consolidated)
        content["metadata"][".zattrs"] = attributes
        files[name] = json.dumps(content, indent=2).encode()
    return files


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
    """Open a bare zarr array, v2 or v3; `dataset` is one below the URL."""
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
    """Return the node of a new array (c)zyx that is not stored yet; a chunk holds all channels."""
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


class _BareZarr(ZarrStore):
    """A format of arrays that stand alone, of one version of zarr."""

    written = True
    levelled = False
    version: ClassVar[int]

    @classmethod
    def recognises(cls, url: str) -> bool:
        node = read_node(url)
        return node is not None and node.version == cls.version

    @classmethod
    def open(cls, url: str, opening: Opening) -> Store:
        return open_zarr(url, opening)

    @classmethod
    def create(cls, url: str, spec: VolumeSpec, mip: int, layout: Layout) -> Store:
        return create_bare(url, spec, mip, layout, version=cls.version)


class Zarr2(_BareZarr):
    """Arrays of zarr v2."""

    version = 2


class Zarr3(_BareZarr):
    """Arrays of zarr v3."""

    version = 3
