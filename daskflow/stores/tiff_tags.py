"""What a TIFF file says of its voxels, in ImageJ's, OME's or our tags, and how we say it."""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from daskflow.errors import ParameterError
from daskflow.geometry import VolumeSpec
from daskflow.stores.stated import Stated
from daskflow.stores.units import as_text, nm_per

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

logger = logging.getLogger(__name__)

_NAMESPACE = "daskflow"
_OWN = f'{{"{_NAMESPACE}": '
_OME_DTYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")
_PLAIN_DTYPES = ("int64", "uint64", "float16")
_CENTIMETER_NM = 1e7
_SCREEN = (72.0, 72.0)


@dataclass(frozen=True)
class Tags:
    """What a file says of its voxels.

    Attributes:
        stated: sizes, place and meaning, zyx.
        pages: how many pages there should be, None when the file does not say.
        described: planes by sections, channels and time points, as OME tags say.
        channels: size of the channel axis, in files that we wrote; None for all others.
    """

    stated: Stated
    pages: int | None = None
    described: str = ""
    channels: int | None = None


def read_tags(tif: Any) -> Tags:
    """Return what an open tifffile.TiffFile says of its voxels."""
    if tif.is_ome:
        return ome_tags(parsed(tif.ome_metadata))
    if tif.is_imagej:
        return _imagej(tif)
    description = tif.pages[0].description
    if description.startswith(_OWN):
        note = json.loads(description)[_NAMESPACE]
        return _with_note(Tags(Stated(voxel_size=note.get("voxel_size"), sources={"voxel_size": "our own tags"})), note)
    for said in tif.shaped_metadata or ():
        return Tags(_of_tifffile(tif.pages[0], said))
    return Tags(Stated(sources={"voxel_size": _plain(tif.pages[0])}))


def parsed(text: str) -> Element:
    """Return the root of OME's XML; ElementTree.ParseError is a SyntaxError."""
    from xml.etree import ElementTree as ET

    return ET.fromstring(text)  # noqa: S314 (expat bounds the expansion of entities)


def ome_tags(root: Element) -> Tags:
    """Return what the XML of an OME-TIFF says of its first image."""
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return Tags(Stated(sources={"voxel_size": "OME tags without pixels"}))
    names = tuple(channel.get("Name", "") for channel in pixels.findall("{*}Channel"))
    note = {
        item.get("K", ""): json.loads(item.text or "null")
        for annotation in root.findall(".//{*}MapAnnotation")
        if annotation.get("Namespace") == _NAMESPACE
        for item in annotation.iter()
        if item.tag.endswith("}M")
    }
    sizes, units = _physical(pixels)
    stated = Stated(
        voxel_size=sizes if any(sizes) else None,
        units=units,
        channel_names=names if any(names) else (),
        sources={"voxel_size": "OME tags" if any(sizes) else "OME tags without sizes", "channel_names": "OME tags"},
    )
    return _with_note(Tags(stated, described=" x ".join(pixels.get(f"Size{axis}", "?") for axis in "ZCT")), note)


def _physical(said: Any) -> tuple[list[Any], list[Any]]:
    """Return the lengths of a voxel (zyx) as OME names them, and their units."""
    return [said.get(f"PhysicalSize{axis}") for axis in "ZYX"], [said.get(f"PhysicalSize{a}Unit", "µm") for a in "ZYX"]


def _of_tifffile(page: Any, said: dict[str, Any]) -> Stated:
    """Return what the description says that tifffile writes outside OME and ImageJ files: names of either, as given."""
    source = {"axes": "TIFF tags"} if said.get("axes") else {}
    sizes, units = _physical(said)
    if any(sizes):
        return Stated(voxel_size=sizes, units=units, sources={**source, "voxel_size": "tags PhysicalSize of tifffile"})
    if said.get("unit") is None:
        return Stated(sources={**source, "voxel_size": _plain(page)})
    y, x = (_per_unit(page, axis) for axis in "YX")
    sizes = [said.get("spacing"), y and 1 / y, x and 1 / x]
    where = "tags unit, spacing of tifffile"
    return Stated(voxel_size=sizes, units=as_text(said["unit"]), sources={**source, "voxel_size": where})


def _with_note(tags: Tags, note: dict[str, Any]) -> Tags:
    """Return tags with what daskflow itself wrote beside them."""
    ours = {"voxel_offset": "our own tags", "layer_type": "our own tags"}
    stated = replace(
        tags.stated,
        voxel_offset=note.get("voxel_offset"),
        layer_type=note.get("layer_type"),
        channel_names=tuple(note.get("channel_names", tags.stated.channel_names)),
        sources={"channel_names": "our own tags", **tags.stated.sources, **(ours if note else {})},
    )
    return replace(tags, stated=stated, channels=note.get("channels") or None)


def _imagej(tif: Any) -> Tags:
    """Return what ImageJ's tags say: lengths of a pixel in `unit`, and sections `spacing` or 1 unit apart.

    One section alone, as in a directory of them, has no thickness unless its tags say so.
    """
    said = tif.imagej_metadata or {}
    unit, where = as_text(said.get("unit")), "ImageJ tags unit, spacing"
    y, x = (_per_unit(tif.pages[0], axis) for axis in "YX")
    if not unit and (x, y) != _SCREEN:
        unit, where = _resolution_unit(tif.pages[0]), "ImageJ tags ResolutionUnit, spacing"
    sections = said.get("images", 1) // (said.get("channels", 1) * said.get("frames", 1) or 1)
    z = abs(_number(said.get("spacing", 1 if sections > 1 else None)))
    if "spacing" not in said:
        where = where.replace("spacing", f"no spacing{', which ImageJ takes as 1 unit' if z else ''}")
    stated = Stated(
        voxel_size=[z, y and 1 / y, x and 1 / x],
        units=[as_text(said.get("zunit")) or unit, as_text(said.get("yunit")) or unit, unit],
        sources={"voxel_size": where},
    )
    return Tags(stated, pages=said.get("images"))


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _per_unit(page: Any, axis: str) -> float:
    """Return the resolution tag of an axis: pixels per unit, 0 when there is none."""
    tag = page.tags.get(f"{axis}Resolution")
    if tag is None:
        return 0.0
    pixels, units = tag.value
    return float(pixels / units) if units else 0.0


def _resolution_unit(page: Any) -> str:
    tag = page.tags.get("ResolutionUnit")
    return {2: "inch", 3: "cm"}.get(int(tag.value) if tag else 1, "")


def _plain(page: Any) -> str:
    """Plain resolution tags know nothing of the third axis, and are mostly the printer's: they are only told of."""
    unit = nm_per(_resolution_unit(page))
    y, x = (_per_unit(page, axis) for axis in "YX")
    if unit and y and x:
        return f"resolution tags say {unit / y:.6g} x {unit / x:.6g} nm (yx), and nothing of the thickness"
    return "no tags"


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
