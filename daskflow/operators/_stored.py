"""Where a volume is stored, if nothing was computed on the way."""

from __future__ import annotations

from daskflow.volume import Volume
from daskflow.volume.node import Crop, Stored


def stored_node(volume: Volume) -> Stored | None:
    """Return the stored level that a volume is, or is a part of; None when something was computed from it."""
    node = volume.node
    while isinstance(node, Crop):
        node = node.input
    return node if isinstance(node, Stored) else None
