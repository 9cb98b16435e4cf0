"""What the attributes of a zarr array say of its place and meaning: ours, chunkflow's, CREMI's, n5's and xarray's."""

from __future__ import annotations

from typing import Any

from daskflow.geometry import LAYER_TYPES, LayerType, VolumeSpec, Zyx
from daskflow.stores import kvstore
from daskflow.stores.placement import nm_per, parse_length, whole_voxels
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


def _per_axis(values: Any, axes: Axes) -> list[Any]:
    """Return the z, y and x entries of a list with one per stored axis, or per stored spatial axis; [] of others."""
    if not isinstance(values, list | tuple):
        return []
    if len(values) == len(axes.order) + (axes.time is not None):
        return [values[i] for i in axes.spatial]
    if len(values) == len(SPATIAL):
        return [values[sorted(axes.spatial).index(i)] for i in axes.spatial]
    return []
