"""The passes of a skeletonization: trace every block, write the skeleton of every label, index and announce them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

import daskflow
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs import Report
from daskflow.jobs.evaluate import VoxelTask
from daskflow.jobs.report import Finish
from daskflow.operators.objects._label_objects import (
    announce,
    check_joined,
    check_own_directory,
    report_absent,
    still_there,
)
from daskflow.operators.objects.skeletonize.pieces import (
    Piece,
    join_pieces,
    pack_piece,
    unpack_piece,
    without_shared_sheets,
)
from daskflow.operators.objects.skeletonize.plan import Labels, Skeletonizing, share_labels
from daskflow.operators.objects.skeletonize.prune import cable_length, prune, retrace
from daskflow.operators.objects.skeletonize.teasar import check_installed, trace_labels
from daskflow.operators.segmentation.voxel_counts import count_labels
from daskflow.scratch.pieces import Fragment
from daskflow.scratch.records import Arrays, required_records, write_record
from daskflow.stores import kvstore
from daskflow.stores.objects.files import write_file, writing
from daskflow.stores.objects.shards import write_shard
from daskflow.stores.objects.skeleton_files import CROSS_SECTION, RADIUS, Json, Skeleton, encode_skeleton, skeleton_info
from daskflow.volume import BlockResult, Estimate, Task
from daskflow.volume.expression import Fetched
from daskflow.volume.stage import Scope

Outputs = tuple[dict[int, Piece], dict[str, int]]
Row = tuple[int, float, int]

_SECONDS = 4e-6  # per voxel of real neurites
BLOCK_BYTES = 24  # per voxel: labels as numbers, distances, and what searches paths in the box of the largest label
_AT_ONCE = 2**26  # bytes of pieces that are read before they are joined
_MEMORY = 2**29  # guess: what joining the pieces of a label with a million vertices takes
_LARGEST = 10
_TRACED = "traced"  # the records of what was traced in each task
_WRITTEN = "written"  # those of the skeletons of each bucket, of which these are the columns; cable in nm
_COLUMNS = {"labels": np.uint64, "cable": np.float64, "vertices": np.int64}


@dataclass(frozen=True)
class TraceLabels(VoxelTask):
    """Trace the labels of one share of a block."""

    plan: Skeletonizing

    def read(self, box: BoundingBox) -> Fetched:
        return self.expression.fetch_counted([self._read_box(box)])

    def compute(self, box: BoundingBox, inputs: Fetched) -> Outputs:
        block, share, _ = self.plan.task(box)
        inside, read_box = self.plan.grid[block], self._read_box(box)
        (array,), counts = self.expression.compute_counted([read_box], inputs)
        assert array is not None
        voxels, whole = array.reshape(read_box.shape), self.plan.grid.box
        labels = share_labels(voxels, self._chosen(voxels), self.plan.shares)[share]
        pieces: dict[int, Piece] = {}
        if len(labels):
            z, y, x = (a - b for a, b in zip(inside.start, whole.start, strict=True))
            for label, piece in trace_labels(voxels, (z, y, x), labels, self.plan.tracing):
                kept = without_shared_sheets(piece, inside, whole)
                if len(kept.vertices):
                    pieces[label] = kept
        return pieces, counts if share == 0 else {}

    def _chosen(self, voxels: npt.NDArray[Any]) -> Labels:
        """Return which labels of a block are traced, ascending; small ones are looked up among all of the volume."""
        selection, counting = self.plan.selection, self.plan.counting
        labels, sizes = count_labels(voxels)
        wanted = (labels != 0) & ~np.isin(labels, np.array(selection.exclude, np.uint64))
        if selection.labels is not None:
            wanted &= np.isin(labels, np.array(selection.labels, np.uint64))
        labels, sizes = labels[wanted], sizes[wanted]
        if counting is not None:
            small = sizes < selection.dust
            keep = ~small
            keep[small] = counting.of(labels[small]) >= selection.dust
            labels = labels[keep]
        chosen: Labels = labels
        return chosen

    def write(self, box: BoundingBox, outputs: Outputs) -> BlockResult:
        pieces, counts = outputs
        number = self.plan.task(box)[2]
        bounds = {label: self._bounds(piece) for label, piece in pieces.items()}
        packed = {label: pack_piece(piece) for label, piece in pieces.items()}
        totals = self.plan.pieces.write(number, packed, bounds)
        labels = sorted(pieces)
        record = {
            "labels": np.array(labels, np.uint64),
            "bounds": np.array([bounds[label] for label in labels], np.float64).reshape(-1, 6),
        }
        write_record(self.plan.pieces.scope.url, _TRACED, number, record)
        return BlockResult(empty=not pieces, counts=counts | totals)

    def _bounds(self, piece: Piece) -> Sequence[float]:
        places = self.plan.places(piece)
        return [*places.min(axis=0).tolist(), *places.max(axis=0).tolist()]

    def _read_box(self, box: BoundingBox) -> BoundingBox:
        """Return a block with the voxels on its high sides that it shares with the next ones."""
        return self.plan.grid[self.plan.task(box)[0]].grow(0, 1).clip(self.plan.grid.box)

    def whole(self, grid: BlockGrid) -> list[BoundingBox | None]:  # noqa: ARG002 (of blocks and shares)
        return [self.plan.grid.box]

    def estimate(self, box: BoundingBox) -> Estimate:
        read_box = self._read_box(box)
        estimate = self.expression.estimate([read_box])
        return dataclasses.replace(
            estimate,
            memory=estimate.memory + BLOCK_BYTES * read_box.size,
            locked_seconds=_SECONDS * read_box.size / self.plan.shares,
            option="skeletonize --shape",
        )

    def check(self) -> None:
        check_installed()
        super().check()
        kvstore.check_writable(self.plan.pieces.scope.url)

    def describe(self) -> dict[str, Any]:
        return {"daskflow": daskflow.__version__, "expression": self.expression.describe(), **self.plan.describe()}


@dataclass(frozen=True)
class WriteSkeletons(Task):
    """Join, prune and write the skeletons of the labels in a bucket; `job` is the URL of its directory, once bound."""

    plan: Skeletonizing
    job: str = ""

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        bucket, pieces, target = box.start[0], self.plan.pieces, self.plan.target
        rows, counts = list[Row](), Counter[str]()
        sharding = pieces.shards()
        if sharding is None:
            for label, data in self._encoded(pieces.labels_of(bucket), rows, counts):
                write_file(target.url, str(label), data, compression=target.compression)
        else:
            for number, labels in pieces.shards_of(bucket):
                write_shard(target.url, number, sharding, self._encoded(labels, rows, counts))
        rows.sort()
        record = {
            name: np.array([row[place] for row in rows], dtype) for place, (name, dtype) in enumerate(_COLUMNS.items())
        }
        write_record(pieces.scope.url, _WRITTEN, bucket, record)
        counts["skeletons"] = len(rows)
        return BlockResult(empty=not rows, counts=dict(counts))

    def _encoded(
        self, labels: Iterable[tuple[int, list[Fragment]]], rows: list[Row], counts: Counter[str]
    ) -> Iterator[tuple[int, bytes]]:
        """Yield the file of each label that has a skeleton, add its row, and count what became of every label."""
        longest = self.plan.pruning.longest
        for label, fragments in labels:
            counts["joined_fragments"] += len(fragments)
            piece, length = self._skeleton(fragments)
            if not len(piece.vertices):
                counts["short_skeletons_left_out"] += 1
            elif longest is not None and length > longest:
                counts["long_skeletons_left_out"] += 1
            else:
                rows.append((label, length, len(piece.vertices)))
                skeleton = Skeleton(self.plan.positions(piece), piece.edges, piece.attributes)
                yield label, encode_skeleton(skeleton, vertex_attributes(self.plan))

    def _skeleton(self, fragments: Sequence[Fragment]) -> tuple[Piece, float]:
        size, pruning, pieces = self.plan.tracing.anisotropy, self.plan.pruning, self.plan.pieces
        piece = join_pieces([])
        for batch in _batches(fragments):
            data = pieces.read_all(batch)
            parts = [
                unpack_piece(one, self.plan.tracing.attributes, f"{pieces.scope.url} (block {fragment.block})")
                for one, fragment in zip(data, batch, strict=True)
            ]
            piece = join_pieces([piece, *parts] if len(piece.vertices) else parts)
        if len(fragments) > 1:
            piece = retrace(piece, self.plan.tracing, self.plan.faces_of_ends(piece))
        piece = prune(piece, size, shortest=pruning.shortest, tick=pruning.tick)
        return piece, cable_length(piece, size)

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002 (only tracing would show it)
        return Estimate(memory=_MEMORY)

    def check(self) -> None:
        check_own_directory(self.plan.target.url, self.job, kind="skeletons")

    def intact(self) -> bool:
        return still_there(self.plan.target.url, self.plan.pieces, _TRACED)

    def describe(self) -> dict[str, Any]:
        sharding = self.plan.pieces.sharding
        return {
            "pruning": dataclasses.asdict(self.plan.pruning),
            "target": dataclasses.asdict(self.plan.target),
            "sharding": None if sharding is None else dict(sharding),
        }


@dataclass(frozen=True)
class IndexSkeletons(Task):
    """Write, for every block, which skeletons are in it."""

    plan: Skeletonizing

    def read(self, box: BoundingBox) -> list[Arrays]:
        (block,) = self.plan.grid.touching(box)
        shares = self.plan.shares
        return required_records(self.plan.pieces.scope.url, _TRACED, range(block * shares, (block + 1) * shares))

    def compute(self, box: BoundingBox, inputs: list[Arrays]) -> dict[int, list[float]]:  # noqa: ARG002
        labels = np.concatenate([record["labels"] for record in inputs])
        bounds = np.concatenate([record["bounds"] for record in inputs])
        keep = np.zeros(len(labels), bool)
        buckets = self.plan.pieces.bucket_numbers(labels)
        for bucket in np.unique(buckets).tolist():
            here = buckets == bucket
            keep[here] = np.isin(labels[here], _written(self.plan.pieces.scope, bucket)["labels"])
        return dict(zip(labels[keep].tolist(), bounds[keep].tolist(), strict=True))

    def write(self, box: BoundingBox, outputs: dict[int, list[float]]) -> BlockResult:
        self.plan.index.write(self.plan.target.url, box, outputs, compression=self.plan.target.compression)
        return BlockResult(empty=not outputs)

    def describe(self) -> dict[str, Any]:
        return {"pieces": self.plan.pieces.source, "index": self.plan.index.info}


@functools.lru_cache(maxsize=64)
def _written(scope: Scope, bucket: int) -> Arrays:
    return required_records(scope.url, _WRITTEN, [bucket])[0]


@dataclass(frozen=True)
class FinishSkeletons(Finish):
    """Check and add up what was written, and then announce it.

    Attributes:
        layer: URL of the layer that they belong to, None when they stand alone.
        table: URL of a CSV file with a row for each skeleton, or None.
    """

    plan: Skeletonizing
    layer: str | None
    table: str | None
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:
        plan = self.plan
        check_joined(report.counts, directory, kind="skeletons", made="traced")
        with contextlib.nullcontext() if self.table is None else writing(self.table) as file:
            totals, longest = self._totals(file)
        report.results["skeletons"] = totals
        report.results["longest_cables_nm"] = {f"label {label}": length for length, label in longest}
        report_absent(report, plan.pieces, plan.selection, kind="skeletons")
        x, y, z = plan.translation
        info = skeleton_info(
            transform=(1, 0, 0, x, 0, 1, 0, y, 0, 0, 1, z),
            vertex_attributes=vertex_attributes(plan),
            mip=plan.target.mip,
            sharding=plan.pieces.shards(),
            spatial_index=plan.index.info,
        )
        announce(report, plan.target.url, info, self.layer, plan.selection, kind="skeletons")

    def _totals(self, file: IO[bytes] | None) -> tuple[dict[str, float], list[tuple[float, int]]]:
        """Return the sums and the longest skeletons, and write the rows of the table, bucket by bucket."""
        totals = {"skeletons": 0, "vertices": 0, "cable_length_nm": 0.0}
        longest: list[tuple[float, int]] = []
        if file is not None:
            file.write(b"label,cable_length_nm,vertices\n")
        for bucket in range(self.plan.pieces.buckets):
            record = _written(self.plan.pieces.scope, bucket)
            labels, cable, vertices = (record[name].tolist() for name in _COLUMNS)
            totals["skeletons"] += len(labels)
            totals["vertices"] += sum(vertices)
            totals["cable_length_nm"] += sum(cable)
            longest = sorted([*longest, *zip(cable, labels, strict=True)], key=lambda one: (-one[0], one[1]))[:_LARGEST]
            if file is not None:
                rows = zip(labels, cable, vertices, strict=True)
                file.write("".join(f"{label},{length:.2f},{count}\n" for label, length, count in rows).encode())
        return totals, longest


def vertex_attributes(plan: Skeletonizing) -> list[Json]:
    """Return the attributes that files hold, as an ``info`` has them."""
    known = {attribute["id"]: attribute for attribute in (RADIUS, CROSS_SECTION)}
    return [known[name] for name in plan.tracing.attributes]


def _batches(fragments: Sequence[Fragment]) -> Iterator[list[Fragment]]:
    """Yield fragments in groups of few bytes."""
    batch: list[Fragment] = []
    size = 0
    for fragment in fragments:
        if batch and size + fragment.size > _AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(fragment)
        size += fragment.size
    if batch:
        yield batch
