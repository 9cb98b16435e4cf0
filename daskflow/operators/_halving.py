"""Smaller blocks of work that cost nothing."""

from __future__ import annotations

import math

from daskflow.geometry import BoundingBox, Zyx
from daskflow.volume import Volume


def halved(volume: Volume, voxels: int) -> Zyx:
    """Return blocks of at most `voxels`: the volume's, halved where that reads no chunk and no halo twice."""
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
