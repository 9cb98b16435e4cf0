"""A precomputed layer, as chunkflow loads it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from daskflow.errors import BoundsError, CorruptChunkError, ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators import options
from daskflow.operators.geometry._padding import padded
from daskflow.operators.geometry.downsample_volume import downsample_volume
from daskflow.operators.stores.open import open as open_volume
from daskflow.stores import kvstore
from daskflow.volume import Flag, Volume, operator

Array = np.ndarray[Any, Any]
_BLACKOUT = "blackout_section_ids.json"


@operator()
def load_precomputed(
    *,
    volume_path: Annotated[str | os.PathLike[str], Flag("-v")],
    mip: options.Mip = 0,
    chunk_start: Annotated[Sequence[int] | None, Flag("-s")] = None,
    chunk_stop: Sequence[int] | None = None,
    chunk_size: Annotated[Sequence[int] | None, Flag("-z")] = None,
    expand_margin_size: Annotated[Sequence[int] | None, Flag("-e")] = None,
    fill_missing: bool = False,
    blackout_sections: bool = False,
    validate_mip: int | None = None,
) -> Volume:
    """Open a Neuroglancer precomputed layer, or a part of it.

    Args:
        volume_path: path or URL of the layer.
        chunk_start: first voxel of the box (zyx); by default the volume's corner.
        chunk_stop: where the box ends (zyx), itself outside; by default the volume's far corner.
        chunk_size: voxels of the box (zyx), instead of a stop; -1 is all from the start on.
        expand_margin_size: voxels added around the box: low z, y, x then high z, y, x, or three for both sides. With
            fill_missing they may lie beyond the layer, where voxels are zero.
        fill_missing: read chunks that were never written as zeros, and count them, instead of failing.
        blackout_sections: make the sections zero whose z the layer's blackout_section_ids.json lists.
        validate_mip: coarser level that must be what comes of these voxels, by means of 2 x 2 in y and x; a block of
            which that is not so fails, e.g. because a chunk of it was lost.

    Returns:
        A lazy volume.

    Raises:
        BoundsError: the box reaches outside the layer, and fill_missing was not said.
        ParameterError: a level to validate against that is not coarser in y and x alone, or not of an image.
    """
    volume = open_volume(volume_path, mip=mip, fill_missing=fill_missing, format="precomputed")
    if validate_mip is not None:
        coarse = open_volume(volume_path, mip=validate_mip, fill_missing=fill_missing, format="precomputed")
        assert volume.stored is not None
        assert coarse.stored is not None
        volume = _validated(volume, coarse, coarse.stored.mip - volume.stored.mip)
    if blackout_sections:
        listed = kvstore.read_bytes(kvstore.join(kvstore.normalise(os.fspath(volume_path)), _BLACKOUT))
        if listed is None:
            raise ParameterError(f"{volume_path} has no {_BLACKOUT}; drop blackout_sections")
        try:
            sections = tuple(sorted({int(z) for z in json.loads(listed)["section_ids"]}))
        except (ValueError, TypeError, LookupError) as error:
            raise ParameterError(f"{_BLACKOUT} of {volume_path} lists no section_ids: {error!r}") from error
        volume = volume.map_blocks(without_sections, dtype=volume.dtype, sections=sections)
    box = options.part_of(volume.box, chunk_start, chunk_stop, chunk_size)
    if expand_margin_size is not None:
        box = box.grow(*options.both_sides(expand_margin_size))
    if box in volume.box:
        return volume if box == volume.box else volume.crop(box)
    if not fill_missing:
        raise BoundsError(
            f"box {box} reaches outside {volume.box} (z0-z1_y0-y1_x0-x1) of {volume_path};"
            " fill_missing reads zeros there"
        )
    return padded(volume, box)


def without_sections(array: Array, box: BoundingBox, sections: Sequence[int]) -> Array:
    """Return an array (zyx or czyx) over `box` whose sections at some global z are zero."""
    black = np.isin(np.arange(box.start[0], box.stop[0]), sections)
    return np.where(black[:, None, None], array.dtype.type(0), array)


def _validated(volume: Volume, coarse: Volume, steps: int) -> Volume:
    """Return a volume of which a block fails unless a level is what comes of it."""
    spec = volume.spec
    if steps < 1 or spec.kind == "segmentation" or spec.dtype.kind == "f":
        raise ParameterError(
            f"validate_mip compares an image of integers with a coarser level; the layer holds {spec.dtype}"
            f" ({spec.layer_type}), and {steps} levels lie between the two"
        )
    made = downsample_volume(volume, factor=(1, 2**steps, 2**steps), method="mean")
    if made.box != coarse.box:
        raise ParameterError(
            f"the level to validate against is {coarse.box}, and {steps} halvings in y and x make {made.box} of"
            f" {volume.box} (z0-z1_y0-y1_x0-x1); name one that is coarser in y and x alone"
        )
    return volume.map_blocks(_first, made.map_blocks(alike, coarse, dtype=spec.dtype, steps=steps), dtype=spec.dtype)


def alike(made: Array, stored: Array, box: BoundingBox, steps: int) -> Array:
    """Return the first of two arrays over `box`; the second may differ by 1 for each level that was rounded."""
    far = np.abs(made.astype(np.int64) - stored.astype(np.int64)) > steps
    if far.any():
        z, y, x = (int(n) + start for n, start in zip(np.argwhere(far)[0][-3:], box.start, strict=True))
        raise CorruptChunkError(
            f"{np.count_nonzero(far)} voxels of {box} of the level to validate against are not the means of finer ones,"
            f" the first at {z}, {y}, {x} (zyx): {stored[far][0]} is stored, and {made[far][0]} comes of them"
        )
    return made


def _first(array: Array, _: Array) -> Array:
    return array
