"""The pass that traces the labels of every block."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import daskflow
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.evaluate import VoxelTask
from daskflow.operators.objects.skeletonize.join import without_shared_sheets
from daskflow.operators.objects.skeletonize.pieces import Piece, pack_piece
from daskflow.operators.objects.skeletonize.plan import TRACED, Labels, Skeletonizing
from daskflow.operators.objects.skeletonize.shares import share_labels
from daskflow.operators.objects.skeletonize.teasar import Cutout, check_installed, trace_labels
from daskflow.operators.segmentation.voxel_counts.blocks import count_labels
from daskflow.scratch.records import write_record
from daskflow.stores import kvstore
from daskflow.volume import BlockResult, Estimate
from daskflow.volume.expression import Fetched

Outputs = tuple[dict[int, Piece], dict[str, int]]

_SECONDS = 4e-6  # per voxel of real neurites
BLOCK_BYTES = 24  # per voxel: labels as numbers, distances, and what searches paths in the box of the largest label


@dataclass(frozen=True)
class TraceLabels(VoxelTask):
    """Trace the labels of one share of a block.

    Attributes:
        plan: the skeletonization.
    """

    plan: Skeletonizing

    def read(self, box: BoundingBox) -> Fetched:
        return self.expression.fetch_counted([self._read_box(box)])

    def compute(self, box: BoundingBox, inputs: Fetched) -> Outputs:
        block, share, _ = self.plan.task(box)
        inside, read_box = self.plan.grid[block], self._read_box(box)
        (array,), counts = self.expression.compute_counted([read_box], inputs)
        assert array is not None
        whole = self.plan.grid.box
        cutout = Cutout(array.reshape(read_box.shape), read_box, inside, whole)
        labels = share_labels(cutout.labels, self._chosen(cutout.labels), self.plan.shares)[share]
        pieces: dict[int, Piece] = {}
        if len(labels):
            for label, piece in trace_labels(cutout, labels, self.plan.tracing):
                kept = without_shared_sheets(piece, inside, whole)
                if len(kept.vertices):
                    pieces[label] = kept
        return pieces, counts if share == 0 else {}

    def _chosen(self, voxels: npt.NDArray[Any]) -> Labels:
        """Return which labels of a block are traced, ascending; small ones are looked up among all of the volume."""
        selection, counting = self.plan.selection, self.plan.counting
        labels, sizes = count_labels(voxels)
        wanted = np.isin(labels, selection.chosen(labels))
        labels, sizes = labels[wanted], sizes[wanted]
        if counting is not None:
            small = sizes < selection.dust
            keep = ~small
            keep[small] = counting.of(labels[small]) >= selection.dust
            labels = labels[keep]
        return labels

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
        write_record(self.plan.pieces.scope.url, TRACED, number, record)
        return BlockResult(empty=not pieces, counts=counts | totals)

    def _bounds(self, piece: Piece) -> Sequence[float]:
        places = self.plan.places(piece)
        return [*places.min(axis=0).tolist(), *places.max(axis=0).tolist()]

    def _read_box(self, box: BoundingBox) -> BoundingBox:
        return self.plan.inner(self.plan.grid[self.plan.task(box)[0]])

    def whole(self, grid: BlockGrid) -> list[BoundingBox | None]:  # noqa: ARG002 (of blocks and shares)
        return [self.plan.grid.box]

    def estimate(self, box: BoundingBox) -> Estimate:
        read_box = self._read_box(box)
        estimate = self.expression.estimate([read_box])
        return dataclasses.replace(
            estimate,
            memory=estimate.memory + BLOCK_BYTES * read_box.size,
            locked_seconds=_SECONDS * read_box.size / self.plan.shares,
        )

    def check(self) -> None:
        check_installed()
        super().check()
        kvstore.check_writable(self.plan.pieces.scope.url)

    def describe(self) -> dict[str, Any]:
        return {"daskflow": daskflow.__version__, "expression": self.expression.describe(), **self.plan.describe()}
