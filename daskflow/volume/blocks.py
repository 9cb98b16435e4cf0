"""How large a block of work is when nobody says."""

from __future__ import annotations

import math

from daskflow.geometry import VolumeSpec, Zyx

BLOCK_BYTES = 2**25
_UNCHUNKED: Zyx = (64, 64, 64)


def default_block(spec: VolumeSpec) -> Zyx:
    """Return a block of about 32 MB: whole chunks and shards, as near to a cube of voxels as they allow."""
    unit = spec.write_unit or _UNCHUNKED
    block = list(unit)
    item = spec.dtype.itemsize * (spec.channels or 1)
    while math.prod(block) * item * 2 <= BLOCK_BYTES:
        open_axes = [axis for axis in range(3) if block[axis] < spec.box.shape[axis]]
        if not open_axes:
            break
        shortest = min(open_axes, key=lambda axis: block[axis])
        block[shortest] *= 2
    return (block[0], block[1], block[2])
