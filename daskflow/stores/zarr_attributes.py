"""What the attributes of a zarr array say of its place and meaning: ours, chunkflow's, CREMI's, n5's and xarray's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daskflow.geometry import VolumeSpec
from daskflow.stores.attributes import SIZES, stated_names, stated_size, unit_names
from daskflow.stores.axes import SPATIAL, Axes, axis_names, name_of
from daskflow.stores.stated import Stated
from daskflow.stores.units import in_nm, nm_per, parse_length
from daskflow.stores.zarr_nodes import Node

OWN_KEY = "daskflow"


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
        "attribute transform": _object(attributes.get("transform")).get("axes"),
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
    transform = _object(attributes.get("transform"))
    if axes.pick(transform.get("scale")):
        return transform["scale"], transform.get("units", "nm"), "attribute transform"
    n5 = attributes.get("pixelResolution")
    dimensions = _object(n5).get("dimensions") if isinstance(n5, dict) else n5
    if isinstance(dimensions, list) and len(dimensions) == len(SPATIAL):
        unit = _object(n5).get("unit", "nm") if isinstance(n5, dict) else "nm"
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
    transform = _object(attributes.get("transform"))
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


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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
    stated["voxel_offset"] = _with_zyx(attributes.get("voxel_offset"), start, axes)
    if spec.voxel_size is None:
        return stated
    stated["resolution"] = _with_zyx(attributes.get("resolution"), size, axes)
    stated["units"] = _with_zyx(attributes.get("units"), ["nm"] * 3, axes)
    places: dict[str, list[Any]] = {"offset": corner, "dimension_units": nm}
    stated |= {key: _with_zyx(attributes[key], new, axes) for key, new in places.items() if key in attributes}
    if axes.pick(_object(attributes.get("transform")).get("scale")):
        transform = attributes["transform"]
        moved = {"scale": size, "translate": corner, "units": ["nm"] * 3}
        stated["transform"] = transform | {key: _with_zyx(transform.get(key), new, axes) for key, new in moved.items()}
    for key in (key for key in attributes if key.lower() in SIZES):
        unit = nm_per(SIZES[key.lower()]) or 1
        stated[key] = _with_zyx(attributes[key], [in_nm(s, 1 / unit) for s in size], axes)
        stated |= {other: stated["units"] for other in attributes if other.lower() in unit_names(key.lower())}
    if "pixelResolution" in attributes:
        stated["pixelResolution"] = {"unit": "nm", "dimensions": list(reversed(size))}
    return stated


def _with_zyx(values: Any, zyx: Sequence[Any], axes: Axes) -> list[Any]:
    """Return a list as `Axes.pick` reads it, with other entries for z, y and x."""
    count = len(axes.order) + len(axes.fixed)
    if isinstance(values, list | tuple) and len(values) == count and -1 not in axes.order:
        changed = list(values)
        for index, value in zip(axes.spatial, zyx, strict=True):
            changed[index] = value
        return changed
    return [zyx[axes.spatial.index(index)] for index in sorted(axes.spatial)]
