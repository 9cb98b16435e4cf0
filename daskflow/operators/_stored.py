"""Where a volume is stored, if nothing was computed on the way, and what values it can hold there."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.volume import Volume
from daskflow.volume.node import Crop, Stored


def stored_node(volume: Volume) -> Stored | None:
    """Return the stored level that a volume is, or is a part of; None when something was computed from it."""
    node = volume.node
    while isinstance(node, Crop):
        node = node.input
    return node if isinstance(node, Stored) else None


def fitting(value: float, dtype: np.dtype[Any]) -> float:
    """Return the value as the layer holds it.

    Raises:
        ParameterError: the layer cannot.
    """
    if dtype.kind == "f":
        return float(value)
    limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if value != int(value) or not limits[0] <= value <= limits[1]:
        raise ParameterError(f"{dtype} cannot hold {value:g}; it holds whole numbers from {limits[0]} to {limits[1]}")
    return int(value)
