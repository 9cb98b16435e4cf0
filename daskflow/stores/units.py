"""Units of length by the names that formats and people give them, in nanometres."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_METRE = 1e9
_INCH = 2.54e7
_PREFIXES = {
    "yotta": ("Y", 1e24),
    "zetta": ("Z", 1e21),
    "exa": ("E", 1e18),
    "peta": ("P", 1e15),
    "tera": ("T", 1e12),
    "giga": ("G", 1e9),
    "mega": ("M", 1e6),
    "kilo": ("k", 1e3),
    "hecto": ("h", 1e2),
    "deca": ("da", 1e1),
    "": ("", 1.0),
    "deci": ("d", 1e-1),
    "centi": ("c", 1e-2),
    "milli": ("m", 1e-3),
    "micro": ("u", 1e-6),
    "nano": ("n", 1e-9),
    "pico": ("p", 1e-12),
    "femto": ("f", 1e-15),
    "atto": ("a", 1e-18),
    "zepto": ("z", 1e-21),
    "yocto": ("y", 1e-24),
}
_SYMBOLS = {f"{symbol}m": float(f"{factor * _METRE:.12g}") for symbol, factor in _PREFIXES.values()}
_NAMES = {
    **{f"{prefix}meter": _SYMBOLS[f"{symbol}m"] for prefix, (symbol, _) in _PREFIXES.items()},
    **{f"{prefix}metre": _SYMBOLS[f"{symbol}m"] for prefix, (symbol, _) in _PREFIXES.items()},
    **dict.fromkeys(("decameter", "decametre", "dekameter", "dekametre"), 1e10),
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


def as_text(value: Any) -> str:
    """Return a word that a file states, as text: from text, from bytes or from an array of one; "" for none."""
    value = value.item() if getattr(value, "size", 0) == 1 and hasattr(value, "item") else value
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = value.decode("latin-1")
    return "" if value is None else str(value).strip().strip("\0")


def nm_per(unit: Any) -> float | None:
    """Return the nm in one `unit`, by any of its names, e.g. "nanometer", "nm", "µm"; None if it is no length.

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
    """Return the nm that a text such as ``"4 nm"`` or ``"0.5 um"`` stands for, None if it is no length."""
    match = _LENGTH.fullmatch(text)
    unit = nm_per(match[2]) if match else None
    return in_nm(float(match[1]), unit) if match and unit else None
