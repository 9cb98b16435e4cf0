"""What an HDF5 file says of the axes, voxels and place of a dataset, in the words of those who write such files.

chunkflow (`voxel_size` and `voxel_offset` beside ``main``), CREMI (`resolution`, `offset`), ilastik and vigra
(`axistags`), PlantSeg (`element_size_um`), BigDataViewer (an XML file beside it), Imaris (extents), NetCDF and NeXus
(dimension scales and labels).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.stores.axes import as_text
from daskflow.stores.stated import Stated, numbers_in, stated_names, stated_size, unit_names

_CHANNEL_FLAG = 1


def stated_by(dataset: Any, file: Path) -> Stated:
    """Return what a file says of one of its datasets (h5py), in the order of the stored axes."""
    fields: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for group in (_ims(dataset), _bdv(dataset, file), _tags(dataset), _named_axes(dataset), _sizes(dataset)):
        for name, (value, source) in group.items():
            if name not in fields:
                fields[name] = value
                if source:
                    sources[name] = source
    return Stated(**fields, sources=sources)


Found = dict[str, tuple[Any, str]]


def _where(name: str, item: Any) -> str:
    return f"attribute {name} of {item.name}"


def _tags(dataset: Any) -> Found:
    """Return what the `axistags` of vigra and ilastik say: axes, and resolutions where `axis_units` has their units."""
    text = as_text(dataset.attrs.get("axistags"))
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
        tags = json.loads(text)["axes"] if text else []
        names = ["c" if tag.get("typeFlags") == _CHANNEL_FLAG else str(tag["key"]) for tag in tags]
        if len(names) != dataset.ndim:
            return {}
        found: Found = {"axes": (tuple(names), _where("axistags", dataset))}
        sizes = [tag.get("resolution") or None for tag in tags]
        if any(size for name, size in zip(names, sizes, strict=True) if name in "zyx"):
            units = json.loads(as_text(dataset.attrs.get("axis_units")) or "{}")
            stated = [as_text(tag.get("unit") or units.get(name)) for tag, name in zip(tags, names, strict=True)]
            found["voxel_size"] = (sizes, _where("axistags", dataset))
            found["units"] = (stated, "")
        return found
    return {}


def _named_axes(dataset: Any) -> Found:
    labels = _labels(dataset)
    if any(labels):
        return {"axes": (labels, f"dimension labels of {dataset.name}")}
    names, key = stated_names(dataset.attrs, dataset.ndim)
    if names:
        single = {"single_channel": (True, "")} if key == "axes" else {}
        return {"axes": (names, _where(key, dataset)), **single}
    if dataset.ndim == 4 and _beside(dataset, "voxel_offset") is not None:
        source = f"voxel_offset beside {dataset.name}, as chunkflow writes it"
        return {"axes": (tuple("czyx"), source), "single_channel": (True, "")}
    return {}


def _labels(dataset: Any) -> tuple[str, ...]:
    """Return the labels or scales of the dimensions; h5py's own crash on those that others have not written as HDF5."""
    stated = np.ravel(dataset.attrs.get("DIMENSION_LABELS", []))
    labels = map(as_text, stated if len(stated) == dataset.ndim else [""] * dataset.ndim)
    return tuple(label or _scale_name(dataset, axis) for axis, label in enumerate(labels))


def _scale_name(dataset: Any, axis: int) -> str:
    """Return the name of the dimension scale that NetCDF attaches to an axis, if any."""
    with contextlib.suppress(RuntimeError, KeyError, IndexError, OSError, TypeError, ValueError):
        scale = dataset.attrs.get("DIMENSION_LIST", ())[axis][0]
        if type(scale).__name__ == "Reference":
            return str(dataset.file[scale].name).rpartition("/")[2]
    return ""


def _sizes(dataset: Any) -> Found:
    found: Found = {}
    for item in _outwards(dataset):
        attributes = item.attrs
        stated = stated_size(attributes)
        if stated is not None and "voxel_size" not in found:
            size, units, name = stated
            found["voxel_size"] = (size, _where(name, item))
            found["units"] = (_words(units), "")
        voxels, position = (numbers_in(attributes.get(key)) for key in ("voxel_offset", "offset"))
        if voxels is not None:
            found.setdefault("voxel_offset", (voxels, _where("voxel_offset", item)))
        elif position is not None and "voxel_offset" not in found:
            found["position"] = (position, "")
            units = next((attributes[unit] for unit in unit_names("offset") if unit in attributes), "nm")
            found["position_units"] = (_words(units), "")
            found["voxel_offset"] = (None, _where("offset", item))
        for key in ("layer_type", "channel_names"):
            if key in attributes:
                value = as_text(attributes[key]) if key == "layer_type" else _words(np.ravel(attributes[key]))
                found.setdefault(key, (value, _where(key, item)))
    if "/labels/" in dataset.name:
        found.setdefault("layer_type", ("segmentation", f"the name {dataset.name}, as CREMI has it"))
    beside, start = _beside(dataset, "voxel_size"), _beside(dataset, "voxel_offset")
    if beside is not None and "voxel_size" not in found:
        found["voxel_size"] = (beside, f"voxel_size beside {dataset.name}")
        found["units"] = ("nm", "")
    if start is not None and "voxel_offset" not in found:
        found["voxel_offset"] = (start, f"voxel_offset beside {dataset.name}")
    return found


def _outwards(dataset: Any) -> Iterator[Any]:
    """Yield a dataset and the groups that hold it, up to the root."""
    item = dataset
    while True:
        yield item
        if item.name == "/" or item.name is None:
            return
        item = item.parent


def _words(values: Any) -> str | list[str]:
    return as_text(values) if isinstance(values, str | bytes) else [as_text(value) for value in np.ravel(values)]


def _beside(dataset: Any, name: str) -> list[float] | None:
    """Return three numbers in the dataset `name` of the same group, as chunkflow places them."""
    group = dataset.parent
    found = numbers_in(group[name][()]) if name in group and hasattr(group[name], "chunks") else None
    return found if found is not None and len(found) == 3 else None


def _ims(dataset: Any) -> Found:
    """Return what an Imaris file says: the extents of the image, in its unit, over the voxels of its level."""
    image = dataset.file.get("DataSetInfo/Image")
    if image is None or not dataset.name.startswith("/DataSet/"):
        return {}
    with contextlib.suppress(ValueError, KeyError):
        low = [float(_joined(image.attrs[f"ExtMin{axis}"])) for axis in (2, 1, 0)]
        high = [float(_joined(image.attrs[f"ExtMax{axis}"])) for axis in (2, 1, 0)]
        size = [(b - a) / n for a, b, n in zip(low, high, _image_size(dataset), strict=True)]
        unit = _joined(image.attrs.get("Unit", b"um"))
        return {
            "axes": (tuple("zyx"), "Imaris"),
            "voxel_size": (size, "extents of DataSetInfo/Image (Imaris)"),
            "units": (unit, ""),
        }
    return {}


def image_shape(dataset: Any) -> tuple[int, ...]:
    """Return the shape of the image in a dataset, which Imaris pads to whole chunks."""
    padded: tuple[int, ...] = dataset.shape
    with contextlib.suppress(ValueError, KeyError):
        if dataset.name.startswith("/DataSet/") and len(padded) == 3:
            return tuple(min(max(n, 1), most) for n, most in zip(_image_size(dataset), padded, strict=True))
    return padded


def _image_size(dataset: Any) -> list[int]:
    """Return the voxels of an image of Imaris (zyx), without what pads it."""
    return [int(_joined(dataset.parent.attrs[f"ImageSize{axis}"])) for axis in "ZYX"]


def _joined(value: Any) -> str:
    """Return a text that Imaris keeps as an array of single characters."""
    return as_text(b"".join(value)) if np.ndim(value) else as_text(value)


def as_written(dataset: Any) -> np.dtype[Any]:
    """Return the type that voxels were written as: BigDataViewer keeps uint16 as int16, bit by bit."""
    dtype: np.dtype[Any] = dataset.dtype
    return np.dtype(dtype.str.replace("i2", "u2")) if _bdv_level(dataset) else dtype


def _bdv_level(dataset: Any) -> list[str]:
    """Return the parts of the name of a level of BigDataViewer, such as ``t00000/s00/0/cells``; [] of others."""
    parts: list[str] = dataset.name.strip("/").split("/")
    return parts if len(parts) == 4 and parts[3] == "cells" and f"{parts[1]}/resolutions" in dataset.file else []


def _bdv(dataset: Any, file: Path) -> Found:
    """Return what BigDataViewer keeps of a level: factors in the file, voxel sizes in the XML file beside it."""
    parts = _bdv_level(dataset)
    if not parts:
        return {}
    from xml.etree import ElementTree as ET

    axes: Found = {"axes": (tuple("zyx"), "BigDataViewer")}
    factors = np.asarray(dataset.file[f"{parts[1]}/resolutions"])[int(parts[2])][::-1]
    xml = file.with_suffix(".xml")
    if not xml.is_file():
        return {**axes, "voxel_size": (None, f"BigDataViewer keeps it in {xml.name}, which is not beside the file")}
    with contextlib.suppress(ET.ParseError, ValueError):
        root = ET.parse(xml).getroot()  # noqa: S314 (expat bounds the expansion of entities)
        number = str(int(parts[1].removeprefix("s")))
        setups = (one for one in root.iter("ViewSetup") if one.findtext("id", "").strip() == number)
        setup = next(setups, root)
        size = [float(n) for n in setup.findtext("voxelSize/size", "").split()][::-1]
        unit = setup.findtext("voxelSize/unit", "")
        if len(size) == 3:
            stated = [s * f for s, f in zip(size, factors.tolist(), strict=True)]
            return {**axes, "voxel_size": (stated, f"voxelSize in {xml.name}"), "units": (unit, "")}
    return axes
