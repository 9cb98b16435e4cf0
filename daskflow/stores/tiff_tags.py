"""What a TIFF file says of its voxels, in ImageJ's, OME's or our tags, and how we say it."""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from daskflow.errors import ParameterError
from daskflow.geometry import LAYER_TYPES, LayerType, VolumeSpec, Zyx, as_zyx
from daskflow.stores.units import nm_per

logger = logging.getLogger(__name__)

_NAMESPACE = "daskflow"
_OWN = f'{{"{_NAMESPACE}": '
_OME_DTYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")
_PLAIN_DTYPES = ("int64", "uint64", "float16")
_CENTIMETER_NM = 1e7


@dataclass(frozen=True)
class Tags:
    """What a file says of its voxels.

    Attributes:
        voxel_size: nm (zyx), None when the file does not say all three.
        source: where the voxel size was found, for people.
        pages: how many pages there should be, None when the file does not say.
        voxel_offset: zyx.
        layer_type: image, segmentation, ..., or None.
        channel_names: one per channel, or empty.
        channels: size of the channel axis, in files that we wrote; None for all others.
    """

    voxel_size: tuple[float, float, float] | None
    source: str
    pages: int | None = None
    voxel_offset: Zyx | None = None
    layer_type: LayerType | None = None
    channel_names: tuple[str, ...] = ()
    channels: int | None = None


def read_tags(tif: Any) -> Tags:
    """Return what an open tifffile.TiffFile says of its voxels."""
    if tif.is_ome:
        return _ome(tif.ome_metadata)
    if tif.is_imagej:
        return _imagej(tif)
    description = tif.pages[0].description
    if description.startswith(_OWN):
        note = json.loads(description)[_NAMESPACE]
        return _with_note(Tags(_triple(note.get("voxel_size")), "our own tags"), note)
    return _plain(tif.pages[0])


def _triple(values: Any) -> tuple[float, float, float] | None:
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(values):
        return None
    z, y, x = (float(value) for value in values)
    return z, y, x


def _ome(text: str) -> Tags:
    root = ET.fromstring(text)  # noqa: S314 (expat bounds the expansion of entities)
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return Tags(None, "OME tags")
    sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    units = [nm_per(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "ZYX"]
    voxel_size = _triple([float(s) * u if s and u else None for s, u in zip(sizes, units, strict=True)])
    names = tuple(channel.get("Name", "") for channel in pixels.findall("{*}Channel"))
    note = {
        item.get("K", ""): json.loads(item.text or "null")
        for annotation in root.findall(".//{*}MapAnnotation")
        if annotation.get("Namespace") == _NAMESPACE
        for item in annotation.iter()
        if item.tag.endswith("}M")
    }
    tags = Tags(voxel_size, "OME tags", channel_names=names if any(names) else ())
    return _with_note(tags, note)


def _with_note(tags: Tags, note: dict[str, Any]) -> Tags:
    offset = note.get("voxel_offset")
    return Tags(
        tags.voxel_size,
        tags.source,
        voxel_offset=None if offset is None else as_zyx(offset, name="voxel_offset"),
        layer_type=next((known for known in LAYER_TYPES if known == note.get("layer_type")), None),
        channel_names=tuple(note.get("channel_names", tags.channel_names)),
        channels=note.get("channels") or None,
    )


def _imagej(tif: Any) -> Tags:
    stated = tif.imagej_metadata or {}
    unit = nm_per(str(stated.get("unit", "")))
    spacing = stated.get("spacing")
    y, x = (_per_unit(tif.pages[0], axis) for axis in "YX")
    sizes = [abs(float(spacing)) * unit, unit / y, unit / x] if unit and spacing and y and x else None
    return Tags(_triple(sizes), "ImageJ tags", pages=stated.get("images"))


def _per_unit(page: Any, axis: str) -> float:
    """Return the resolution tag of an axis: pixels per unit, 0 when there is none."""
    tag = page.tags.get(f"{axis}Resolution")
    if tag is None:
        return 0.0
    pixels, units = tag.value
    return float(pixels / units) if units else 0.0


def _plain(page: Any) -> Tags:
    """Plain resolution tags know nothing of the third axis, and are mostly the printer's: they are only told of."""
    tag = page.tags.get("ResolutionUnit")
    unit = {2: nm_per("inch"), 3: nm_per("cm")}.get(tag.value if tag else 1)
    y, x = (_per_unit(page, axis) for axis in "YX")
    if unit and y and x:
        return Tags(None, f"resolution tags say {unit / y:.6g} x {unit / x:.6g} nm (yx), and nothing of the thickness")
    return Tags(None, "no tags")


def write_options(spec: VolumeSpec) -> dict[str, Any]:
    """Return the arguments of tifffile's writer that say what the voxels are: OME-TIFF where it has the dtype.

    Pages go section by section, and within a section channel by channel (axes ZCYX), as ImageJ orders them.

    Raises:
        ParameterError: a dtype that TIFF files do not hold.
    """
    if spec.dtype.name not in _OME_DTYPES + _PLAIN_DTYPES:
        raise ParameterError(f"TIFF files here cannot hold {spec.dtype}; cast with astype('uint8')")
    note: dict[str, Any] = {"voxel_offset": spec.box.start, "layer_type": spec.layer_type, "channels": spec.channels}
    if spec.channel_names:
        note["channel_names"] = spec.channel_names
    common: dict[str, Any] = {"photometric": "minisblack"}
    physical: dict[str, Any] = {}
    if spec.voxel_size is not None:
        y, x = (_CENTIMETER_NM / size for size in spec.voxel_size[1:])
        common |= {"resolution": (x, y), "resolutionunit": "CENTIMETER"}
        physical = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", spec.voxel_size, strict=True)}
        physical |= {f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"}
    if spec.dtype.name in _PLAIN_DTYPES:
        said = json.dumps({_NAMESPACE: {**note, "voxel_size": spec.voxel_size}})
        return {**common, "metadata": None, "description": said}
    axes = "ZYX" if spec.channels is None else "ZCYX"
    annotation = {"Namespace": _NAMESPACE, **{key: json.dumps(value) for key, value in note.items()}}
    names = {"Channel": {"Name": list(spec.channel_names)}} if spec.channel_names else {}
    same = str(uuid.uuid5(uuid.NAMESPACE_URL, repr(spec)))
    return {
        **common,
        "metadata": {"axes": axes, "UUID": same, **physical, **names, "MapAnnotation": annotation},
    }


def is_ome(spec: VolumeSpec) -> bool:
    """Return whether OME-TIFF has the dtype."""
    return spec.dtype.name in _OME_DTYPES
