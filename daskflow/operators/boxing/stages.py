"""The passes that find how many voxels every label has and in which box they lie."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import daskflow
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.records import Arrays, Reduce, write_record
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage
from daskflow.volume.expression import Fetched


@dataclass(frozen=True)
class LabelBoxes:
    """One search for the boxes of labels.

    Attributes:
        expression: gives the labels; one output.
        grid: the blocks.
        key: tells its records from those of another search in the same job.
        dust: labels of fewer voxels are left out.
    """

    expression: Expression
    grid: BlockGrid
    key: str
    dust: int = 0

    @property
    def merging(self) -> Reduce:
        """The passes that merge what is known of the blocks."""
        return Reduce(f"merge-boxes-{self.key}", f"boxes-{self.key}", len(self.grid), merge_boxes)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All passes, in order; those that the expression waits for not included."""
        return (Stage("find-boxes", self.grid, FindBoxes(self)), *self.merging.stages())

    def boxes(self, directory: str) -> list[BoundingBox]:
        """Return the boxes of the labels, sorted by where they start (zyx)."""
        record = self.merging.result(directory)
        kept = record["counts"] >= self.dust
        pairs = zip(record["starts"][kept].tolist(), record["stops"][kept].tolist(), strict=True)
        return sorted((BoundingBox((a, b, c), (d, e, f)) for (a, b, c), (d, e, f) in pairs), key=lambda box: box.start)


@dataclass(frozen=True)
class FindBoxes:
    """Find the voxels and the box of every label in a block.

    Attributes:
        search: what is searched.
        directory: URL of the scratch directory, once bound.
    """

    search: LabelBoxes
    directory: str = ""

    def read(self, box: BoundingBox) -> Fetched:
        return self.search.expression.fetch_counted([box])

    def compute(self, box: BoundingBox, inputs: Fetched) -> tuple[Arrays, dict[str, int]]:
        (array,), counts = self.search.expression.compute_counted([box], inputs)
        return boxes_of(array.reshape(box.shape), box), counts

    def write(self, box: BoundingBox, outputs: tuple[Arrays, dict[str, int]]) -> BlockResult:
        record, counts = outputs
        (index,) = self.search.grid.touching(box)
        write_record(self.directory, self.search.merging.source, index, record)
        return BlockResult(empty=not len(record["labels"]), counts=counts)

    def estimate(self, box: BoundingBox) -> Estimate:
        estimate = self.search.expression.estimate([box])
        return dataclasses.replace(estimate, memory=estimate.memory + 4 * box.size)

    def check(self) -> None:
        self.search.expression.check()
        kvstore.check_writable(self.directory)

    def describe(self) -> dict[str, Any]:
        search = self.search
        return {"daskflow": daskflow.__version__, "labels": search.expression.describe(), "dust": search.dust}

    def bind(self, directory: str) -> FindBoxes:
        search = dataclasses.replace(self.search, expression=self.search.expression.bind(directory))
        return FindBoxes(search, directory)


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
