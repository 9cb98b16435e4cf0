"""Dark to bright."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.volume import Volume, operator


@operator(takes="image")
def inverse(volume: Volume) -> Volume:
    """Turn dark into bright: 255 minus a uint8, 1 minus a float.

    Args:
        volume: an image of uint8, or of floats between 0 and 1.

    Returns:
        An image of the same dtype.

    Raises:
        ParameterError: another dtype; or, while it is read, a float outside 0..1.
    """
    if volume.dtype != np.uint8 and volume.dtype.kind != "f":
        raise ParameterError(f"inverse takes uint8 or floats between 0 and 1, the volume is {volume.dtype}")
    return volume.map_blocks(inverted, dtype=volume.dtype)


def inverted(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return 255 minus an array of uint8, or 1 minus one of floats between 0 and 1."""
    whole = 255 if array.dtype == np.uint8 else 1
    check_floats(array, 0, "inverse")
    result: np.ndarray[Any, Any] = np.subtract(whole, array, dtype=array.dtype)
    return result


def check_floats(array: np.ndarray[Any, Any], least: int, command: str) -> None:
    """Raise where floats lie outside `least` and 1, or are NaN; integers may be anything."""
    if array.dtype.kind == "f" and array.size and not (array.min() >= least and array.max() <= 1):
        raise ParameterError(f"{command} takes floats between {least} and 1, here are {array.min()} to {array.max()}")
