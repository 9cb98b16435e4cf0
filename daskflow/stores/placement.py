"""Where voxels lie and how large they are: lengths in nm, physical positions as whole voxels."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence

from daskflow.geometry import Zyx, as_zyx

logger = logging.getLogger(__name__)

_NM = {
    **dict.fromkeys(("angstrom", "ångström", "a", "å"), 0.1),
    **dict.fromkeys(("picometer", "picometre", "pm"), 1e-3),
    **dict.fromkeys(("nanometer", "nanometre", "nm"), 1.0),
    **dict.fromkeys(("micrometer", "micrometre", "micron", "um", "μm"), 1e3),
    **dict.fromkeys(("millimeter", "millimetre", "mm"), 1e6),
    **dict.fromkeys(("centimeter", "centimetre", "cm"), 1e7),
    **dict.fromkeys(("meter", "metre", "m"), 1e9),
    **dict.fromkeys(("inch", "in"), 2.54e7),
}
_LENGTH = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(\D*?)\s*")
_TOLERANCE = 1e-3


def nm_per(unit: str | None) -> float | None:
    """Return the nm in one `unit`, by any of its names, e.g. "nanometer", "nm", "µm"; None if it is no length."""
    if not unit:
        return None
    name = unit.strip().replace("\\u00B5", "μ").lower().replace("µ", "μ").replace("å", "å")
    return _NM.get(name, _NM.get(name.removesuffix("s")))


def parse_length(text: str) -> float | None:
    """Return the nm that a text such as ``"4 nm"`` or ``"0.5 um"`` stands for, None if it is no length."""
    match = _LENGTH.fullmatch(text)
    unit = nm_per(match[2]) if match else None
    return float(match[1]) * unit if match and unit else None


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
