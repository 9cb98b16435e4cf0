"""The passes that join the pieces of each label, write its skeleton, and index where skeletons are."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskflow.geometry import BoundingBox
from daskflow.operators.objects._destination import check_own_directory
from daskflow.operators.objects.skeletonize.join import join_pieces
from daskflow.operators.objects.skeletonize.pieces import Piece, unpack_piece
from daskflow.operators.objects.skeletonize.plan import TRACED, WRITTEN, Pruning, Skeletonizing
from daskflow.operators.objects.skeletonize.prune import cable_length, prune
from daskflow.operators.objects.skeletonize.retrace import retrace
from daskflow.scratch.pieces import Fragment
from daskflow.scratch.records import Arrays, record_url, required_records, write_record
from daskflow.stores import kvstore
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.shards import write_shard
from daskflow.stores.objects.skeleton_files import CROSS_SECTION, RADIUS, Json, Skeleton, encode_skeleton
from daskflow.volume import BlockResult, Estimate, Task
from daskflow.volume.stage import Scope, Scopes

_AT_ONCE = 2**26  # bytes of pieces that are read before they are joined
_MEMORY = 2**29  # guess: what joining the pieces of a label with a million vertices takes


@dataclass(frozen=True)
class Target:
    """Where skeletons go.

    Attributes:
        url: of the directory.
        compression: second stage of unsharded files: none, gzip or br.
    """

    url: str
    compression: str = "none"


@dataclass
class _Table:
    """What is known of the skeletons of a bucket."""

    labels: list[int] = field(default_factory=list)
    cable: list[float] = field(default_factory=list)
    vertices: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def record(self) -> Arrays:
        """Return it as the record of the bucket, by ascending label."""
        order = np.argsort(np.array(self.labels, np.uint64), kind="stable")
        return {
            "labels": np.array(self.labels, np.uint64)[order],
            "cable": np.array(self.cable, np.float64)[order],
            "vertices": np.array(self.vertices, np.int64)[order],
        }


@dataclass(frozen=True)
class WriteSkeletons(Task):
    """Join, prune and write the skeletons of the labels in a bucket.

    Attributes:
        plan: the skeletonization.
        pruning: what is left out.
        target: where they go.
        job: URL of the job's directory, once bound.
    """

    plan: Skeletonizing
    pruning: Pruning
    target: Target
    job: str = ""

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        bucket, table, pieces = box.start[0], _Table(), self.plan.pieces
        sharding = pieces.shards()
        if sharding is None:
            for label, data in self._encoded(pieces.labels_of(bucket), table):
                write_file(self.target.url, str(label), data, compression=self.target.compression)
        else:
            for number, labels in pieces.shards_of(bucket):
                write_shard(self.target.url, number, sharding, self._encoded(labels, table))
        write_record(pieces.scope.url, WRITTEN, bucket, table.record())
        table.counts["skeletons"] = len(table.labels)
        return BlockResult(empty=not table.labels, counts=dict(table.counts))

    def _encoded(
        self, labels: Iterator[tuple[int, list[Fragment]]] | list[tuple[int, list[Fragment]]], table: _Table
    ) -> Iterator[tuple[int, bytes]]:
        """Yield the file of each label that has a skeleton, and note in `table` what became of every label."""
        for label, fragments in labels:
            table.counts["joined_fragments"] += len(fragments)
            piece, length = self._skeleton(fragments)
            if not len(piece.vertices):
                table.counts["short_skeletons_left_out"] += 1
            elif self.pruning.longest is not None and length > self.pruning.longest:
                table.counts["long_skeletons_left_out"] += 1
            else:
                table.labels.append(label)
                table.cable.append(length)
                table.vertices.append(len(piece.vertices))
                yield label, self._file(piece)

    def _skeleton(self, fragments: Sequence[Fragment]) -> tuple[Piece, float]:
        size = self.plan.tracing.anisotropy
        piece = join_pieces([])
        for batch in _batches(fragments):
            names, pieces = self.plan.tracing.attributes, self.plan.pieces
            data = pieces.read_all(batch)
            parts = [
                unpack_piece(one, names, f"{pieces.scope.url} ({pieces.source}, block {fragment.block})")
                for one, fragment in zip(data, batch, strict=True)
            ]
            piece = join_pieces([piece, *parts] if len(piece.vertices) else parts)
        if len(fragments) > 1:
            piece = retrace(piece, self.plan.tracing, self.plan.faces_of_ends(piece))
        piece = prune(piece, size, shortest=self.pruning.shortest, tick=self.pruning.tick)
        return piece, cable_length(piece, size)

    def _file(self, piece: Piece) -> bytes:
        skeleton = Skeleton(self.plan.positions(piece), piece.edges, piece.attributes)
        return encode_skeleton(skeleton, vertex_attributes(self.plan))

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        """Guess the memory, which only tracing would tell."""
        return Estimate(memory=_MEMORY)

    def check(self) -> None:
        """Raise unless the directory can be written, and is new or of this job.

        Raises:
            MetadataMismatchError: there are skeletons of another job.
            StoreAccessError: the location refuses.
        """
        check_own_directory(self.target.url, self.job, kind="skeletons", option="--skeletons")

    def intact(self) -> bool:
        """Return whether what an earlier run wrote is still there: scratch data until it is complete, then the info."""
        return kvstore.exists(f"{self.target.url}/info") or kvstore.exists(
            record_url(self.plan.pieces.scope.url, TRACED, 0)
        )

    def describe(self) -> dict[str, Any]:
        sharding = self.plan.pieces.sharding
        return {
            "pruning": dataclasses.asdict(self.pruning),
            "target": dataclasses.asdict(self.target),
            "sharding": None if sharding is None else dict(sharding),
        }

    def bind(self, scopes: Scopes) -> WriteSkeletons:
        return dataclasses.replace(super().bind(scopes), job=scopes.job)


@dataclass(frozen=True)
class IndexSkeletons(Task):
    """Write, for every block, which skeletons are in it.

    Attributes:
        plan: the skeletonization.
        target: where they are.
    """

    plan: Skeletonizing
    target: Target

    def read(self, box: BoundingBox) -> list[Arrays]:
        (block,) = self.plan.grid.touching(box)
        shares = self.plan.shares
        return required_records(self.plan.pieces.scope.url, TRACED, range(block * shares, (block + 1) * shares))

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
        self.plan.index.write(self.target.url, box, outputs, compression=self.target.compression)
        return BlockResult(empty=not outputs)

    def describe(self) -> dict[str, Any]:
        return {"pieces": self.plan.pieces.source, "index": self.plan.index.info}


def vertex_attributes(plan: Skeletonizing) -> list[Json]:
    """Return the attributes that files hold, as an ``info`` has them."""
    known = {attribute["id"]: attribute for attribute in (RADIUS, CROSS_SECTION)}
    return [known[name] for name in plan.tracing.attributes]


def written(plan: Skeletonizing) -> Iterator[Arrays]:
    """Yield what is known of the skeletons of each bucket: labels, cable (nm) and vertices."""
    return (required_records(plan.pieces.scope.url, WRITTEN, [bucket])[0] for bucket in range(plan.pieces.buckets))


@functools.lru_cache(maxsize=64)
def _written(scope: Scope, bucket: int) -> Arrays:
    return required_records(scope.url, WRITTEN, [bucket])[0]


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
