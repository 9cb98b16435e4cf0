"""OME-Zarr images: a group of zarr arrays, one per mip; versions 0.1 to 0.5 are read, 0.4 and 0.5 written."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from daskflow.errors import CorruptChunkError, MetadataMismatchError, ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx
from daskflow.stores import kvstore, ome_metadata
from daskflow.stores.axes import SPATIAL, Axes, find_axes
from daskflow.stores.base import MOST_MEMBERS, Layout, Member, Opening, Store
from daskflow.stores.driven import BACKGROUND_KEY, check_same
from daskflow.stores.ome_metadata import Image, Triple
from daskflow.stores.refusals import check_mip
from daskflow.stores.stated import Stated, settle, whole_voxels
from daskflow.stores.zarr_arrays import OWN_KEY, ZarrStore, new_array, open_zarr, own, own_attributes, stored_array
from daskflow.stores.zarr_metadata import Node, array_shape, arrays_below, new_group, read_node, write_node

_LAYOUT = "bioformats2raw.layout"
_LISTED = 20


def open_ome(url: str, opening: Opening) -> Store:
    """Open an OME-Zarr image, or a bare zarr array when there is no image.

    `dataset` is an image or array below the URL, e.g. ``labels/nuclei``, or ``A/1/0`` of a plate. What `opening` states
    wins over the metadata.
    """
    at = kvstore.join(url, opening.dataset) if opening.dataset else url
    node = read_node(at)
    if node is None:
        raise kvstore.missing(at)
    image = _image(node)
    if node.kind == "group" and image is None:
        node = _only_child(node)
        image = _image(node)
    if image is not None:
        return _open_image(node, image, opening)
    level = level_of(node.url)
    inside = dataclasses.replace(opening, dataset=None)
    return _open_level(*level, inside) if level else open_zarr(node.url, inside)


def _only_child(group: Node) -> Node:
    """Return the one image or array in a group that is none, or the only one that can be a volume."""
    children, shown = _children_of(group), kvstore.redact(group.url)
    if not children:
        raise ParameterError(f"{shown} is a zarr group; choose an array with dataset=")
    found = [read_node(kvstore.join(group.url, child), group.version) for child in children[:_LISTED]]
    nodes = [node for node in found if node is not None]
    if len(children) == 1 and not nodes:
        raise kvstore.missing(kvstore.join(group.url, children[0]))
    likely = [node for node in nodes if len(children) == 1 or _may_be_a_volume(node)]
    if len(likely) == 1 and len(children) <= _LISTED:
        return likely[0]
    listed = ", ".join([*children[:_LISTED], *(["..."] if len(children) > _LISTED else [])])
    raise ParameterError(f"{shown} holds several images or arrays; choose one with dataset= among: {listed}")


def _may_be_a_volume(node: Node) -> bool:
    shape = node.metadata.get("shape")
    return node.kind == "group" or (isinstance(shape, list) and len(shape) >= len(SPATIAL))


def _children_of(group: Node) -> list[str] | None:
    """Return the paths of the images and bare arrays below a group; None if that takes a listing of all chunks."""
    stated = list(itertools.islice(listed_images(group), _LISTED + 1))
    if stated:
        return stated
    arrays = arrays_below(group)
    if arrays is None:
        return None
    images: dict[str, Image | None] = {}
    children = []
    for array in arrays:
        parent, _, name = array.rpartition("/")
        if parent and parent not in images:
            node = read_node(kvstore.join(group.url, parent), group.version)
            images[parent] = None if node is None else _image(node)
        image = images.get(parent)
        is_level = image is not None and any(level.path == name for level in image.levels)
        children.append(parent if is_level else array)
    return list(dict.fromkeys(children))


def listed_images(group: Node) -> Iterator[str]:
    """Yield the images that a group lists: the series of bioformats2raw, the wells of a plate, labels."""
    ome = ome_metadata.ome_of(group.attributes, group.version)
    plate, well, labels = ome.get("plate"), ome.get("well"), ome.get("labels")
    if _LAYOUT in ome:
        numbers = map(str, itertools.count())
        yield from itertools.takewhile(lambda name: read_node(kvstore.join(group.url, name), group.version), numbers)
    elif isinstance(plate, dict):
        for path in _paths(plate.get("wells")):
            node = read_node(kvstore.join(group.url, path), group.version)
            yield from () if node is None else (f"{path}/{name}" for name in listed_images(node))
    elif isinstance(well, dict):
        yield from _paths(well.get("images"))
    elif isinstance(labels, list):
        yield from map(str, labels)


def _paths(entries: Any) -> list[str]:
    if not isinstance(entries, list):
        return []
    return [str(entry["path"]) for entry in entries if isinstance(entry, dict) and "path" in entry]


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
    alone = ZarrStore(store.array.url, (store.spec,), store.array, fill_missing=opening.fill_missing)
    alone.background = store.background
    return alone


def _image(node: Node) -> Image | None:
    return (
        None
        if node.kind == "array"
        else ome_metadata.parse_image(node.attributes, node.version, kvstore.redact(node.url))
    )


def _open_image(node: Node, image: Image, opening: Opening) -> ZarrStore:
    check_mip(opening.mip, len(image.levels), kvstore.redact(node.url))
    shown = kvstore.redact(node.url)
    arrays = [_level_node(node, level.path) for level in image.levels]
    shapes = [array_shape(array) for array in arrays]
    if len({len(shape.shape) for shape in shapes}) > 1:
        raise CorruptChunkError(f"the levels of {shown} have different numbers of axes")
    image = ome_metadata.scaled_by(image, [shape.shape for shape in shapes])
    axes = find_axes(shapes[0].shape, image.names, shown, opening, keep_channel=True)
    stated = Stated(
        image.names,
        voxel_size=[s * o for s, o in zip(image.levels[opening.mip].scale or (), image.outer[0], strict=True)],
        units=image.units,
        layer_type=_layer_type(node),
        channel_names=_channel_names(node),
        sources=dict.fromkeys(("axes", "voxel_size", "layer_type", "channel_names"), f"OME-Zarr {image.version}"),
    )
    shape, starts, scales = (
        shapes[opening.mip],
        _starts(image, axes, opening, shown),
        ome_metadata.scales_of(image, axes),
    )
    here, sources = settle(
        stated,
        axes,
        dataclasses.replace(opening, voxel_offset=starts[opening.mip]),
        shape=shape.shape,
        dtype=shape.dtype,
        url=shown,
    )
    if opening.voxel_offset is None:
        sources["voxel_offset"] = f"OME-Zarr {image.version}"
    specs = [
        here.replace(
            box=BoundingBox.from_size(start, axes.zyx(level.shape)),
            chunk=axes.zyx(level.chunk),
            shard=None if level.shard is None else axes.zyx(level.shard),
            chunk_origin=None,
            **_sized(here, scale, scales, opening.mip),
        )
        for level, start, scale in zip(shapes, starts, scales, strict=True)
    ]
    stored = stored_array(arrays[opening.mip], axes)
    store = ZarrStore(node.url, specs, stored, mip=opening.mip, fill_missing=opening.fill_missing)
    store.background = arrays[opening.mip].attributes.get(BACKGROUND_KEY)
    store.sources = sources
    return store


def _sized(here: VolumeSpec, scale: Triple, scales: Sequence[Triple], mip: int) -> dict[str, Triple]:
    """Return the voxel size of a level, from that of level `mip`, or how coarse it is where that is unknown."""
    if here.voxel_size is None:
        z, y, x = (float(f"{a / b:.12g}") for a, b in zip(scale, scales[0], strict=True))
        return {"coarseness": (z, y, x)}
    known = zip(here.voxel_size, scale, scales[mip], strict=True)
    z, y, x = (size if a == b else float(f"{size * a / b:.12g}") for size, a, b in known)
    return {"voxel_size": (z, y, x)}


def _level_node(group: Node, path: str) -> Node:
    url = kvstore.join(group.url, path)
    node = read_node(url, group.version)
    if node is None or node.kind != "array":
        raise kvstore.missing(url)
    return node


def _starts(image: Image, axes: Axes, opening: Opening, url: str) -> list[Zyx]:
    starts = ome_metadata.offsets_of(image, axes, url)
    if opening.voxel_offset is None:
        return starts
    scales = ome_metadata.scales_of(image, axes)
    here = zip(opening.voxel_offset, starts[opening.mip], scales[opening.mip], strict=True)
    moved = [(given - start) * scale for given, start, scale in here]
    return [
        whole_voxels([o + m / s for o, m, s in zip(start, moved, scale, strict=True)], url)
        for start, scale in zip(starts, scales, strict=True)
    ]


def _layer_type(node: Node) -> str | None:
    if OWN_KEY in node.attributes:
        return own(node.attributes).get("layer_type")
    ome = ome_metadata.ome_of(node.attributes, node.version)
    if "image-label" in ome or _labels_group(node.url):
        return "segmentation"
    return "image" if "omero" in ome else None


def _channel_names(node: Node) -> tuple[str, ...]:
    names = own(node.attributes).get("channel_names")
    if isinstance(names, list):
        return tuple(map(str, names))
    omero = ome_metadata.ome_of(node.attributes, node.version).get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    return tuple(str(channel.get("label") or "") if isinstance(channel, dict) else "" for channel in channels)


def create_ome(url: str, spec: VolumeSpec, mip: int, layout: Layout, *, version: str | None) -> Store:
    """Create one level of an OME-Zarr image, or open it when it is there and agrees.

    A group that exists keeps its other attributes and levels, and, unless `version` is stated, its version; further
    levels are written in its units. A segmentation gets `image-label`, and is listed by its group if that is `labels`.
    """
    group = read_node(url)
    shown = kvstore.redact(url)
    if group is None:
        group = new_group(url, 3 if (version or ome_metadata.VERSIONS[0]) == "0.5" else 2, {})
    elif group.kind == "array":
        raise MetadataMismatchError(f"{shown} is a bare zarr array already; choose another place for an image")
    image = _image(group)
    if image is not None and image.version not in ome_metadata.VERSIONS:
        raise MetadataMismatchError(
            f"{shown} is OME-Zarr {image.version}, which cannot be extended; choose another place"
        )
    zarr_version = {"0.5": 3, "0.4": 2}[version or (image.version if image else ome_metadata.VERSIONS[0])]
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
    names = tuple(axis["name"] for axis in ome_metadata.axes_json(spec))
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
    stored_array(array, Axes(tuple(range(spec.ndim)))).view()
    attributes = _with_level(group, spec, ome_metadata.level_json(path, spec, image, Axes(tuple(range(spec.ndim)))))
    write_node(array)
    write_node(Node(group.url, group.version, "group", _consolidated(group, path, array), attributes))
    if image is None and spec.layer_type == "segmentation":
        _list_label(group)


def _with_level(group: Node, spec: VolumeSpec, level: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the group with one level more."""
    ome = dict(ome_metadata.ome_of(group.attributes, group.version))
    kept = {} if ome.get("multiscales") else own_attributes(spec)
    if ome.get("multiscales"):
        first, *others = ome["multiscales"]
        ome["multiscales"] = [{**first, "datasets": [*first["datasets"], level]}, *others]
    else:
        name = group.url.rpartition("/")[2]
        stated = {"version": "0.4"} if group.version == 2 else {}
        ome |= {"version": "0.5"} if group.version == 3 else {}
        ome["multiscales"] = [{**stated, "name": name, "axes": ome_metadata.axes_json(spec), "datasets": [level]}]
        if spec.layer_type == "segmentation":
            source = {"source": {"image": "../../"}} if _labels_group(group.url) else {}
            ome["image-label"] = {**stated, **source}
        elif spec.channel_names:
            ome["omero"] = ome_metadata.omero_json(spec)
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
    ome = ome_metadata.ome_of(group.attributes, group.version)
    name = label.url.rpartition("/")[2]
    listed = {**ome, "labels": [*(n for n in ome.get("labels", ()) if n != name), name]}
    attributes = {**group.attributes, **({"ome": listed} if group.version == 3 else listed)}
    write_node(Node(parent, group.version, group.kind, group.metadata, attributes))


def _ome(node: Node | None) -> dict[str, Any]:
    return {} if node is None else ome_metadata.ome_of(node.attributes, node.version)


class OmeZarr(ZarrStore):
    """The format of images, of whichever version is there, else 0.5."""

    written = True
    needs_voxel_size = True
    version: ClassVar[str | None] = None

    @classmethod
    def recognises(cls, url: str) -> bool:
        node = read_node(url)
        return node is not None and (node.kind == "group" or level_of(url) is not None)

    @classmethod
    def open(cls, url: str, opening: Opening) -> Store:
        return open_ome(url, opening)

    @classmethod
    def members(cls, url: str) -> Iterator[Member]:
        group = read_node(url)
        if group is None or group.kind == "array":
            return
        ome = _ome(group)
        names = [] if "multiscales" in ome else list(itertools.islice(listed_images(group), MOST_MEMBERS))
        names += [f"labels/{name}" for name in _ome(read_node(kvstore.join(url, "labels"))).get("labels", [])]
        if not names and "multiscales" not in ome:
            names = arrays_below(group) or []
        for name in names:
            node = read_node(kvstore.join(url, name))
            if node is not None and node.kind == "group":
                finest = _ome(node)["multiscales"][0]["datasets"][0]["path"]
                node = read_node(kvstore.join(node.url, finest))
            if node is not None:
                found = array_shape(node)
                yield Member(name, found.shape, found.dtype)

    @classmethod
    def create(cls, url: str, spec: VolumeSpec, mip: int, layout: Layout) -> Store:
        return create_ome(url, spec, mip, layout, version=cls.version)


class OmeZarr04(OmeZarr):
    """The format of images that are written as version 0.4; when they are read their version is found."""

    version = "0.4"

    @classmethod
    def recognises(cls, url: str) -> bool:  # noqa: ARG003
        return False
