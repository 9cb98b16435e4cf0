"""The passes that find how many voxels every label has and in which box they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import Evaluate
from daskflow.jobs.records import Arrays, Reduce, write_record
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage, in_order


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
    def merging(self) -> Reduce:
        """The passes that merge what is known of the blocks."""
        return Reduce(f"merge-boxes-{self.key}", f"boxes-{self.key}", len(self.grid), merge_boxes)

    def stages(self, expression: Expression) -> tuple[Stage, ...]:
        """Return all passes, in order; those that the expression waits for not included.

        Args:
            expression: gives the labels; one output.
        """
        finding = Stage("find-boxes", self.grid, Evaluate.into(expression, FindBoxes(self)))
        return in_order((finding, *self.merging.stages()), after=expression.stages)

    def boxes(self, directory: str) -> list[BoundingBox]:
        """Return the boxes of the labels, sorted by where they start (zyx)."""
        record = self.merging.result(directory)
        kept = record["counts"] >= self.dust
        pairs = zip(record["starts"][kept].tolist(), record["stops"][kept].tolist(), strict=True)
        return sorted((BoundingBox((a, b, c), (d, e, f)) for (a, b, c), (d, e, f) in pairs), key=lambda box: box.start)


@dataclass(frozen=True)
class FindBoxes(Consumer):
    """Find the voxels and the box of every label in a block.

    Attributes:
        search: what is searched.
        directory: URL of the scratch directory, once bound.
    """

    search: LabelBoxes
    directory: str = ""

    @property
    def grid(self) -> BlockGrid:
        return self.search.grid

    def compute(self, box: BoundingBox, arrays: list[npt.NDArray[Any]]) -> Arrays:
        return boxes_of(arrays[0].reshape(box.shape), box)

    def write(self, box: BoundingBox, outputs: Arrays) -> BlockResult:
        (index,) = self.search.grid.touching(box)
        write_record(self.directory, self.search.merging.source, index, outputs)
        return BlockResult(empty=not len(outputs["labels"]))

    def further(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=4 * box.size)

    def check(self) -> None:
        kvstore.check_writable(self.directory)

    def describe(self) -> dict[str, Any]:
        return {"boxes": "labels", "dust": self.search.dust}


def boxes_of(array: npt.NDArray[Any], box: BoundingBox) -> Arrays:
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


def merge_boxes(records: list[Arrays]) -> Arrays:
    """Return what is known of the labels of several records together."""
    labels, counts, starts, stops = (
        np.concatenate([record[name] for record in records]) for name in ("labels", "counts", "starts", "stops")
    )
    order = np.argsort(labels, kind="stable")
    labels, counts, starts, stops = labels[order], counts[order], starts[order], stops[order]
    first = np.flatnonzero(np.concatenate((np.ones(min(len(labels), 1), bool), labels[1:] != labels[:-1])))
    if not len(first):
        return {"labels": labels, "counts": counts, "starts": starts, "stops": stops}
    return {
        "labels": labels[first],
        "counts": np.add.reduceat(counts, first),
        "starts": np.minimum.reduceat(starts, first),
        "stops": np.maximum.reduceat(stops, first),
    }
