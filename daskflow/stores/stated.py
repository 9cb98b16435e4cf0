"""What a source and its reader state of an array, settled into a spec, and where each part of it comes from.

Here are the names by which attributes in HDF5 and zarr state axes and sizes of voxels, and the units of length.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskflow.geometry import LAYER_TYPES, BoundingBox, LayerType, VolumeSpec, Zyx, as_zyx
from daskflow.geometry.spec import VoxelSize
from daskflow.stores.axes import SPATIAL, Axes, as_text, axis_names
from daskflow.stores.base import Opening

_METRE = 1e9
_METRES = ("meter", "metre")
_INCH = 2.54e7
_PREFIXES = """
Y yotta 24, Z zetta 21, E exa 18, P peta 15, T tera 12, G giga 9, M mega 6, k kilo 3, h hecto 2, da deca 1, d deci -1,
c centi -2, m milli -3, u micro -6, n nano -9, p pico -12, f femto -15, a atto -18, z zepto -21, y yocto -24
"""
_POWERS = {prefix: (symbol, power) for symbol, prefix, power in map(str.split, _PREFIXES.split(","))} | {"": ("", 0)}
_SYMBOLS = {f"{symbol}m": float(f"1e{int(power) + 9}") for symbol, power in _POWERS.values()}
_NAMES = {
    **{f"{prefix}{metre}": _SYMBOLS[f"{symbol}m"] for prefix, (symbol, _) in _POWERS.items() for metre in _METRES},
    **dict.fromkeys(("dekameter", "dekametre"), 1e10),
    **dict.fromkeys(("micron", "u", "micro-meter"), 1e3),
    **dict.fromkeys(("angstrom", "ångström", "angström", "ångstrom", "å", "a"), 0.1),
    **dict.fromkeys(("inch", "inche", "in", '"'), _INCH),
    **dict.fromkeys(("thou", "thousandth", "thousandth of an inch", "mil"), _INCH / 1000),
    **dict.fromkeys(("li", "line"), _INCH / 12),
    **dict.fromkeys(("pt", "point"), _INCH / 72),
    **dict.fromkeys(("ft", "foot", "feet"), 12 * _INCH),
    **dict.fromkeys(("yd", "yard"), 36 * _INCH),
    **dict.fromkeys(("mi", "mile"), 63360 * _INCH),
    **dict.fromkeys(("ua", "au", "astronomical unit"), 149597870700 * _METRE),
    **dict.fromkeys(("ly", "light year", "lightyear"), 9460730472580800 * _METRE),
    **dict.fromkeys(("pc", "parsec"), 3.0856775814913673e16 * _METRE),
}
_NO_LENGTH = ("", "pixel", "pixels", "px", "voxel", "voxels", "reference frame", "none", "unknown", "arbitrary", "unit")
_LENGTH = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(\D*?)\s*")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")  # as ImageJ writes what is not ASCII
_MICRO = {"Âµ": "u", "Î¼": "u", "µ": "u", "μ": "u"}
_AXES = (
    *("axes", "axis_names", "axis_order", "axisorder", "axes_order", "axis_labels", "axistags", "dims", "dim_order"),
    *("dimension_order", "dimension_names", "dimension_labels", "_array_dimensions"),
)
_BARE = ("element_size", "voxel_size", "pixel_size", "resolution")
_UNITS = ("units", "unit", "resolution_units", "resolution_unit", "voxel_size_units", "voxel_size_unit")
SIZES = {
    **{f"{name}_um": "um" for name in _BARE},
    **{f"{name}_nm": "nm" for name in _BARE},
    **dict.fromkeys(("resolution", "voxel_size", "element_size", "pixel_size", "voxelsize", "spacing"), ""),
}
_IN_NM = ("resolution", "voxel_size")  # as CREMI, chunkflow and daisy have them
logger = logging.getLogger(__name__)
NOT_STATED = "not stated"
_TOLERANCE = 1e-3  # of a voxel


def nm_per(unit: Any) -> float | None:
    """Return the nm in one `unit`, by any of its names, e.g. "nanometer", "nm", "µm"; None if it is not a length.

    Known are all units of length of OME-TIFF and OME-Zarr. A symbol is first read as it is written, so that ``Mm`` is
    a megametre and ``mm`` a millimetre, and then in any case.
    """
    unescaped = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), as_text(unit))
    name = unicodedata.normalize("NFC", unescaped)
    for spelling, plain in _MICRO.items():
        name = name.replace(spelling, plain)
    lower = name.lower()
    for candidate in (name, lower):
        if candidate in _SYMBOLS:
            return _SYMBOLS[candidate]
    return _NAMES.get(lower, _NAMES.get(lower.removesuffix("s")))


def is_no_length(unit: Any) -> bool:
    """Return whether a unit says that lengths are not known, as "pixel" does, rather than being misspelt."""
    return as_text(unit).lower() in _NO_LENGTH


def in_nm(value: float, unit_nm: float) -> float:
    """Return a length in nm without the noise of the last digits, so that 0.0081 um is 8.1 nm."""
    return value if unit_nm == 1 else float(f"{value * unit_nm:.12g}")


def parse_length(text: str) -> float | None:
    """Return the nm that a text such as ``"4 nm"`` or ``"0.5 um"`` stands for, None if it is not a length."""
    match = _LENGTH.fullmatch(text)
    unit = nm_per(match[2]) if match else None
    return in_nm(float(match[1]), unit) if match and unit else None


def stated_names(attributes: Mapping[str, Any], ndim: int) -> tuple[tuple[str, ...], str]:
    """Return the names of axes, `ndim` of them if any attribute has so many, and the attribute that states them."""
    keys = _in_any_case(attributes)
    known = [keys[name] for name in _AXES if name in keys]
    stated = [(names, key) for key in known if any(map(str.isalpha, names := axis_names(attributes[key])))]
    return next((one for one in stated if len(one[0]) == ndim), stated[0] if stated else ((), ""))


def stated_size(attributes: Mapping[str, Any]) -> tuple[list[float], Any, str] | None:
    """Return the lengths of a voxel, their units and the attribute that states them; None where none does."""
    keys = _in_any_case(attributes)
    for name, unit in ((name, unit) for name, unit in SIZES.items() if name in keys):
        size = _lengths(attributes[keys[name]])
        if size is not None:
            beside = next((attributes[keys[key]] for key in unit_names(name) if key in keys), None)
            return size, unit or ("nm" if beside is None and name in _IN_NM else beside), keys[name]
    return None


def _in_any_case(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of attributes by those in small letters, where one that has only such comes first."""
    return {key.lower(): key for key in attributes} | {key: key for key in attributes}


def unit_names(name: str) -> tuple[str, ...]:
    """Return the attributes that may hold the units of the size `name`."""
    return (f"{name}_units", f"{name}_unit", *_UNITS)


def _lengths(value: Any) -> list[float] | None:
    """Return three or more numbers, where one alone stands for all axes; None for anything else."""
    found = numbers_in(value, least=1)
    return found * 3 if found is not None and len(found) == 1 else numbers_in(value)


def numbers_in(value: Any, least: int = 3) -> list[float] | None:
    """Return at least so many numbers, as a list or written as text; None for anything else."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str | bytes):
        value = as_text(value).strip("()[]").replace(",", " ").split()
    try:
        numbers: list[float] = np.asarray(value, float).ravel().tolist()
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) >= least else None


@dataclass(frozen=True)
class Stated:
    """What a source says of an array, in its own order, words and units; None or empty where it says nothing.

    Numbers and units are one per stored axis, or one per stored axis of space.

    Attributes:
        axes: names of the stored axes, as `axes.find_axes` takes them.
        voxel_size: in `units`; None for an axis of which the source says nothing.
        units: one for all axes, or one per axis.
        voxel_offset: of the first voxel, in voxels.
        position: of the first voxel's corner, in `position_units`; `voxel_offset` wins.
        position_units: as `units`; by default those of the voxel size.
        layer_type: the word that the source has for it.
        channel_names: one per channel.
        single_channel: whether a channel axis of length 1 is meant, not left over.
        sources: where each of these was found, in words, by the name of the field, e.g. ``{"voxel_size": "OME tags"}``.
    """

    axes: tuple[str, ...] = ()
    voxel_size: Sequence[float | None] | None = None
    units: str | Sequence[str | None] | None = "nm"
    voxel_offset: Sequence[float] | None = None
    position: Sequence[float] | None = None
    position_units: str | Sequence[str | None] | None = None
    layer_type: str | None = None
    channel_names: Sequence[str] = ()
    single_channel: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)


def settle(
    stated: Stated,
    axes: Axes,
    opening: Opening,
    *,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    url: str,
    chunk: Sequence[int] | None = None,
    shard: Sequence[int] | None = None,
) -> tuple[VolumeSpec, dict[str, str]]:
    """Return the spec of an array, in which what `opening` states wins, and where each part of it comes from.

    Shape, chunk and shard are elements per stored axis. There are a few words each for axes, voxel_size, voxel_offset,
    layer_type and channel_names.
    """
    found, why = voxel_size_of(stated, axes)
    size = opening.voxel_size or found
    start, whence = _start(stated, axes, found or size, url)
    channels = None if axes.channel is None else shape[axes.channel]
    names = tuple(map(as_text, stated.channel_names)) if len(stated.channel_names) == (channels or 1) else ()
    spec = VolumeSpec(
        BoundingBox.from_size(opening.voxel_offset or start, axes.zyx(shape)),
        dtype.newbyteorder("="),
        channels=channels,
        voxel_size=size,
        chunk=None if chunk is None else axes.zyx(chunk),
        shard=None if shard is None else axes.zyx(shard),
        layer_type=opening.layer_type or known_layer_type(stated.layer_type),
        channel_names=names,
    )
    sources = {
        "axes": _axes_source(stated, opening),
        "voxel_size": _option("voxel_size", opening) or why,
        "voxel_offset": _option("voxel_offset", opening) or whence,
        "layer_type": _option("layer_type", opening)
        or (stated.sources.get("layer_type", NOT_STATED) if spec.layer_type else NOT_STATED),
        "channel_names": stated.sources.get("channel_names", NOT_STATED) if names else NOT_STATED,
    }
    _tell(url, size, sources["voxel_size"])
    return spec, sources


def known_layer_type(word: Any) -> LayerType | None:
    """Return the layer type that a source's word stands for, None for other words."""
    return next((known for known in LAYER_TYPES if known == as_text(word)), None)


def voxel_size_of(stated: Stated, axes: Axes) -> tuple[VoxelSize | None, str]:
    """Return the voxel size (nm, zyx) that a source states and where, or None and the reason why it is not known."""
    said = stated.sources.get("voxel_size", "")
    values = axes.pick(stated.voxel_size)
    if not values:
        return None, f"{NOT_STATED} ({said})" if said else NOT_STATED
    units = _per_axis(stated.units, axes)
    factors = [nm_per(unit) for unit in units]
    numbers = [_number(value) for value in values]
    sizes = [n and f and in_nm(n, f) for n, f in zip(numbers, factors, strict=True)]
    if all(sizes):
        z, y, x = (float(size or 0) for size in sizes)
        return (z, y, x), said
    parts = [
        f"{axis} {'?' if number is None else f'{number:g}'} {unit!r}"
        if factor is None or number is None
        else f"{axis} {in_nm(number, factor):g} nm"
        for axis, number, unit, factor in zip(SPATIAL, numbers, map(as_text, units), factors, strict=True)
    ]
    return None, f"{NOT_STATED} in full ({said}: {', '.join(parts)})" + _misspelt(units)


def _misspelt(units: Sequence[Any]) -> str:
    odd = sorted({as_text(unit) for unit in units if nm_per(unit) is None and not is_no_length(unit)})
    return f"; unknown unit of length {', '.join(map(repr, odd))}" if odd else ""


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < math.inf else None


def _per_axis(units: Any, axes: Axes) -> list[Any]:
    """Return the units of z, y and x, from one for all or one per axis."""
    if units is None or isinstance(units, str | bytes) or _is_one(units):
        text = as_text(np.ravel(units)[0])
        several = [word.strip() for word in text.strip("()[]").replace(";", ",").split(",")]
        return (axes.pick(several) if len(several) > 1 else []) or [text] * 3
    return axes.pick(units) or [""] * 3


def _is_one(units: Any) -> bool:
    with contextlib.suppress(ValueError):  # of lists of several lengths
        return np.size(units) == 1
    return False


def _start(stated: Stated, axes: Axes, size: VoxelSize | None, url: str) -> tuple[Zyx, str]:
    """Return the first voxel (zyx) and where the source states it."""
    said = stated.sources.get("voxel_offset", "")
    voxels, position = (_finite(axes.pick(values)) for values in (stated.voxel_offset, stated.position))
    if voxels:
        return whole_voxels([float(v) for v in voxels], url), said
    if not position:
        return (0, 0, 0), NOT_STATED
    factors = [nm_per(unit) for unit in _per_axis(stated.position_units or stated.units, axes)]
    if not all(factors) or size is None:
        lacks = "a voxel size" if size is None else "a known unit of length"
        return (0, 0, 0), f"{NOT_STATED} in voxels ({said}: {', '.join(map(str, position))} without {lacks})"
    return whole_voxels([float(p) * (f or 1) / s for p, f, s in zip(position, factors, size, strict=True)], url), said


def is_whole(voxels: float) -> bool:
    """Return whether a position, in voxels, is on the corner of a voxel but for rounding."""
    return abs(voxels - round(voxels)) <= _TOLERANCE


def whole_voxels(position: Sequence[float], url: str) -> Zyx:
    """Return the nearest whole voxel to a position given in voxels (zyx); a part left over is warned of in the log."""
    whole = as_zyx([math.floor(p + 0.5) for p in position])
    if not all(map(is_whole, position)):
        left = tuple(round(p - w, 6) for p, w in zip(position, whole, strict=True))
        logger.warning(
            "%s begins between voxels: voxel_offset is %s zyx, and %s voxels are left over", url, whole, left
        )
    return whole


def _finite(values: Sequence[Any]) -> Sequence[Any]:
    """Return the numbers of a position, [] when one is infinite or no number, which is not a position."""
    with contextlib.suppress(TypeError, ValueError):
        return values if all(abs(float(value)) < math.inf for value in values) else []
    return []


def _axes_source(stated: Stated, opening: Opening) -> str:
    where = _option("axes", opening) or stated.sources.get("axes", "assumed: nothing states them")
    return where if opening.time is None else f"{where}; time point {opening.time} by option --time"


def _option(name: str, opening: Opening) -> str:
    return f"option --{name.replace('_', '-')}" if getattr(opening, name) is not None else ""


def _tell(url: str, size: VoxelSize | None, where: str) -> None:
    if size is not None:
        logger.info("%s: voxel size %s nm zyx from %s", url, size, where)
        return
    level = logging.WARNING if "unknown unit" in where else logging.INFO
    logger.log(level, "%s: no voxel size: %s; --voxel-size states it", url, where)
