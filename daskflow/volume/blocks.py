"""How large a block of work is when nobody says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from daskflow.geometry import BoundingBox, VolumeSpec, Zyx

if TYPE_CHECKING:
    from daskflow.volume.volume import Volume

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


def smaller_block(volume: Volume, voxels: int) -> Zyx:
    """Return a volume's block, halved to at most `voxels` as far as that reads no chunk and no halo twice."""
    expression, block = volume.expression, list(volume.block)
    start, stop = volume.grid[0].start, volume.grid[0].stop
    middle = BoundingBox.from_size([(a + b) // 2 for a, b in zip(start, stop, strict=True)], (1, 1, 1))
    if any(box != middle for box in expression.needed([middle]).values()):
        return volume.block
    chunks = [node.spec.chunk or (1, 1, 1) for node in expression.nodes]
    units = [math.lcm(*(chunk[axis] for chunk in chunks)) for axis in range(3)]
    while math.prod(block) > voxels:
        even = [axis for axis in range(3) if block[axis] % (2 * units[axis]) == 0]
        if not even:
            break
        block[max(even, key=lambda axis: block[axis])] //= 2
    return block[0], block[1], block[2]
