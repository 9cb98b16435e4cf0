"""Where voxels lie: physical positions as whole voxels."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from daskflow.geometry import Zyx, as_zyx

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-3


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
