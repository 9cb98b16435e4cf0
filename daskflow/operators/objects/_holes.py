"""Labels without holes, as far as is asked, in an array that is the whole volume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Part = tuple[slice, ...]
SIDES, CLOSING = 2, 3  # levels of filling, see `options.FillHoles`
_REACH = 2  # voxels around a label that closing looks at


def check_level(level: int) -> int:
    """Return how far holes are filled, as a number.

    Raises:
        ParameterError: no such level.
    """
    if not 0 <= level <= CLOSING:
        raise ParameterError(f"fill_holes {level} must be 0 to {CLOSING}")
    return int(level)


def without_holes(numbers: Array, level: int) -> Iterator[Array]:
    """Yield labels whose holes are filled, in as many arrays as it takes for none to cover another.

    What a label encloses belongs to it, whatever it is; a label in a hole comes in a later array. Faces connect the
    outside. Each label is filled as if it were alone. Numbers (zyx) are 0 to about as many as there are labels.
    """
    from scipy.ndimage import find_objects

    reach = _REACH if level == CLOSING else 0
    parts = {
        number: _grown(place, reach, numbers.shape)
        for number, place in enumerate(find_objects(numbers), 1)
        if place is not None
    }
    while parts:
        result, later = np.zeros_like(numbers), {}
        for number, place in parts.items():
            voxels = _filled(numbers[place] == number, place, numbers.shape, level)
            if result[place][voxels].any():
                later[number] = place
            else:
                result[place][voxels] = number
        yield result
        parts = later


def _grown(part: Part, reach: int, shape: tuple[int, ...]) -> Part:
    return tuple(slice(max(0, s.start - reach), min(n, s.stop + reach)) for s, n in zip(part, shape, strict=True))


def _filled(mask: Mask, part: Part, shape: tuple[int, ...], level: int) -> Mask:
    """Return a label, which lies in a part of a volume of some shape, with its holes filled."""
    from scipy.ndimage import maximum_filter, minimum_filter

    body = maximum_filter(mask, 3, mode="nearest") if level == CLOSING else mask.copy()
    for axis, (span, length) in enumerate(zip(part, shape, strict=True)):
        for end in ([0] if span.start == 0 else []) + ([-1] if span.stop == length else []):
            side = np.moveaxis(body, axis, 0)[end]
            if level >= SIDES:
                side[...] = _enclosed(side)
    body = _enclosed(body)
    return minimum_filter(body, 3, mode="nearest") | mask if level == CLOSING else body


def _enclosed(mask: Mask) -> Mask:
    """Return a mask, of a volume or of a side, with all that it encloses."""
    import cc3d

    outside = np.pad(~mask, 1, constant_values=True)
    parts = cc3d.connected_components(outside.view(np.uint8), connectivity=6 if mask.ndim == 3 else 4)
    inside: Mask = parts[(slice(1, -1),) * mask.ndim] != parts.flat[0]
    return inside
