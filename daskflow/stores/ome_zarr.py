"""OME-Zarr 0.4 and 0.5 images: a group of zarr arrays, one per mip."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from daskflow.errors import MetadataMismatchError, ParameterError
from daskflow.geometry import LayerType, VolumeSpec, Zyx
from daskflow.stores import kvstore
from daskflow.stores.base import Format, Layout, Opening, Store, check_mip
from daskflow.stores.ome_metadata import (
    VERSIONS,
    Image,
    axes_json,
    level_json,
    nm_per_unit,
    offsets_of,
    ome_of,
    omero_json,
    parse_image,
    scales_of,
)
from daskflow.stores.placement import whole_voxels
from daskflow.stores.zarr_arrays import (
    StoredArray,
    ZarrStore,
    array_spec,
    check_same,
    new_array,
    open_zarr,
)
from daskflow.stores.zarr_attributes import OWN_KEY, own, own_attributes, stated_layer_type
from daskflow.stores.zarr_metadata import Axes, Node, array_shape, find_axes, new_group, read_node, write_node

_LAYOUT = "bioformats2raw.layout"


def open_ome(url: str, opening: Opening) -> Store:
    """Open an OME-Zarr image, or a bare zarr array when there is no image.

    `dataset` is an image or array below the URL, e.g. ``labels/nuclei``. What `opening` states wins over the metadata.

    Raises:
        StoreNotFoundError: nothing is there, or not that mip.
        ParameterError: the axes have no unit of length, and no `voxel_size` was given.
    """
    at = kvstore.join(url, opening.dataset) if opening.dataset else url
    node = read_node(at)
    if node is None:
        raise kvstore.missing(at)
    node = _only_series(node)
    if node.kind == "array":
        level = level_of(node.url)
        return _open_level(*level, opening) if level else open_zarr(url, opening)
    image = _image(node)
    if image is None:
        return open_zarr(url, opening)
    return _open_image(node, image, opening)


def _only_series(node: Node) -> Node:
    """Return the one image in a group as bioformats2raw lays it out, where image ``0`` may be followed by others."""
    if _LAYOUT not in ome_of(node.attributes, node.version):
        return node
    if read_node(kvstore.join(node.url, "1"), node.version):
        raise ParameterError(f"{kvstore.redact(node.url)} holds several images; choose one with dataset='0', '1', ...")
    first = read_node(kvstore.join(node.url, "0"), node.version)
    if first is None:
        raise kvstore.missing(kvstore.join(node.url, "0"))
    return first


def level_of(url: str) -> tuple[Node, Image, int] | None:
    """Return the image that an array is a level of, and which; None for a bare array."""
    parent, _, name = url.rpartition("/")
    group = read_node(parent) if parent.partition("://")[2] else None
    image = group and _image(group)
    if not group or not image:
        return None
    return next(((group, image, mip) for mip, level in enumerate(image.levels) if level.path == name), None)


def _open_level(group: Node, image: Image, mip: int, opening: Opening) -> Store:
    """Open one level of an image by the URL of its array: alone, but where the image places it."""
    check_mip(opening.mip, 1, kvstore.redact(f"{group.url}/{image.levels[mip].path}"))
    store = _open_image(group, image, dataclasses.replace(opening, mip=mip))
    return ZarrStore(store.array.url, (store.spec,), store.array, fill_missing=opening.fill_missing)


def _image(node: Node) -> Image | None:
    return None if node.kind == "array" else parse_image(node.attributes, node.version, kvstore.redact(node.url))


def _open_image(node: Node, image: Image, opening: Opening) -> ZarrStore:
    check_mip(opening.mip, len(image.levels), kvstore.redact(node.url))
    arrays = [_level_node(node, level.path) for level in image.levels]
    shapes = [array_shape(array) for array in arrays]
    axes = find_axes(shapes[0].shape, image.names, kvstore.redact(node.url))
    voxel_sizes = _voxel_sizes(image, axes, opening, kvstore.redact(node.url))
    starts = _starts(image, axes, opening, kvstore.redact(node.url))
    specs = [
        array_spec(
            shape,
            axes,
            voxel_size=voxel_size,
            start=start,
            layer_type=opening.layer_type or _layer_type(node),
            channel_names=_channel_names(node),
        )
        for shape, voxel_size, start in zip(shapes, voxel_sizes, starts, strict=True)
    ]
    stored = StoredArray.of(arrays[opening.mip], axes)
    return ZarrStore(node.url, specs, stored, mip=opening.mip, fill_missing=opening.fill_missing)


def _level_node(group: Node, path: str) -> Node:
    url = kvstore.join(group.url, path)
    node = read_node(url, group.version)
    if node is None or node.kind != "array":
        raise kvstore.missing(url)
    return node


def _voxel_sizes(image: Image, axes: Axes, opening: Opening, url: str) -> list[tuple[float, ...]]:
    scales = scales_of(image, axes)
    nm = nm_per_unit(image, axes)
    if opening.voxel_size is not None:
        pairs = zip(opening.voxel_size, scales[opening.mip], strict=True)
        factors = tuple(given / stated for given, stated in pairs)
    elif nm is not None:
        factors = nm
    else:
        units = [image.units[i] for i in axes.spatial]
        raise ParameterError(
            f"{url} has axes z, y, x with units {units} and scale {scales[opening.mip]}; "
            "tell the voxel size in nm with voxel_size=(z, y, x)"
        )
    return [tuple(_times(s, f) for s, f in zip(scale, factors, strict=True)) for scale in scales]


def _times(scale: float, factor: float) -> float:
    """Return the product without the noise of the last digits, so that 0.0081 um is 8.1 nm."""
    return scale if factor == 1 else float(f"{scale * factor:.12g}")


def _starts(image: Image, axes: Axes, opening: Opening, url: str) -> list[Zyx]:
    starts = offsets_of(image, axes, url)
    if opening.voxel_offset is None:
        return starts
    scales = scales_of(image, axes)
    here = zip(opening.voxel_offset, starts[opening.mip], scales[opening.mip], strict=True)
    moved = [(given - start) * scale for given, start, scale in here]
    return [
        whole_voxels([o + m / s for o, m, s in zip(start, moved, scale, strict=True)], url)
        for start, scale in zip(starts, scales, strict=True)
    ]


def _layer_type(node: Node) -> LayerType | None:
    if OWN_KEY in node.attributes:
        return stated_layer_type(node.attributes)
    ome = ome_of(node.attributes, node.version)
    return "segmentation" if "image-label" in ome else "image" if "omero" in ome else None


def _channel_names(node: Node) -> tuple[str, ...]:
    omero = ome_of(node.attributes, node.version).get("omero") or {}
    labels = tuple(str(channel.get("label", "")) for channel in omero.get("channels", ()))
    return tuple(own(node.attributes).get("channel_names", labels))


def create_ome(url: str, spec: VolumeSpec, mip: int, layout: Layout, *, version: str | None) -> Store:
    """Create one level of an OME-Zarr image, or open it when it is there and agrees.

    A group that exists keeps its other attributes and levels, and, unless `version` is stated, its version; further
    levels are written in its units. A segmentation gets `image-label`, and is listed by its group if that is `labels`.

    Raises:
        MetadataMismatchError: the level exists and differs, or the group is something else.
        ParameterError: the level before is not there, or zarr cannot hold the dtype or layout.
    """
    group = read_node(url)
    shown = kvstore.redact(url)
    if group is None:
        group = new_group(url, 3 if (version or VERSIONS[0]) == "0.5" else 2, {})
    elif group.kind == "array":
        raise MetadataMismatchError(f"{shown} is a bare zarr array already; choose another place for an image")
    image = _image(group)
    zarr_version = {"0.5": 3, "0.4": 2}[version or (image.version if image else VERSIONS[0])]
    if group.version != zarr_version:
        raise MetadataMismatchError(
            f"{shown} is a zarr v{group.version} group already; OME-Zarr {version or '0.5'} needs v{zarr_version}"
        )
    levels = len(image.levels) if image else 0
    if mip < levels:
        store = open_ome(url, Opening(mip=mip))
        check_same(store, spec, layout)
        return store
    if mip > levels:
        raise ParameterError(f"{shown} has {levels} mips; create mip {levels} before mip {mip}")
    _add_level(group, image, spec, layout)
    return open_ome(url, Opening(mip=mip))


def _add_level(group: Node, image: Image | None, spec: VolumeSpec, layout: Layout) -> None:
    names = tuple(axis["name"] for axis in axes_json(spec))
    if image is not None:
        first = open_ome(group.url, Opening()).spec
        if image.names != names or (first.dtype, first.channels) != (spec.dtype, spec.channels):
            raise MetadataMismatchError(
                f"levels of {kvstore.redact(group.url)} are {first.dtype} with axes {image.names} and {first.channels} "
                f"channels; the new one is {spec.dtype} with axes {names} and {spec.channels} channels"
            )
    count = len(image.levels) if image else 0
    path = f"s{count}" if image and image.levels[0].path == "s0" else str(count)
    array = new_array(kvstore.join(group.url, path), spec, layout, group.version, {})
    StoredArray.of(array, Axes(tuple(range(spec.ndim)))).view()
    attributes = _with_level(group, spec, level_json(path, spec, image, Axes(tuple(range(spec.ndim)))))
    write_node(array)
    write_node(Node(group.url, group.version, "group", _consolidated(group, path, array), attributes))
    if image is None and spec.layer_type == "segmentation":
        _list_label(group)


def _with_level(group: Node, spec: VolumeSpec, level: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the group with one level more."""
    ome = dict(ome_of(group.attributes, group.version))
    kept = {} if ome.get("multiscales") else own_attributes(spec)
    if ome.get("multiscales"):
        first, *others = ome["multiscales"]
        ome["multiscales"] = [{**first, "datasets": [*first["datasets"], level]}, *others]
    else:
        name = group.url.rpartition("/")[2]
        stated = {"version": "0.4"} if group.version == 2 else {}
        ome |= {"version": "0.5"} if group.version == 3 else {}
        ome["multiscales"] = [{**stated, "name": name, "axes": axes_json(spec), "datasets": [level]}]
        if spec.layer_type == "segmentation":
            source = {"source": {"image": "../../"}} if _labels_group(group.url) else {}
            ome["image-label"] = {**stated, **source}
        elif spec.channel_names:
            ome["omero"] = omero_json(spec)
    return {**group.attributes, **({"ome": ome} if group.version == 3 else ome), **kept}


def _consolidated(group: Node, path: str, array: Node) -> dict[str, Any]:
    """Return the metadata of the group, with the new array among its consolidated metadata if it has such."""
    content = group.metadata.get("consolidated_metadata")
    if not content:
        return group.metadata
    entry = {path: {**array.metadata, "attributes": array.attributes}}
    return {**group.metadata, "consolidated_metadata": {**content, "metadata": {**content["metadata"], **entry}}}


def _labels_group(url: str) -> str | None:
    parent = url.rpartition("/")[0]
    return parent if parent.endswith("/labels") else None


def _list_label(label: Node) -> None:
    """Add a label image to the list that its group `labels` keeps."""
    parent = _labels_group(label.url)
    if parent is None:
        return
    group = read_node(parent) or new_group(
        parent, label.version, {"ome": {"version": "0.5"}} if label.version == 3 else {}
    )
    ome = ome_of(group.attributes, group.version)
    name = label.url.rpartition("/")[2]
    listed = {**ome, "labels": [*(n for n in ome.get("labels", ()) if n != name), name]}
    attributes = {**group.attributes, **({"ome": listed} if group.version == 3 else listed)}
    write_node(Node(parent, group.version, group.kind, group.metadata, attributes))


def _is_image(url: str) -> bool:
    node = read_node(url)
    if node is None:
        return False
    if node.kind == "array":
        return level_of(url) is not None
    return not {"multiscales", _LAYOUT}.isdisjoint(ome_of(node.attributes, node.version))


FORMATS = (
    Format(
        name="ome-zarr",
        open=open_ome,
        recognises=_is_image,
        suffixes=(".zarr",),
        rank=30,
        prefixes=("zarr",),
        create=functools.partial(create_ome, version=None),
        needs_voxel_size=True,
    ),
    Format(
        name="ome-zarr-0.4",
        open=open_ome,
        recognises=lambda _: False,
        rank=31,
        create=functools.partial(create_ome, version="0.4"),
        needs_voxel_size=True,
    ),
)
