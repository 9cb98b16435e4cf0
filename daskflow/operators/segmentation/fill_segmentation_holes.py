"""Objects without holes."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.jobs.evaluate import Tabulate
from daskflow.operators.segmentation.connected_components import connected_components
from daskflow.operators.segmentation.remap import Labels, replace_labels
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import How, Table, merged
from daskflow.volume import Expression, Volume, operator
from daskflow.volume.stage import Scope

# the smallest and the largest label, or edge, that a piece of background touches
COLUMNS: dict[str, How] = {"holes": "key", "least": "min", "most": "max"}
EDGE = 2**64 - 1  # stands beyond the edge of the volume


@operator(takes="labels")
def fill_segmentation_holes(volume: Volume) -> Volume:
    """Fill the holes of objects, wherever they lie.

    A hole is a piece of background (voxels that share a face) which touches one object alone and not the edge of the
    volume. The result waits for passes that label the background of the whole volume and find what each piece touches.

    Args:
        volume: a segmentation, with one channel.

    Returns:
        A segmentation of the same dtype, zyx.

    Raises:
        ParameterError: while it runs, the label 2^64 - 1.
    """
    empty = volume.map_blocks(background, dtype=np.uint8, channels=None, layer_type="segmentation")
    holes = connected_components(empty)
    wide = volume.map_blocks(widened, dtype=np.uint64, channels=None, layer_type="segmentation")
    least, most = (
        wide.map_overlap(touched, depth=1, boundary=EDGE, trim=False, dtype=np.uint64, largest=largest)
        for largest in (False, True)
    )
    expression = Expression([holes.node, least.node, most.node])
    table = Table("holes", len(holes.grid), COLUMNS, Scope("holes", (expression, holes.grid)))
    finding = Tabulate(table, holes.grid, touching, memory=32).stages("find-holes", expression)
    spec = volume.spec.of_labels()
    return volume.map_after(filled, holes, left=table, stages=(*expression.stages, *finding), spec=spec)


def background(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return 1 where labels (zyx, or czyx with one channel) are 0, else 0, zyx."""
    empty: npt.NDArray[Any] = array.reshape(array.shape[-3:]) == 0
    return empty.view(np.uint8)


def widened(array: npt.NDArray[Any]) -> Labels:
    """Return labels (zyx, or czyx with one channel) as uint64, zyx."""
    labels = array.reshape(array.shape[-3:]).astype(np.uint64)
    if labels.size and labels.max() == EDGE:
        raise ParameterError(f"the label {EDGE} stands for the edge of the volume here; remap gives it another")
    return labels


def touched(array: Labels, largest: bool) -> Labels:
    """Return the smallest or largest label that the faces of every inner voxel touch; EDGE or 0 for none."""
    z, y, x = (slice(1, n - 1) for n in array.shape)
    around = [
        (one, y, x) if axis == 0 else (z, one, x) if axis == 1 else (z, y, one)
        for axis, n in enumerate(array.shape)
        for one in (slice(0, n - 2), slice(2, n))
    ]
    combine = np.maximum if largest else np.minimum
    known = array if largest else np.where(array == 0, np.uint64(EDGE), array)
    found: Labels = functools.reduce(combine, [known[place] for place in around])
    return found


def touching(box: BoundingBox, holes: npt.NDArray[Any], least: Labels, most: Labels) -> Arrays:  # noqa: ARG001
    """Return what the pieces of background in a block touch there."""
    at = (holes > 0) & (most > 0)
    return merged(COLUMNS, [{"holes": holes[at].astype(np.uint64), "least": least[at], "most": most[at]}])


def filled(array: npt.NDArray[Any], holes: npt.NDArray[Any], *, box: BoundingBox, left: Table) -> npt.NDArray[Any]:
    """Return labels (zyx, or czyx with one channel) with pieces of background that are holes filled, zyx."""
    labels = array.reshape(box.shape)
    names = replace_labels(holes, functools.partial(_around, table=left), box, "uint64")
    return np.where(labels == 0, names.astype(labels.dtype), labels)


def _around(holes: Labels, *, table: Table) -> Labels:
    """Return the label of the only object that each of some pieces of background touches, or 0."""
    known = table.of(holes)
    least, most = known["least"], known["most"]
    return np.where((least == most) & (most != EDGE), least, np.uint64(0))
