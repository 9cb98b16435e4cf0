"""Voxels where a coarse mask is zero, made zero."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry import BoundingBox, Zyx, as_zyx
from daskflow.operators.image.contrast.tables import LookUp
from daskflow.operators.stores.open import open as open_volume
from daskflow.volume import Flag, Volume, operator
from daskflow.volume.kinds import inside

Array = np.ndarray[Any, Any]


@operator(keeps_name=True, later=("check_all_zero", "skip_to"))
def mask(
    volume: Volume,
    *,
    volume_path: Annotated[str | os.PathLike[str], Flag("-v")],
    mip: Annotated[int, Flag("-m")] = 5,
    inverse: bool = False,
    fill_missing: bool = True,
    check_all_zero: bool = False,
    skip_to: str | None = None,
) -> Volume:
    """Set voxels to 0 where a mask, a layer of equal or larger voxels, is 0.

    A voxel is masked by the voxel of the mask that it lies in, by global coordinates and voxel sizes; so it need not
    begin where one of the mask does. A block of which nothing is kept is not computed: a network before the mask does
    not run there.

    Args:
        volume: the volume; all its channels are masked.
        volume_path: path or URL of the mask, with one channel, of which anything but 0 is kept.
        mip: level of the mask.
        inverse: keep where the mask is 0, and set the rest to 0.
        fill_missing: where the mask has no chunk, or does not reach, it is 0; otherwise an error.
        check_all_zero: on the command line, leave the volume as it is here, and mask what the command `skip_to` gets.
        skip_to: the later command of the line before which what is masked becomes 0, e.g. save.

    Returns:
        A volume of the same dtype and channels.

    Raises:
        GeometryError: voxels of the mask are not whole multiples of the volume's, or, without `fill_missing`, it does
            not cover the volume.
        ParameterError: a mask with several channels, a voxel size that is unknown, or, in Python, `check_all_zero`.
            While voxels are read: a mask that is nan somewhere.
    """
    if check_all_zero or skip_to is not None:
        raise ParameterError("check_all_zero and skip_to are for command lines; mask the result instead")
    found = open_volume(volume_path, mip=mip, fill_missing=fill_missing)
    if found.channels not in (None, 1):
        raise ParameterError(f"a mask has one channel, {volume_path} has {found.channels}")
    covered = Covered(_factor(volume, found), found.box)
    if not fill_missing and covered.around(volume.box) not in found.box:
        raise GeometryError(
            f"the mask covers {found.box} (z0-z1_y0-y1_x0-x1, in its own voxels), not {covered.around(volume.box)};"
            " pass fill_missing to take what is outside as 0"
        )
    spec = volume.spec.replace(chunk=None, shard=None)
    options = {"covered": covered, "inverse": inverse}
    return Volume(Masked(spec, masked, (volume.node, found.node), options, None, covered), block=volume.block)


def _factor(volume: Volume, found: Volume) -> Zyx:
    """Return how many voxels of the volume one of the mask covers (zyx)."""
    sizes = volume.voxel_size, found.voxel_size
    if None in sizes:
        raise ParameterError(
            f"voxels of the volume have {volume.spec.size_text}, of the mask {found.spec.size_text} (zyx): both must be"
            " known; state them where they are opened: --voxel-size Z Y X"
        )
    ratios = found.spec.ratio(volume.spec)
    factor = as_zyx([round(ratio) for ratio in ratios])
    if any(n < 1 or abs(n - ratio) > 1e-6 * ratio for n, ratio in zip(factor, ratios, strict=True)):
        raise GeometryError(
            f"voxels of the mask, {found.spec.size_text} (zyx), are not whole multiples of those of the volume,"
            f" {volume.spec.size_text}; choose another mip of the mask"
        )
    return factor


@dataclass(frozen=True)
class Covered:
    """Which voxels of a mask cover a box.

    Attributes:
        factor: voxels of the volume in one of the mask (zyx).
        box: what the mask holds, in its own voxels.
    """

    factor: Zyx
    box: BoundingBox

    def around(self, box: BoundingBox) -> BoundingBox:
        """Return the voxels that a box touches, wherever the mask ends."""
        return box.coarsen(self.factor)

    def __call__(self, box: BoundingBox) -> BoundingBox:
        return self.around(box).clip(self.box)

    def kept(self, mask: Array, box: BoundingBox, inverse: bool) -> Array:
        """Return which of the voxels `around` a box are kept, from the voxels of the mask that it holds there."""
        around, there = self.around(box), self(box)
        kept = np.zeros(around.shape, bool)
        if not there.empty:
            kept[there.slices(around)] = inside(mask, there)
        return ~kept if inverse else kept


class Masked(LookUp):
    """Voxels of a volume where those of a mask are kept; the volume is computed where any is."""

    def spares_first(self, box: BoundingBox, fetched: Sequence[Array | None]) -> bool:
        covered, inverse = self.options["covered"], self.options["inverse"]
        return fetched[1] is not None and not covered.kept(fetched[1], box, inverse).any()


def masked(
    array: Array, mask: Array, *, box: BoundingBox, read_box: BoundingBox, covered: Covered, inverse: bool
) -> Array:
    """Return an array (zyx or czyx) of `box`, 0 where the voxels of a mask, of `read_box`, are."""
    assert mask.shape[-3:] == read_box.shape
    kept = covered.kept(mask, box, inverse)
    if kept.all():
        return array
    first = covered.around(box).start
    places = zip(box.start, box.stop, covered.factor, first, strict=True)
    within = np.ix_(*(np.arange(start, stop) // n - at for start, stop, n, at in places))
    return np.where(kept[within], array, array.dtype.type(0))
