"""A box of a volume."""

from __future__ import annotations

from collections.abc import Sequence

from daskflow.errors import BoundsError, GeometryError, ParameterError
from daskflow.geometry import BoundingBox, Zyx, as_zyx
from daskflow.operators import options
from daskflow.volume import Volume, operator


@operator()
def crop(
    volume: Volume,
    *,
    start: options.Start | None = None,
    stop: options.Stop | None = None,
    size: options.Size | None = None,
    margin: Sequence[int] | None = None,
    bounds_mip: int | None = None,
) -> Volume:
    """Cut a box out of a volume; what is left keeps its global coordinates.

    Args:
        volume: the volume to cut.
        margin: voxels added around the box, inside the volume: low z, y, x then high z, y, x, or three for both sides.
        bounds_mip: pyramid level in whose voxels the numbers are given; by default that of the volume. Voxels of the
            volume that lie in the box in part are kept.

    Returns:
        The part of the volume.

    Raises:
        ParameterError: neither start, stop nor size, or both a stop and a size.
        BoundsError: the box reaches outside the volume.
        GeometryError: the box is empty, or the volume has no level `bounds_mip`.
    """
    if start is None and stop is None and size is None:
        raise ParameterError("crop needs the box: give start=, stop= or size= (zyx voxels)")
    whole = volume.box if bounds_mip is None else _level(volume, bounds_mip)
    box = options.part_of(whole, start, stop, size)
    if bounds_mip is not None:
        if box not in whole:
            raise BoundsError(f"box {box} reaches outside mip {bounds_mip}, which is {whole} (z0-z1_y0-y1_x0-x1)")
        finer, coarser = _factors(volume, bounds_mip)
        box = box.refine(coarser).coarsen(finer).clip(volume.box)
    return volume.crop(box if margin is None else box.grow(*options.both_sides(margin)))


def _level(volume: Volume, mip: int) -> BoundingBox:
    """Return the box of a pyramid level of the layer that the volume was opened from."""
    if not 0 <= mip < len(volume.mips):
        raise GeometryError(
            f"bounds mip {mip}: the volume knows mips 0 to {len(volume.mips) - 1};"
            " crop right after opening a layer that has the level"
        )
    return volume.mips[mip].box


def _factors(volume: Volume, mip: int) -> tuple[Zyx, Zyx]:
    """Return how many voxels of level `mip` make one of the volume, and how many of the volume one of the level."""
    given = volume.mips[mip]
    ratios = volume.spec.ratio(given)
    finer = [max(1, round(ratio)) for ratio in ratios]
    coarser = [max(1, round(1 / ratio)) for ratio in ratios]
    for ratio, down, up in zip(ratios, finer, coarser, strict=True):
        if abs(ratio * up - down) > 1e-6 * down:
            raise GeometryError(
                f"voxels of {volume.spec.size_text} (zyx) and {given.size_text} at mip {mip} are not whole multiples;"
                " give the box in voxels of the volume"
            )
    return as_zyx(finer), as_zyx(coarser)
