"""Sizes as people say them."""

from __future__ import annotations

import re

from daskflow.errors import ParameterError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_UNITS |= {f"{unit}I": 1024**power for power, unit in enumerate("KMGTP", start=1)}
_BYTES = re.compile(r"([0-9]*\.?[0-9]+)\s*([KMGTP]?I?)B?", re.IGNORECASE)


def parse_bytes(size: str | int | float) -> int:
    """Return the number of bytes that a size such as ``"4GB"``, ``"512 MiB"`` or ``1e9`` stands for.

    Raises:
        ParameterError: the text is not a size.
    """
    if isinstance(size, int | float):
        return int(size)
    match = _BYTES.fullmatch(size.strip())
    if match is None:
        raise ParameterError(f"{size!r} is not a size in bytes; write it like '4GB' or '512MiB'")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def format_bytes(size: float) -> str:
    """Return a number of bytes in decimal units, for people, e.g. ``"17.6 TB"``."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} EB"
