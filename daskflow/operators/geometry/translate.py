"""A volume moved to another place."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, Zyx, as_zyx
from daskflow.operators.geometry.declare import as_it_is
from daskflow.volume import Volume, operator


@operator()
def translate(volume: Volume, *, offset: Sequence[int] | None = None, to: Sequence[int] | None = None) -> Volume:
    """Move a volume to other coordinates; its voxels and their size stay as they are.

    Args:
        volume: the volume to move.
        offset: voxels of this volume by which it is moved (zyx).
        to: where its first voxel goes (zyx), instead of an offset.

    Returns:
        The same voxels elsewhere.

    Raises:
        ParameterError: neither an offset nor a place to go to, or both.
    """
    if offset is None and to is None:
        raise ParameterError("translate needs an offset, or a place to go to: give offset= or to= (zyx voxels)")
    if offset is not None and to is not None:
        raise ParameterError(f"both an offset {offset} and a place to go to, {to}, are given; drop one of them")
    if to is not None:
        offset = [goal - start for goal, start in zip(as_zyx(to, name="to"), volume.box.start, strict=True)]
    by = as_zyx(offset or 0, name="offset")
    spec = volume.spec
    assert spec.chunk_origin is not None
    z, y, x = (origin + step for origin, step in zip(spec.chunk_origin, by, strict=True))
    moved = spec.replace(box=volume.box.shift(by), chunk_origin=(z, y, x))
    back = (-by[0], -by[1], -by[2])
    return volume.map_boxes(as_it_is, reads=functools.partial(_moved, offset=back), spec=moved, memory=0)


def _moved(box: BoundingBox, offset: Zyx) -> BoundingBox:
    return box.shift(offset)
