r"""The passes of counting voxels per label: blocks, then a tree that merges them in ranges of labels.

    blocks       0 1 ... 63   64 ... 127   128 ...            a table of labels each
                  \ | /          |           |
    merging 1     group 0       group 1     group 2  ...      each cut into ranges of labels
                     |\    ____/ |     ____/ |
    merging 2     labels 0-99   100-249   250-  ...           of 64 groups each, cut again
                     :            :         :

Every task of every pass merges at most 64 pieces and so holds about as much as the tables of 64 blocks, however many
labels there are. Where the ranges begin follows from a sample of the labels of every block.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import JobError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import Evaluate
from daskflow.jobs.records import Arrays, Reduce, read_record, write_record
from daskflow.operators.counting.blocks import Labels, Table, add_tables, count_labels
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate, Expression, Stage, Task, in_order
from daskflow.volume.node import Array

_SAMPLE = 256  # labels of a block by which ranges are chosen
_LARGEST = 10
_CACHED = 16


@dataclass(frozen=True)
class LabelCounts:
    """One counting of the voxels of every label: its passes, and what they leave.

    Attributes:
        grid: the blocks.
        key: tells its records from those of another counting in the same job.
        fan_in: how many tables are merged at once.
    """

    grid: BlockGrid
    key: str
    fan_in: int = 64

    def stages(self, expression: Expression) -> tuple[Stage, ...]:
        """Return all passes, in order; those that the expression waits for not included.

        Args:
            expression: gives the labels; one output.
        """
        merging = [
            Stage(self.record(level), _numbers(groups, buckets), MergeTables(self, level), numbered=True)
            for level, (groups, buckets, _) in enumerate(self.levels, 1)
        ]
        sampling = self.sampling.stages() if self.ranges > 1 else ()
        counting = Stage("count-voxels", self.grid, Evaluate.into(expression, CountVoxels(self)))
        return in_order((counting, *sampling, *merging, *self.summing.stages()), after=expression.stages)

    @functools.cached_property
    def levels(self) -> tuple[tuple[int, int, int], ...]:
        """Groups, ranges of labels and pieces that each range is cut into, for every pass of merging."""
        found = []
        groups, buckets = -(-len(self.grid) // self.fan_in), 1
        while True:
            pieces = min(self.fan_in, groups)
            found.append((groups, buckets, pieces))
            if groups == 1:
                return tuple(found)
            groups, buckets = -(-groups // self.fan_in), buckets * pieces

    @property
    def ranges(self) -> int:
        """Into how many ranges of labels the whole table is divided."""
        return self.levels[-1][1]

    @property
    def sampling(self) -> Reduce:
        """The passes that choose where ranges begin."""
        return Reduce(
            f"choose-ranges-{self.key}", f"samples-{self.key}", len(self.grid), merge_samples, fan_in=self.fan_in
        )

    @property
    def summing(self) -> Reduce:
        """The passes that add up what is known of every range."""
        return Reduce(f"sum-counts-{self.key}", f"sums-{self.key}", self.ranges, merge_sums, fan_in=self.fan_in)

    def record(self, level: int) -> str:
        """Return the name of the pass, and of the records, of a level of merging; 0 is that of the blocks."""
        return f"merge-counts-{self.key}-{level}" if level else f"counts-{self.key}"

    def table(self, directory: str, number: int) -> Table:
        """Return the labels of a range, sorted, and their counts.

        Args:
            directory: URL of the job's scratch data.
            number: of the range; labels rise from range to range.
        """
        record = _kept(directory, self.record(len(self.levels)), number)
        return record["labels"], record["counts"]

    def tables(self, directory: str) -> Iterator[Table]:
        """Yield the table of every range."""
        return (self.table(directory, number) for number in range(self.ranges))

    def of(self, directory: str, labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return how many voxels of the whole volume some labels have, 0 for one that does not occur.

        Args:
            directory: URL of the scratch data of the job in which the stages have run.
            labels: in any order.
        """
        wanted = np.asarray(labels, np.uint64)
        found = np.zeros(wanted.shape, np.int64)
        numbers = np.searchsorted(self.splitters(directory), wanted, side="right")
        for number in np.unique(numbers):
            here = numbers == number
            known, counts = self.table(directory, int(number))
            if len(known):
                at = np.minimum(np.searchsorted(known, wanted[here]), len(known) - 1)
                found[here] = np.where(known[at] == wanted[here], counts[at], 0)
        return found

    def splitters(self, directory: str) -> Labels:
        """Return the first label of every range but the first."""
        if self.ranges == 1:
            return np.empty(0, np.uint64)
        return _splitters(directory, self.sampling.name, self.ranges)

    def summary(self, directory: str) -> dict[str, Any]:
        """Return what is known of the whole as JSON values: labels, voxels, background and the largest labels.

        Raises:
            JobError: the counts of a block were lost on the way.
        """
        record = self.summing.result(directory)
        if int(record["voxels"][0]) != self.grid.box.size:
            raise JobError(
                f"scratch data in {directory} hold {int(record['voxels'][0]):,} of {self.grid.box.size:,} voxels;"
                " delete the job's directory and run it again"
            )
        largest = zip(record["largest"].tolist(), record["sizes"].tolist(), strict=True)
        return {
            "labels": int(record["labels"][0]),
            "voxels": int(record["voxels"][0]),
            "background": int(record["background"][0]),
            "largest": {str(label): count for label, count in largest},
        }


@dataclass(frozen=True)
class CountVoxels(Consumer):
    """Count the voxels of every label of a block.

    Attributes:
        counting: what is counted.
        directory: URL of the scratch directory, once bound.
    """

    counting: LabelCounts
    directory: str = ""

    @property
    def grid(self) -> BlockGrid:
        return self.counting.grid

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Table:  # noqa: ARG002
        return count_labels(arrays[0])

    def write(self, box: BoundingBox, outputs: Table) -> BlockResult:
        labels, voxels = outputs
        counting = self.counting
        (index,) = counting.grid.touching(box)
        write_record(self.directory, counting.record(0), index, {"labels": labels, "counts": voxels})
        if counting.ranges > 1:
            write_record(self.directory, counting.sampling.source, index, _sample(labels))
        return BlockResult(empty=not labels.any())

    def further(self, box: BoundingBox) -> Estimate:
        return Estimate(memory=2 * box.size)

    def check(self) -> None:
        kvstore.check_writable(self.directory)

    def describe(self) -> dict[str, Any]:
        return {"counts": "voxels"}


@dataclass(frozen=True)
class MergeTables(Task):
    """Merge the pieces that the tables of some groups have in one range of labels, and cut the result into pieces.

    Attributes:
        counting: what is counted.
        level: pass of merging, from 1.
        directory: URL of the scratch directory, once bound.
    """

    counting: LabelCounts
    level: int
    directory: str = ""

    @property
    def _last(self) -> bool:
        return self.level == len(self.counting.levels)

    def read(self, box: BoundingBox) -> list[Arrays]:
        counting, source = self.counting, self.counting.record(self.level - 1)
        group, bucket = box.start[0], box.start[1]
        buckets = counting.levels[self.level - 1][1]
        below = len(counting.grid) if self.level == 1 else counting.levels[self.level - 2][0]
        first = group * counting.fan_in
        members = range(first, min(first + counting.fan_in, below))
        return [_required(self.directory, source, member * buckets + bucket) for member in members]

    def compute(self, box: BoundingBox, inputs: list[Arrays]) -> list[Table]:
        labels, counts = add_tables([(record["labels"], record["counts"]) for record in inputs])
        if self._last:
            return [(labels, counts)]
        _, buckets, pieces = self.counting.levels[self.level - 1]
        step = self.counting.ranges // (buckets * pieces)
        first = box.start[1] * pieces
        starts = self.counting.splitters(self.directory)[(np.arange(first + 1, first + pieces) * step) - 1]
        cuts = np.searchsorted(labels, starts)
        return list(zip(np.split(labels, cuts), np.split(counts, cuts), strict=True))

    def write(self, box: BoundingBox, outputs: list[Table]) -> BlockResult:
        counting = self.counting
        _, buckets, _ = counting.levels[self.level - 1]
        number = box.start[0] * buckets + box.start[1]
        for piece, (labels, counts) in enumerate(outputs):
            record = {"labels": labels, "counts": counts}
            write_record(self.directory, counting.record(self.level), number * len(outputs) + piece, record)
        if self._last:
            write_record(self.directory, counting.summing.source, number, _sums(*outputs[0]))
        return BlockResult(empty=not any(len(labels) for labels, _ in outputs))

    def describe(self) -> dict[str, Any]:
        return {"merge": self.counting.record(self.level - 1), "fan_in": self.counting.fan_in}


def merge_samples(records: list[Arrays]) -> Arrays:
    """Return a sample of the labels of all blocks, each standing for `weights` of theirs."""
    labels = np.concatenate([record["labels"] for record in records])
    weights = np.concatenate([record["weights"] for record in records])
    order = np.argsort(labels, kind="stable")
    labels, weights = labels[order], weights[order]
    most = _SAMPLE * 64
    if len(labels) <= most:
        return {"labels": labels, "weights": weights}
    total = np.cumsum(weights)
    at = np.unique(np.searchsorted(total, (np.arange(most) + 0.5) * total[-1] / most))
    return {"labels": labels[at], "weights": np.diff(total[at], prepend=0.0)}


def merge_sums(records: list[Arrays]) -> Arrays:
    """Return what is known of several ranges together."""
    added = {name: np.sum([r[name] for r in records], axis=0) for name in ("labels", "voxels", "background")}
    largest, sizes = (np.concatenate([record[name] for record in records]) for name in ("largest", "sizes"))
    return {**added, **_largest(largest, sizes)}


def _sample(labels: Labels) -> Arrays:
    at = np.linspace(0, len(labels) - 1, min(len(labels), _SAMPLE)).round().astype(np.int64)
    return {"labels": labels[at], "weights": np.full(len(at), len(labels) / max(1, len(at)))}


def _sums(labels: Labels, counts: npt.NDArray[np.int64]) -> Arrays:
    named = labels != 0
    totals = {"labels": np.count_nonzero(named), "voxels": counts.sum(), "background": counts[~named].sum()}
    arrays = {name: np.array([value], np.int64) for name, value in totals.items()}
    return {**arrays, **_largest(labels[named], counts[named])}


def _largest(labels: Labels, counts: npt.NDArray[np.int64]) -> Arrays:
    order = np.lexsort((labels, -counts))[:_LARGEST]
    return {"largest": labels[order], "sizes": counts[order]}


def _numbers(groups: int, buckets: int) -> BlockGrid:
    return BlockGrid(BoundingBox((0, 0, 0), (groups, buckets, 1)), (1, 1, 1))


@functools.lru_cache(maxsize=_CACHED)
def _kept(directory: str, stage: str, number: int) -> Arrays:
    return _required(directory, stage, number)


def _required(directory: str, stage: str, number: int) -> Arrays:
    record = read_record(directory, stage, number)
    if record is None:
        raise JobError(f"the counts of {stage} in {directory} are gone; delete the job's directory and run it again")
    return record


@functools.lru_cache(maxsize=8)
def _splitters(directory: str, stage: str, ranges: int) -> Labels:
    record = _kept(directory, stage, 0)
    total = np.cumsum(record["weights"])
    wanted = np.arange(1, ranges) * (total[-1] / ranges)
    at = np.minimum(np.searchsorted(total, wanted), len(total) - 1)
    splitters: Labels = record["labels"][at]
    return splitters
