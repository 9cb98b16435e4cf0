"""Where in an image there is tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import GeometryError, ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx
from daskflow.jobs import Job, Report
from daskflow.jobs.evaluate import Tabulate
from daskflow.jobs.report import Finish
from daskflow.operators import options
from daskflow.operators.segmentation.connected_components import connected_components
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import How, Table
from daskflow.stores.precomputed_info import write_rois
from daskflow.volume import Flag, Volume, operator
from daskflow.volume.stage import Output, Scope

COLUMNS: dict[str, How] = {"labels": "key", "starts": "min", "stops": "max"}


@operator(takes="image")
def roi(
    volume: Volume,
    *,
    suppress_faint: float = 0,
    dust: options.Dust = 10,
    z_step: int | None = None,
    max_axial_len: int = 512,
    mip: Annotated[int | None, Flag("-m")] = None,
) -> Job:
    """Find the boxes that hold tissue, and state them as regions of interest of the layer.

    What is brighter than faint is labelled on the coarsest level (voxels that share a corner belong together), and the
    box of each piece is scaled to the finest level. A precomputed layer gets the boxes as ``rois`` in its info, in the
    place of those it had; CloudVolume then leaves out what lies in none of them. Boxes of anything else are in the
    report alone.

    Args:
        volume: an image, with one channel.
        suppress_faint: values up to it are background.
        dust: pieces of fewer voxels, on the level that is searched, are left out.
        z_step: sections to search by themselves: tissue that goes on in the next slab of so many has two boxes. By
            default all are searched as one.
        max_axial_len: where a section has more voxels than a square of this side, windows of 2 x 2, 4 x 4, ... voxels
            are averaged first, until it has not; boxes are then as exact as the windows.
        mip: the level that is searched; by default the coarsest.

    Returns:
        The job; ``run().results["rois"]`` has the boxes, as text z0-z1_y0-y1_x0-x1, in voxels of the finest level.

    Raises:
        ParameterError: several channels, or numbers that make no sense.
        StoreNotFoundError: there is no such level.
        GeometryError: voxels of the level are not whole multiples of the finest.
    """
    _check(z_step, max_axial_len)
    level = _level(volume, mip)
    if level.channels not in (None, 1):
        raise ParameterError(f"regions of interest take one channel, the volume has {level.channels}; pick one first")
    height, rows, columns = level.box.shape
    window = 1
    while -(-rows // window) * -(-columns // window) > max_axial_len**2:
        window *= 2
    slabs = level.map_blocks(
        tissue,
        dtype="uint32",
        channels=None,
        layer_type="segmentation",
        factor=(1, window, window),
        window=window,
        faint=suppress_faint,
        bottom=level.box.start[0],
        step=z_step or height,
    )
    pieces = connected_components(slabs, connectivity=26, dust=dust)
    table = Table("boxes", len(pieces.grid), COLUMNS, Scope("boxes", (pieces.expression, pieces.grid)))
    search = Tabulate(table, pieces.grid, boxes_of, memory=4).stages("find-boxes", pieces.expression)
    stages = (*pieces.expression.stages, *search)
    url = _layer(volume)
    found = StateBoxes(table, level.spec, _finest(volume), (1, window, window), url)
    if url is None:
        return Job(stages, None, name="regions of interest", finish=(found,))
    makes = (Output(url, "regions of interest"),)
    directory = f"{url}.roi.daskflow/"
    return Job(stages, directory, name="regions of interest", finish=(found,), makes=makes, renewable=True)


@dataclass(frozen=True)
class StateBoxes(Finish):
    """Put the boxes of all pieces into the report and into the info of the layer.

    Attributes:
        level: the level whose voxels were averaged and searched.
        finest: the level in whose voxels boxes are stated.
        window: voxels of the level per voxel that was searched (zyx).
        layer: URL of a precomputed layer, or None.
    """

    table: Table
    level: VolumeSpec
    finest: VolumeSpec
    window: Zyx
    layer: str | None
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        """State the boxes that the job has found."""
        found = boxes_in(self.table)
        boxes = [self._on_the_finest(box) for box in found]
        report.results["rois"] = [str(box) for box in boxes]
        if self.layer is not None:
            write_rois(self.layer, boxes)

    def _on_the_finest(self, box: BoundingBox) -> BoundingBox:
        """Return a box in voxels of the finest level; windows of levels are counted from the corner of the volume."""
        inside = box.refine(self.window).clip(self.level.box)
        return self.level.on_finer(inside, self.finest).clip(self.finest.box)


def _check(z_step: int | None, max_axial_len: int) -> None:
    if z_step is not None and z_step < 1:
        raise ParameterError(f"z_step {z_step} must be at least 1 section")
    if max_axial_len < 1:
        raise ParameterError(f"max_axial_len {max_axial_len} must be at least 1 voxel")


def _level(volume: Volume, mip: int | None) -> Volume:
    """Return the level that is searched."""
    store = volume.stored_whole
    if store is None or len(store.mips) == 1:
        if mip:
            raise StoreNotFoundError(f"the volume has no mip {mip}; open its layer, uncropped, or leave mip out")
        return volume
    wanted = len(store.mips) - 1 if mip is None else mip
    finest, level = store.mips[0], store.mips[min(wanted, len(store.mips) - 1)]
    if any(abs(ratio - round(ratio)) > 1e-3 for ratio in level.ratio(finest)):
        raise GeometryError(
            f"voxels of {level.size_text} (zyx) are not whole multiples of {finest.size_text}; search mip 0"
        )
    return Volume.from_store(store.with_mip(wanted))


def _finest(volume: Volume) -> VolumeSpec:
    store = volume.stored_whole
    return volume.spec if store is None else store.mips[0]


def _layer(volume: Volume) -> str | None:
    """Return the precomputed layer whose info can state the boxes."""
    store = volume.stored_whole
    return store.url if store is not None and store.extensible else None


def tissue(
    array: npt.NDArray[Any],
    box: BoundingBox,
    read_box: BoundingBox,
    *,
    window: int,
    faint: float,
    bottom: int,
    step: int,
) -> npt.NDArray[np.uint32]:
    """Return 0 where the mean of a window is faint, and elsewhere the number of the slab of sections, from 1.

    `box` is of windows, which have `window` voxels along y and x, and `read_box` of voxels (zyx, or czyx with one
    channel). Slabs of `step` sections are counted from the first section of the volume, `bottom`.
    """
    values = array.reshape(array.shape[-3:])
    if window > 1:
        values = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    counts = np.ones((1, 1), np.int64)
    for axis in (1, 2) if window > 1 else ():
        low, high = read_box.start[axis], read_box.stop[axis]
        starts = np.maximum(np.arange(box.start[axis], box.stop[axis]) * window, low) - low
        values = np.add.reduceat(values, starts, axis=axis)
        lengths = np.diff(starts, append=high - low)
        counts = counts * (lengths[:, None] if axis == 1 else lengths[None, :])
    slabs = 1 + (np.arange(box.start[0], box.stop[0]) - bottom) // step
    return np.where(values > faint * counts, slabs[:, None, None], 0).astype(np.uint32)


def boxes_in(table: Table) -> list[BoundingBox]:
    """Return the boxes of all labels in a table of `COLUMNS`, sorted by where they start (zyx)."""
    boxes = []
    for rows in table.tables():
        pairs = zip(rows["starts"].tolist(), rows["stops"].tolist(), strict=True)
        boxes += [BoundingBox((a, b, c), (d, e, f)) for (a, b, c), (d, e, f) in pairs]
    return sorted(boxes, key=lambda box: box.start)


def boxes_of(box: BoundingBox, array: npt.NDArray[Any]) -> Arrays:
    """Return the labels of an array (zyx) that covers `box`, 0 left out, and where they lie."""
    import cc3d
    import fastremap

    numbers, names = fastremap.renumber(array.copy(), preserve_zero=True)
    count = len(names.keys() - {0})
    labels = np.zeros(count + 1, np.uint64)
    for label, number in names.items():
        labels[int(number)] = label
    known = cc3d.statistics(numbers.astype(np.uint32, copy=False), no_slice_conversion=True)
    sides = np.asarray(known["bounding_boxes"][1:], np.int64).reshape(-1, 3, 2) + np.array(box.start)[None, :, None]
    order = np.argsort(labels[1:])
    return {"labels": labels[1:][order], "starts": sides[order, :, 0], "stops": sides[order, :, 1] + 1}
