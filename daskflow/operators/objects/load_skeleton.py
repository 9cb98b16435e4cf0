"""Skeletons from files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.operators.objects._line_objects import required_bytes
from daskflow.stores import kvstore
from daskflow.stores.objects.layer_objects import Skeletons, load_object_info
from daskflow.stores.objects.located import SkeletonSet
from daskflow.stores.objects.skeleton_files import SKELETONS, Skeleton, from_swc
from daskflow.volume import Flag, operator


@operator()
def load_skeleton(
    *,
    path: Annotated[str, Flag("-p")],
    offset: Sequence[float] | None = None,
    voxel_offset: Annotated[Sequence[int] | None, Flag("-t")] = None,
    voxel_size: Annotated[Sequence[float] | None, Flag("-s")] = None,
) -> SkeletonSet:
    """Load skeletons of SWC files or of a precomputed layer into memory.

    Args:
        path: a file LABEL.swc, with positions in nm; a directory of such files; a precomputed layer whose info names
            a directory of skeletons; or that directory.
        offset: nm (zyx) that are added to positions.
        voxel_offset: voxels (zyx) that are added to positions, in place of an offset.
        voxel_size: nm (zyx) of these voxels.

    Returns:
        The skeletons by label.

    Raises:
        StoreNotFoundError: there are none.
        CorruptChunkError: a file holds something else.
        ParameterError: a file without a label for its name, or an offset in voxels of unknown size.
    """
    if voxel_offset is not None and (voxel_size is None or offset is not None):
        raise ParameterError("give an offset in nm, or a voxel offset with the voxel size")
    if voxel_offset is not None and voxel_size is not None:
        offset = tuple(np.multiply(voxel_offset, voxel_size))
    shift = np.array((0, 0, 0) if offset is None else offset, np.float64)[::-1]
    found = _skeletons(kvstore.normalise(path))
    moved = {
        label: dataclasses.replace(one, vertices=one.vertices + shift) if shift.any() else one
        for label, one in found.items()
    }
    return SkeletonSet(moved)


def _skeletons(url: str) -> dict[int, Skeleton]:
    if url.endswith(".swc"):
        return {_label(url): from_swc(required_bytes(url).decode())}
    names = [name for name in kvstore.list_names(url) if name.endswith(".swc") and "/" not in name]
    if names:
        files = (kvstore.join(url, name) for name in names)
        return dict(sorted((_label(file), from_swc(required_bytes(file).decode())) for file in files))
    parent, _, name = url.rpartition("/")
    alone = load_object_info(url).get("@type") == SKELETONS
    try:
        layer = Skeletons(parent, directory=name) if alone else Skeletons(url)
    except StoreNotFoundError as error:
        raise StoreNotFoundError(f"no skeletons in {kvstore.redact(url)}: no LABEL.swc, and {error}") from error
    return {label: one for label in layer.labels().tolist() if (one := layer.read(label)) is not None}


def _label(url: str) -> int:
    name = url.rpartition("/")[2].removesuffix(".swc")
    if not name.isdecimal():
        raise ParameterError(f"{name}.swc is named by no label; rename it, e.g. to 1.swc")
    return int(name)
