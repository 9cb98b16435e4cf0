"""Labels numbered one after the other."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.evaluate import Tabulate
from daskflow.operators.segmentation.remap import Labels, replace_labels
from daskflow.scratch.records import Arrays, Reduce
from daskflow.scratch.tables import How, Table, merged
from daskflow.volume import BlockResult, Flag, Stage, Task, Volume, in_order, operator
from daskflow.volume.stage import Scope

# firsts: place of the first voxel of a label in the volume, z slowest and x fastest
FIRSTS: dict[str, How] = {"labels": "key", "firsts": "min"}
ORDER: dict[str, How] = {"firsts": "key", "labels": "first"}
NUMBERS: dict[str, How] = {"labels": "key", "numbers": "first"}


@operator(takes="labels")
def remap_segmentation(volume: Volume, *, base_id: Annotated[int, Flag("-s")] = 0) -> Volume:
    """Number the labels of a segmentation one after the other, from 1.

    They are numbered in the order of their first voxels in the whole volume, z slowest and x fastest; background, 0,
    stays. The result waits for passes that find and number them, in ranges of labels, so that no task holds all.

    Args:
        volume: a segmentation, with one channel.
        base_id: number that is added to all labels of the result.

    Returns:
        A uint64 segmentation, zyx.

    Raises:
        ParameterError: a negative base, or one beyond which there are not enough numbers.
    """
    if not 0 <= base_id <= 2**64 - 1 - volume.box.size:
        raise ParameterError(f"base id {base_id} must be at least 0, and leave numbers below 2^64 for all voxels")
    scope = Scope("numbers", (volume.expression, volume.grid, base_id))
    firsts = Table("firsts", len(volume.grid), FIRSTS, scope)
    order = Table("order", firsts.ranges, ORDER, scope)
    counts = Reduce("count-labels", "counts", order.ranges, one_after_the_other, scope)
    order = order.into(counted, counts)
    whole = str(volume.box)
    finding = Tabulate(firsts.into(by_first, order), volume.grid, firsts_of, {"whole": whole}, memory=24)
    numbers = Table("numbers", order.ranges, NUMBERS, scope)
    ranges = BlockGrid(BoundingBox((0, 0, 0), (order.ranges, 1, 1)), (1, 1, 1))
    numbering = Stage("number-labels", ranges, NumberLabels(order, counts, numbers, base_id), numbered=True)
    found = finding.stages("find-labels", volume.expression)
    stages = (*found, *in_order((numbering, *numbers.stages()), after=found[-1:]))
    spec = volume.spec.of_labels(np.uint64)
    return volume.map_after(numbered, left=numbers, stages=(*volume.expression.stages, *stages), spec=spec)


def firsts_of(box: BoundingBox, array: npt.NDArray[Any], whole: str) -> Arrays:
    """Return the labels of a block but 0, rising, and where in the whole the first voxel of each lies."""
    import fastremap

    flat = array.reshape(-1)
    labels, local = fastremap.unique(flat.view(np.uint8) if flat.dtype == bool else flat, return_index=True)
    around = BoundingBox.from_string(whole)
    z, y, x = (at + a - b for at, a, b in zip(np.unravel_index(local, box.shape), box.start, around.start, strict=True))
    named = labels != 0
    _, height, width = around.shape
    return {"labels": labels[named].astype(np.uint64), "firsts": ((z * height + y) * width + x)[named]}


def by_first(rows: Arrays) -> Arrays:
    """Return the rows of a range of labels in the order of first voxels."""
    return merged(ORDER, [{"firsts": rows["firsts"].astype(np.uint64), "labels": rows["labels"]}])


def counted(rows: Arrays) -> Arrays:
    """Return how many rows a range has."""
    return {"counts": np.array([len(rows["labels"])])}


def one_after_the_other(records: list[Arrays]) -> Arrays:
    """Return the counts of some records."""
    return {"counts": np.concatenate([record["counts"] for record in records])}


@dataclass(frozen=True)
class NumberLabels(Task):
    """Number the labels of one range of first voxels, after those of the ranges before it."""

    order: Table
    counts: Reduce
    numbers: Table
    base: int

    def read(self, box: BoundingBox) -> tuple[Labels, int]:
        before = int(self.counts.result()["counts"][: box.start[0]].sum())
        return self.order.rows(box.start[0])["labels"], before

    def compute(self, box: BoundingBox, inputs: tuple[Labels, int]) -> Arrays:  # noqa: ARG002
        labels, before = inputs
        numbers = np.arange(len(labels), dtype=np.uint64) + np.uint64(self.base + before + 1)
        return merged(NUMBERS, [{"labels": labels, "numbers": numbers}])

    def write(self, box: BoundingBox, outputs: Arrays) -> BlockResult:
        self.numbers.write(box.start[0], outputs)
        return BlockResult()

    def describe(self) -> dict[str, Any]:
        return {"number": self.order.name, "base": self.base}


def numbered(array: npt.NDArray[Any], *, box: BoundingBox, left: Table) -> npt.NDArray[Any]:
    """Return the labels of a block as their numbers, zyx."""
    return replace_labels(array, functools.partial(_numbers, table=left), box, "uint64")


def _numbers(labels: Labels, *, table: Table) -> Labels:
    numbers: Labels = table.of(labels)["numbers"]
    return numbers
