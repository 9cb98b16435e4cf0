"""How many voxels every label has."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import JobError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs import Job, Report
from daskflow.jobs.evaluate import Tabulate
from daskflow.jobs.report import Finish
from daskflow.operators import options
from daskflow.scratch.records import Arrays, Reduce
from daskflow.scratch.tables import How, Table, merged
from daskflow.stores import kvstore
from daskflow.stores.kvstore import transaction
from daskflow.stores.objects.files import writing
from daskflow.stores.objects.intmap import write_intmap_in_parts
from daskflow.volume import BlockResult, Expression, Stage, Task, Volume, numbered, operator
from daskflow.volume.stage import Bound, Output, Scope, smaller_block

Labels = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Counted = tuple[Labels, Counts]

_BLOCK_VOXELS = 2**20  # memory of this size is allocated again without a call to the kernel
ENDINGS = (".im", ".csv", ".npy")
_LINES = 2**16
COLUMNS: dict[str, How] = {"labels": "key", "counts": "sum"}
_TILE = 2**21  # voxels whose runs are in memory at once
_SAMPLE = 1000  # voxels that show how far labels lie apart
_DENSE = 4  # a table of as many numbers as a quarter of the voxels is filled faster than runs are hashed
_LARGEST = 10


@operator(takes="labels")
def voxel_counts(volume: Volume, *, output: options.Destination | None = None, background: bool = True) -> Job:
    """Count the voxels of every label over the whole volume, as meshing and others look for them.

    Blocks are counted one by one; their tables are merged in ranges of labels, so that no process holds all labels,
    however many there are. A level of a precomputed layer, opened or just saved, gets ``KEY/stats/voxel_counts.im`` (an
    IntMap, which igneous and mapbuffer read), KEY being that of the level. Counts of anything else, e.g. of a part of a
    layer, go to `output` alone.

    Args:
        volume: a segmentation, with one channel.
        output: path or URL of a table besides: .csv (label,voxels), .npy (two columns of uint64) or .im (IntMap).
        background: count label 0, too; the report says in any case how many voxels it has.

    Returns:
        The job; ``run().results["voxel_counts"]`` has the numbers of labels, voxels and background voxels,
        ``results["largest_labels"]`` the voxels of the ten largest labels.

    Raises:
        ParameterError: the volume holds no labels, or the output has another ending.
    """
    expression = volume.expression
    grid = BlockGrid(volume.box, smaller_block(volume, _BLOCK_VOXELS), volume.spec.chunk_origin)
    counting = LabelCounts.over(expression, grid)
    layer = _layer_file(volume)
    outputs: tuple[str, ...] = () if layer is None else (layer[1],)
    if output is not None:
        table = kvstore.normalise(os.fspath(output))
        check_ending(table)
        outputs += (table,)
    stages = (*expression.stages, *counting.stages(expression))
    finish = (ReportCounts(counting, outputs),)
    if not outputs:
        return Job(stages, None, name="voxel counts", finish=finish)
    task = WriteCounts(counting, outputs, background)
    writing = Stage("write-counts", numbered(1), task, numbered=True, after=stages[-1:])
    directory = f"{layer[0]}.voxel-counts.daskflow/" if layer is not None else f"{outputs[0]}.daskflow/"
    makes = tuple(Output(url, "table") for url in outputs[layer is not None :])
    makes += () if layer is None else (Output(layer[1], "table", layer=layer[2]),)
    stages, kept = (*stages, writing), layer is not None
    return Job(stages, directory, name="voxel counts", finish=finish, makes=makes, renewable=kept)


@dataclass(frozen=True)
class ReportCounts(Finish):
    """Put what is known of the counts, and the URLs of the files that were written, into the report."""

    counting: LabelCounts
    outputs: tuple[str, ...]
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        """Add the sums to the report."""
        known = self.counting.summary()
        largest = known.pop("largest")
        report.results["voxel_counts"] = known
        if self.outputs:
            report.results["files"] = [kvstore.redact(url) for url in self.outputs]
        report.results["largest_labels"] = {f"label {label}": count for label, count in largest.items()}


def _layer_file(volume: Volume) -> tuple[str, str, str] | None:
    """Return where a job is kept and counts belong, and the layer, for a whole level of a precomputed one as stored."""
    store = volume.home
    if store is None or store.spec.box != volume.box or not store.extensible:
        return None
    job = store.url if store.mip == 0 else f"{store.url}.mip{store.mip}"
    return job, kvstore.join(store.directory, "stats", "voxel_counts.im"), store.url


@dataclass(frozen=True)
class WriteCounts(Task):
    """Write the counts of the whole, with or without the background, to files; the one block is the volume."""

    counting: LabelCounts
    outputs: tuple[str, ...]
    background: bool

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        known = self.counting.summary()
        rows = known["labels"] + int(self.background and known["background"] > 0)
        for url in self.outputs:
            write_table(url, rows, self._tables())
        return BlockResult()

    def _tables(self) -> Iterator[Counted]:
        for rows in self.counting.table.tables():
            kept = np.ones(len(rows["labels"]), bool) if self.background else rows["labels"] != 0
            yield rows["labels"][kept], rows["counts"][kept]

    def intact(self) -> bool:
        """Return whether the files are still there."""
        return all(kvstore.exists(url) for url in self.outputs)

    def check(self) -> None:
        for url in self.outputs:
            keeping_time(url)
            kvstore.check_writable(url.rpartition("/")[0])

    def describe(self) -> dict[str, Any]:
        return {"counts": self.counting.table.name, "outputs": list(self.outputs), "background": self.background}


def check_ending(url: str) -> None:
    """Raise unless a file of counts can have this name."""
    if not url.endswith(ENDINGS):
        raise ParameterError(f"counts are written to {', '.join(ENDINGS)} files, not {kvstore.redact(url)}")


def write_table(url: str, rows: int, tables: Iterator[Counted]) -> None:
    """Write so many rows of labels, which rise from table to table, and counts, atomically.

    The ending says how: ``.im`` (IntMap), ``.csv`` (label,voxels) or ``.npy`` (two columns of uint64).
    """
    if url.endswith(".im"):
        parts = ((labels, counts.astype(np.uint64)) for labels, counts in tables)
        write_intmap_in_parts(url, rows, parts)
        return
    with writing(url) as file:
        if url.endswith(".csv"):
            write_csv(file, ({"label": labels, "voxels": counts} for labels, counts in tables))
            return
        np.lib.format.write_array_header_1_0(file, {"descr": "<u8", "fortran_order": False, "shape": (rows, 2)})
        for labels, counts in tables:
            file.write(np.stack((labels, counts.astype(np.uint64)), axis=1).astype("<u8").tobytes())


def keeping_time(url: str) -> None:
    """Make the local directory of a file; the time of the one above it, by which new chunks are noticed, stays."""
    path = kvstore.local_path(url)
    if path is None or path.parent.exists() or transaction() is not None:
        return
    above: Path = path.parent.parent
    before = above.stat() if above.is_dir() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    if before is not None:
        os.utime(above, ns=(before.st_atime_ns, before.st_mtime_ns))


def write_csv(file: IO[bytes], tables: Iterable[Arrays]) -> int:
    """Write tables of the same columns one after the other, under one header, and return the number of rows."""
    rows = 0
    for number, table in enumerate(tables):
        columns = list(table.values())
        if not number:
            file.write((",".join(table) + "\n").encode())
        for at in range(0, len(columns[0]), _LINES):
            lines = zip(*(column[at : at + _LINES].tolist() for column in columns), strict=True)
            file.write("".join(f"{','.join(map(str, line))}\n" for line in lines).encode())
        rows += len(columns[0])
    return rows


def count_labels(array: npt.NDArray[Any]) -> Counted:
    """Return the labels of an array of bool or integers, sorted, and how many voxels each has; refuse negative ones."""
    import fastremap

    flat = array.reshape(-1)
    if not flat.size:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    if flat.dtype == bool:
        flat = flat.view(np.uint8)
    some = flat[:: max(1, flat.size // _SAMPLE)]
    if int(some.max()) - int(some.min()) > flat.size // _DENSE:
        tables = [_hashed(flat[at : at + _TILE]) for at in range(0, flat.size, _TILE)]
        return add_tables(tables)
    labels, counts = fastremap.unique(flat, return_counts=True)
    _refuse_negative(labels[0])
    return labels.astype(np.uint64), counts.astype(np.int64)


def add_tables(tables: Sequence[Counted]) -> Counted:
    """Return the table of all parts together, sorted by label."""
    if len(tables) == 1:
        return tables[0]
    parts = [{"labels": labels, "counts": counts} for labels, counts in tables]
    whole = merged(COLUMNS, parts or [{"labels": np.empty(0, np.uint64), "counts": np.empty(0, np.int64)}])
    return whole["labels"], whole["counts"]


def _hashed(flat: npt.NDArray[Any]) -> Counted:
    """Return the table of labels from any range: runs of equal voxels are distinguished by hashing."""
    import fastremap

    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1)
    lengths = np.diff(ends, prepend=-1)
    _refuse_negative(flat[ends].min())
    numbers, names = fastremap.renumber(flat[ends].astype(np.uint64), preserve_zero=False)
    labels = np.fromiter(names.keys(), np.uint64, len(names))
    sums = np.bincount(numbers, lengths, minlength=len(names) + 1)[np.fromiter(names.values(), np.int64, len(names))]
    order = np.argsort(labels)
    return labels[order], sums[order].astype(np.int64)


def _refuse_negative(lowest: Any) -> None:
    if lowest < 0:
        raise ParameterError(f"labels must not be negative; there is {lowest}")


@dataclass(frozen=True)
class LabelCounts(Bound):
    """One counting of the voxels of every label: its passes, and what they leave.

    Attributes:
        grid: the blocks.
        scope: where its records lie.
        fan_in: how many tables are merged at once.
    """

    grid: BlockGrid
    scope: Scope
    fan_in: int = 64

    @classmethod
    def over(cls, expression: Expression, grid: BlockGrid) -> LabelCounts:
        """Return the counting of labels that an expression gives; the same for all that need the same counts."""
        return cls(grid, Scope("counts", (expression, grid)))

    @functools.cached_property
    def table(self) -> Table:
        """The columns `labels`, all that occur, and `counts`."""
        table = Table("counts", len(self.grid), COLUMNS, self.scope, fan_in=self.fan_in)
        return table.into(_sums, Reduce("sum-counts", "sums", table.ranges, merge_sums, self.scope, fan_in=self.fan_in))

    def stages(self, expression: Expression) -> tuple[Stage, ...]:
        """Return all passes over the labels, in order; those that the expression waits for not included."""
        return Tabulate(self.table, self.grid, counts_of).stages("count-voxels", expression)

    def of(self, labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return how many voxels of the whole volume some labels, in any order, have; 0 for one that does not occur."""
        return self.table.of(labels)["counts"]

    def summary(self) -> dict[str, Any]:
        """Return what is known of the whole as JSON values: labels, voxels, background and the largest labels."""
        ((_, summing),) = self.table.then
        assert isinstance(summing, Reduce)
        record = summing.result()
        if int(record["voxels"][0]) != self.grid.box.size:
            raise JobError(
                f"scratch data in {self.scope.url} hold {int(record['voxels'][0]):,} of {self.grid.box.size:,} voxels;"
                " delete the job's directory and run it again"
            )
        largest = zip(record["largest"].tolist(), record["sizes"].tolist(), strict=True)
        return {
            "labels": int(record["labels"][0]),
            "voxels": int(record["voxels"][0]),
            "background": int(record["background"][0]),
            "largest": {str(label): count for label, count in largest},
        }


def counts_of(box: BoundingBox, array: npt.NDArray[Any]) -> Arrays:  # noqa: ARG001
    """Return the rows of a block."""
    labels, counts = count_labels(array)
    return {"labels": labels, "counts": counts}


def merge_sums(records: list[Arrays]) -> Arrays:
    """Return what is known of several ranges together."""
    added = {name: np.sum([r[name] for r in records], axis=0) for name in ("labels", "voxels", "background")}
    largest, sizes = (np.concatenate([record[name] for record in records]) for name in ("largest", "sizes"))
    return {**added, **_largest(largest, sizes)}


def _sums(rows: Arrays) -> Arrays:
    labels, counts = rows["labels"], rows["counts"]
    named = labels != 0
    totals = {"labels": np.count_nonzero(named), "voxels": counts.sum(), "background": counts[~named].sum()}
    arrays = {name: np.array([value], np.int64) for name, value in totals.items()}
    return {**arrays, **_largest(labels[named], counts[named])}


def _largest(labels: Labels, counts: npt.NDArray[np.int64]) -> Arrays:
    order = np.lexsort((labels, -counts))[:_LARGEST]
    return {"largest": labels[order], "sizes": counts[order]}
