"""What the attributes of a zarr array say of its place and meaning: ours, chunkflow's, CREMI's, n5's and xarray's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daskflow.geometry import LAYER_TYPES, LayerType, VolumeSpec, Zyx
from daskflow.stores import kvstore
from daskflow.stores.placement import whole_voxels
from daskflow.stores.units import nm_per, parse_length
from daskflow.stores.zarr_metadata import SPATIAL, Axes, Node

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


def stated_layer_type(attributes: dict[str, Any]) -> LayerType | None:
    """Return the layer type in a node's attributes, ours or chunkflow's; None when there is no known one."""
    stated = own(attributes).get("layer_type", attributes.get("layer_type"))
    return next((known for known in LAYER_TYPES if known == stated), None)


def stated_voxel_size(attributes: dict[str, Any], axes: Axes) -> tuple[float, float, float] | None:
    """Return the voxel size (nm, zyx) in an array's attributes, None when they have none."""
    units = _per_axis(attributes.get("units"), axes)
    factors = [nm_per(str(unit)) or 1.0 for unit in units] if units else [1.0, 1.0, 1.0]
    for key in ("voxel_size", "resolution"):
        values = _per_axis(attributes.get(key), axes)
        if values:
            z, y, x = (float(value) * factor for value, factor in zip(values, factors, strict=True))
            return z, y, x
    n5 = attributes.get("pixelResolution")
    if isinstance(n5, dict) and len(n5.get("dimensions", ())) == 3:
        z, y, x = (float(d) * (nm_per(n5.get("unit")) or 1.0) for d in reversed(n5["dimensions"]))
        return z, y, x
    lengths = [parse_length(str(text)) for text in _per_axis(attributes.get("dimension_units"), axes)]
    if lengths and all(lengths):
        z, y, x = (length or 1.0 for length in lengths)
        return z, y, x
    return None


def stated_offset(node: Node, axes: Axes) -> Zyx:
    """Return the first voxel (zyx) that an array's attributes state, in voxels or as a position; zeros without."""
    attributes = node.attributes
    voxels = _per_axis(attributes.get("voxel_offset"), axes)
    if not voxels:
        physical = _per_axis(attributes.get("offset"), axes) or [0, 0, 0]
        units = _per_axis(attributes.get("units"), axes)
        factors = [nm_per(str(unit)) or 1.0 for unit in units] if units else [1.0, 1.0, 1.0]
        size = stated_voxel_size(attributes, axes) or (1.0, 1.0, 1.0)
        voxels = [float(p) * f / s for p, f, s in zip(physical, factors, size, strict=True)]
    return whole_voxels([float(v) for v in voxels], kvstore.redact(node.url))


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
    places = {"voxel_size": size, "offset": corner, "dimension_units": nm}
    stated |= {key: _with_zyx(attributes[key], new, axes) for key, new in places.items() if key in attributes}
    if "pixelResolution" in attributes:
        stated["pixelResolution"] = {"unit": "nm", "dimensions": list(reversed(size))}
    return stated


def _with_zyx(values: Any, zyx: Sequence[Any], axes: Axes) -> list[Any]:
    """Return a list as `_per_axis` reads it, with other entries for z, y and x."""
    count = len(axes.order) + (axes.time is not None)
    if isinstance(values, list | tuple) and len(values) == count:
        changed = list(values)
        for index, value in zip(axes.spatial, zyx, strict=True):
            changed[index] = value
        return changed
    return [zyx[axes.spatial.index(index)] for index in sorted(axes.spatial)]


def _per_axis(values: Any, axes: Axes) -> list[Any]:
    """Return the z, y and x entries of a list with one per stored axis, or per stored spatial axis; [] of others."""
    if not isinstance(values, list | tuple):
        return []
    if len(values) == len(axes.order) + (axes.time is not None):
        return [values[i] for i in axes.spatial]
    if len(values) == len(SPATIAL):
        return [values[sorted(axes.spatial).index(i)] for i in axes.spatial]
    return []
