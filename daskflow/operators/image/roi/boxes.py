"""The passes that find how many voxels every label has and in which box they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.tabulate import Tabulate
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import How, Table
from daskflow.volume import Expression, Stage

COLUMNS: dict[str, How] = {"labels": "key", "counts": "sum", "starts": "min", "stops": "max"}


@dataclass(frozen=True)
class LabelBoxes:
    """One search for the boxes of labels.

    Attributes:
        grid: the blocks.
        key: tells its records from those of another search in the same job.
        dust: labels of fewer voxels are left out.
    """

    grid: BlockGrid
    key: str
    dust: int = 0

    @property
    def table(self) -> Table:
        """The columns `labels`, `counts`, `starts` and `stops`."""
        return Table(f"boxes-{self.key}", len(self.grid), COLUMNS)

    def stages(self, expression: Expression) -> tuple[Stage, ...]:
        """Return all passes, in order; those that the expression waits for not included.

        Args:
            expression: gives the labels; one output.
        """
        return Tabulate(self.table, self.grid, boxes_of, memory=4).stages("find-boxes", expression)

    def boxes(self, directory: str) -> list[BoundingBox]:
        """Return the boxes of the labels, sorted by where they start (zyx)."""
        boxes = []
        for rows in self.table.tables(directory):
            kept = rows["counts"] >= self.dust
            pairs = zip(rows["starts"][kept].tolist(), rows["stops"][kept].tolist(), strict=True)
            boxes += [BoundingBox((a, b, c), (d, e, f)) for (a, b, c), (d, e, f) in pairs]
        return sorted(boxes, key=lambda box: box.start)


def boxes_of(box: BoundingBox, array: npt.NDArray[Any]) -> Arrays:
    """Return the labels of an array (zyx) that covers `box`, 0 left out, with their voxels and where they lie."""
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
    return {
        "labels": labels[1:][order],
        "counts": known["voxel_counts"][1:].astype(np.int64)[order],
        "starts": sides[order, :, 0],
        "stops": sides[order, :, 1] + 1,
    }
