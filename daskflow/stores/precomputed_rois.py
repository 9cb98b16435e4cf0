"""Regions of interest of a precomputed layer: ``rois`` of the finest scale in its info, xyz, both ends included.

CloudVolume leaves out what lies in none of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from daskflow.geometry import BoundingBox
from daskflow.stores import kvstore
from daskflow.stores.precomputed_info import Info, edit_info, load_info


def write_rois(url: str, boxes: Sequence[BoundingBox]) -> None:
    """Replace the regions of interest of a layer; all else in its info stays as it is.

    Args:
        url: the layer.
        boxes: in voxels of its finest level.

    Raises:
        StoreNotFoundError: there is no layer.
        StoreAccessError: the location refuses.
    """
    kvstore.refuse_http(url)
    rois = [[*reversed(box.start), *(stop - 1 for stop in reversed(box.stop))] for box in boxes]

    def stated(info: Info) -> Info:
        first, *others = info["scales"]
        return {**info, "scales": [{**first, "rois": rois}, *others]}

    edit_info(url, stated)


def read_rois(url: str) -> list[BoundingBox]:
    """Return the regions of interest of a layer, in voxels of its finest level; none where it states none."""
    stated = [roi for scale in load_info(url)["scales"][:1] for roi in scale.get("rois", [])]
    return [BoundingBox((z0, y0, x0), (z1 + 1, y1 + 1, x1 + 1)) for x0, y0, z0, x1, y1, z1 in stated]
