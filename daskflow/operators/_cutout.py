"""A part of a volume by start and size or stop."""

from __future__ import annotations

from collections.abc import Sequence

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, as_zyx
from daskflow.volume import Volume


def cut(
    volume: Volume,
    *,
    start: Sequence[int] | None,
    size: Sequence[int] | None = None,
    stop: Sequence[int] | None = None,
) -> Volume:
    """Return the part of a volume from `start` (default: its corner) up to `stop` or over `size` (default: its edge).

    Raises:
        ParameterError: both a size and a stop.
        BoundsError: the part reaches outside the volume.
    """
    if start is None and size is None and stop is None:
        return volume
    if size is not None and stop is not None:
        raise ParameterError(f"both a size {size} and a stop {stop} are given; drop one of them")
    first = volume.box.start if start is None else as_zyx(start, name="start")
    if size is not None:
        return volume.crop(BoundingBox.from_size(first, size))
    return volume.crop(BoundingBox(first, volume.box.stop if stop is None else as_zyx(stop, name="stop")))
