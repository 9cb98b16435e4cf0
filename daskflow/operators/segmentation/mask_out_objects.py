"""A segmentation without small objects, or with chosen ones alone."""

from __future__ import annotations

import functools
import json
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox
from daskflow.operators.segmentation.remap import Labels, replace_labels
from daskflow.operators.segmentation.voxel_counts import LabelCounts
from daskflow.stores import kvstore
from daskflow.volume import Flag, Volume, operator


@operator(takes="labels")
def mask_out_objects(
    volume: Volume,
    *,
    dust_size_threshold: Annotated[int | None, Flag("-d")] = None,
    selected_obj_ids: Annotated[str | None, Flag("-s")] = None,
) -> Volume:
    """Make small objects background, or all but some.

    The voxels of objects are counted over the whole volume, for which the result waits for a pass.

    Args:
        volume: a segmentation, with one channel.
        dust_size_threshold: objects of at most so many voxels in the whole volume become 0.
        selected_obj_ids: labels to keep, with commas, or the path or URL of a JSON file with a list of them.

    Returns:
        A segmentation of the same dtype, zyx.

    Raises:
        ParameterError: neither is given, a negative number, or something else than labels.
        StoreNotFoundError: there is no such file.
    """
    if dust_size_threshold is None and selected_obj_ids is None:
        raise ParameterError("give the largest size of dust, or the labels that are kept")
    if dust_size_threshold is not None and dust_size_threshold < 0:
        raise ParameterError(f"dust size threshold {dust_size_threshold} must be at least 0 voxels")
    kept = None if selected_obj_ids is None else _listed(selected_obj_ids)
    if dust_size_threshold is None:
        return volume.map_blocks(
            without, dtype=volume.dtype, channels=None, layer_type="segmentation", left=None, least=0, kept=kept
        )
    counts = LabelCounts.over(volume.expression, volume.grid)
    stages = (*volume.expression.stages, *counts.stages(volume.expression))
    spec = volume.spec.of_labels()
    return volume.map_after(without, left=counts, stages=stages, spec=spec, least=dust_size_threshold + 1, kept=kept)


def _listed(said: str) -> Labels:
    """Return the labels that a text or a file lists, rising."""
    words = said.replace(",", " ").split()
    if words and all(word.isdecimal() for word in words):
        labels, where = [int(word) for word in words], f"{said!r}"
    else:
        url = kvstore.normalise(said)
        data, where = kvstore.read_bytes(url), kvstore.redact(url)
        if data is None:
            raise StoreNotFoundError(f"{said!r} is neither labels with commas, such as 1,2,3, nor a file that exists")
        try:
            labels = json.loads(data)
        except ValueError as error:
            raise ParameterError(f"{where} cannot be read as JSON: {error}") from error
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 2**64 for label in labels):
        raise ParameterError(f"{where} is not a list of labels, integers from 0 to 2^64 - 1")
    return np.unique(np.array(labels, np.uint64))


def without(
    array: npt.NDArray[Any], *, box: BoundingBox, left: LabelCounts | None, least: int, kept: Labels | None
) -> npt.NDArray[Any]:
    """Return the labels of a block with 0 for those of fewer than `least` voxels and those that are not `kept`, zyx."""
    find = functools.partial(_remaining, left=left, least=least, kept=kept)
    dtype = "uint8" if array.dtype == bool else array.dtype.name
    return replace_labels(array, find, box, dtype).astype(array.dtype, copy=False)


def _remaining(labels: Labels, *, left: LabelCounts | None, least: int, kept: Labels | None) -> Labels:
    remain = np.ones(len(labels), bool) if kept is None else np.isin(labels, kept)
    if left is not None:
        remain[remain] = left.of(labels[remain]) >= least
    return np.where(remain, labels, np.uint64(0))
