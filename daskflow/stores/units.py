"""Units of length by the names that formats and people give them, in nanometres."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

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
