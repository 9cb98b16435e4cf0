"""Pieces: bytes by label that blocks leave, and passes that gather by label where they are.

A block leaves one object with the bytes of all its pieces, and a record that lists them. `Pieces` sorts these lists,
not the bytes, into buckets, group by group, so that no task reads more than about what 64 blocks have listed:

    blocks    0 ... 63     64 ... 127    128 ...         lists sorted by label
    level 1      0             1            2            64 blocks each, cut by bucket
    level 2   0: bucket 0-3   1: bucket 4-7   ...        64 groups each, of some buckets
    ...                                                  until one group is left

Nothing is listed by prefix: every name follows from a number. Bytes of pieces are read where the blocks left them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import MissingChunkError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.scratch.records import Arrays, Reduce, at_once, numbered, required_records, write_record
from daskflow.stores import kvstore
from daskflow.stores.objects.shards import Sharding, murmurhash, object_sharding, shard_numbers
from daskflow.volume.stage import BlockResult, Bound, Scope, Stage, Task

Labels = npt.NDArray[np.uint64]
Bounds = tuple[float, float, float, float, float, float]

_FAN_IN = 64
_MOST_BUCKETS = 4096
_FEWEST_BUCKETS = 16
_ROWS = 2**16  # of a list that are Python's numbers at once
_SMALL = 2**14  # bytes of a label that is read with others ...
_TOGETHER = 256  # ... of so many pieces
_NEAR = 2**16  # bytes between pieces that one request reads, with what is between them

_EXACT = 2**16  # labels that a record lists; of more it keeps a sketch
_BITS = 14  # of a hash that choose a register: the estimate is off by 0.8 % (standard deviation)
_RANKS = 64 - _BITS


@dataclass(frozen=True)
class Fragment:
    """A piece: where the bytes are that one block has left of one label.

    They are `size` bytes from `start` on in the block's object; bounds are x0, y0, z0, x1, y1, z1 in nm, zeros where
    the block gave none.
    """

    label: int
    block: int
    start: int
    size: int
    bounds: Bounds


def bucket_count(blocks: int) -> int:
    """Return how many buckets suit a number of blocks: a power of two, about one for 8 blocks, 16 to 4,096."""
    return min(max(1 << max(blocks // 8 - 1, 0).bit_length(), _FEWEST_BUCKETS), _MOST_BUCKETS)


@dataclass(frozen=True)
class Pieces(Bound):
    """What blocks write of labels, and the stages that gather it.

    Attributes:
        name: of the stages, with a number behind it.
        source: name that identifies these pieces in the scope.
        blocks: how many there are; each writes.
        buckets: how many tasks the labels are shared out to; a power of two, see `bucket_count`.
        scope: where all of it lies.
        sharding: keyword arguments of `object_sharding` when labels go to shards: then all labels of shard n are in
            bucket n mod `buckets`, in the order of shards. None spreads them by their hash.
        fan_in: lists that one task merges.
    """

    name: str
    source: str
    blocks: int
    buckets: int
    scope: Scope
    sharding: Mapping[str, Any] | None = None
    fan_in: int = _FAN_IN

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.fan_in < 2 or self.buckets < 1 or self.buckets & (self.buckets - 1):
            raise ParameterError(
                f"no pieces of {self.blocks} blocks in {self.buckets} buckets, {self.fan_in} at a time: buckets must"
                " be a power of two"
            )
        if self.sharding is not None:
            object_sharding(1, **self.sharding)

    def write(
        self, block: int, pieces: Mapping[int, bytes], bounds: Mapping[int, Sequence[float]] | None = None
    ) -> dict[str, int]:
        """Store what a block has of each label; the same pieces give the same bytes.

        Every block must call this, also one that has none: a block without a list counts as lost. Bounds are by label,
        xyz in nm. The result is for `BlockResult.counts`.
        """
        labels = sorted(pieces)
        sizes = np.array([len(pieces[label]) for label in labels], np.uint64)
        corners = np.zeros((len(labels), 6)) if bounds is None else np.array([bounds[label] for label in labels])
        rows = {
            "label": np.array(labels, np.uint64),
            "block": np.full(len(labels), block, np.uint64),
            "start": np.cumsum(sizes) - sizes,
            "size": sizes,
            "bounds": corners.reshape(-1, 6),
        }
        kvstore.write_bytes(self._place(block), b"".join(pieces[label] for label in labels))
        write_record(self.scope.url, self.record(0), block, rows)
        return {"fragments": len(labels), "fragment_bytes": int(sizes.sum())}

    @property
    def counting(self) -> Reduce:
        """The passes that count the labels."""
        groups = -(-self.blocks // self.fan_in)
        name, source = f"count-{self.source}", f"{self.source}-labels"
        return Reduce(name, source, groups, join_labels, self.scope, fan_in=self.fan_in)

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages, in order, to be put behind the one whose blocks write."""
        blocks = BlockGrid(BoundingBox((0, 0, 0), (self.blocks, 1, 1)), (self.fan_in, 1, 1))
        stages = [Stage(f"{self.name}-labels", blocks, _ListLabels(self), numbered=True), *self.counting.stages()]
        for level, (sources, splits, _) in enumerate(self.levels, 1):
            grid = BlockGrid(BoundingBox((0, 0, 0), (sources, splits, 1)), (self.fan_in, 1, 1))
            stages.append(Stage(f"{self.name}-{level}", grid, _Gather(self, level), numbered=True))
        return tuple(stages)

    @property
    def label_count(self) -> int:
        """How many labels have pieces, once the stages ran: exactly up to 65,536, else within about a per cent."""
        return label_count(self.counting.result())

    def shards(self) -> Sharding | None:
        """Return the ``sharding`` JSON for as many labels as there are, None when they do not go to shards."""
        return None if self.sharding is None else object_sharding(self.label_count, **self.sharding)

    def bucket_numbers(self, labels: Labels) -> Labels:
        """Return the bucket of each label, once labels are counted."""
        return _order(labels, self.shards()) & np.uint64(self.buckets - 1)

    def labels_of(self, bucket: int) -> Iterator[tuple[int, list[Fragment]]]:
        """Yield the labels of a bucket with their pieces, in the order of blocks; of shards one after another.

        Within a shard, and without shards, labels ascend.
        """
        listed = self._listed(bucket, None)
        return ((label, [one for _, one in found]) for (_, label), found in listed)

    def shards_of(self, bucket: int) -> Iterator[tuple[int, list[tuple[int, list[Fragment]]]]]:
        """Yield the shards of a bucket: number, and labels (ascending) with their pieces."""
        listed = self._listed(bucket, self.shards())
        labels = ((shard, label, [one for _, one in found]) for (shard, label), found in listed)
        for number, those in itertools.groupby(labels, key=lambda one: one[0]):
            yield number, [(label, found) for _, label, found in those]

    def _listed(
        self, bucket: int, sharding: Sharding | None
    ) -> Iterator[tuple[tuple[int, int], Iterator[tuple[int, Fragment]]]]:
        """Yield shard (0 without sharding) and label of a bucket, and each of its pieces with the shard."""
        (rows,) = required_records(self.scope.url, self.record(len(self.levels)), [bucket])
        labels = rows["label"]
        shards = np.zeros(len(labels), np.uint64) if sharding is None else shard_numbers(labels, sharding)
        columns = [shards, *(rows[name] for name in ("label", "block", "start", "size", "bounds"))]
        parts = ([column[at : at + _ROWS].tolist() for column in columns] for at in range(0, len(labels), _ROWS))
        entries = (
            (shard, Fragment(label, block, start, size, tuple(bounds)))
            for part in parts
            for shard, label, block, start, size, bounds in zip(*part, strict=True)
        )
        return itertools.groupby(entries, key=lambda one: (one[0], one[1].label))

    def read(self, piece: Fragment) -> bytes:
        """Return the bytes of a piece, and read no others."""
        url = self._place(piece.block)
        data = kvstore.read_range(url, piece.start, piece.start + piece.size)
        if data is None:
            raise MissingChunkError(f"scratch data at {url} are gone; delete the job's directory and run it again")
        return data

    def read_all(self, pieces: Iterable[Fragment]) -> list[bytes]:
        """Return the bytes of some pieces, several being read at once."""
        return at_once(self.read, pieces)

    def read_labels(
        self, labels: Iterable[tuple[int, list[Fragment]]], most: int
    ) -> Iterator[tuple[int, list[Fragment], list[bytes]]]:
        """Yield labels, their pieces and the bytes of these, none for labels of more than `most` bytes.

        Of small labels, those that lie near each other in what one block wrote are read at once.
        """
        batch, count = list[tuple[int, list[Fragment]]](), 0
        for label, pieces in labels:
            size = sum(piece.size for piece in pieces)
            small = size <= min(_SMALL, most)
            if batch and (not small or count + len(pieces) > _TOGETHER):
                yield from self._read_batch(batch)
                batch, count = [], 0
            if small:
                batch.append((label, pieces))
                count += len(pieces)
            else:
                yield label, pieces, self.read_all(pieces) if size <= most else []
        yield from self._read_batch(batch)

    def _read_batch(self, batch: list[tuple[int, list[Fragment]]]) -> Iterator[tuple[int, list[Fragment], list[bytes]]]:
        ordered = sorted((one for _, pieces in batch for one in pieces), key=lambda one: (one.block, one.start))
        runs = list[list[Fragment]]()
        for piece in ordered:
            last = runs[-1][-1] if runs else piece
            if runs and last.block == piece.block and piece.start - last.start <= _NEAR:
                runs[-1].append(piece)
            else:
                runs.append([piece])
        spans = [replace(run[0], size=run[-1].start + run[-1].size - run[0].start) for run in runs]
        found = dict[tuple[int, int], bytes]()
        for run, data in zip(runs, self.read_all(spans), strict=True):
            for one in run:
                at = one.start - run[0].start
                found[one.block, one.label] = data[at : at + one.size]
        for label, pieces in batch:
            yield label, pieces, [found[one.block, one.label] for one in pieces]

    @functools.cached_property
    def levels(self) -> tuple[tuple[int, int, int], ...]:
        """Sources that are merged, ranges of buckets that each has, and lists that each range is cut into, by level."""
        found = []
        sources, splits = self.blocks, 1
        while True:
            last = sources <= self.fan_in
            lists = self.buckets // splits if last else min(_FAN_IN, self.buckets // splits)
            found.append((sources, splits, lists))
            if last:
                return tuple(found)
            sources, splits = -(-sources // self.fan_in), splits * lists

    def record(self, level: int) -> str:
        """Return the name of the lists of a level; 0 is that of the blocks."""
        return f"{self.source}-{level}"

    def _place(self, block: int) -> str:
        return numbered(kvstore.join(self.scope.url, "pieces", self.source), block)


def _order(labels: Labels, sharding: Sharding | None) -> Labels:
    """Return the numbers by which labels are dealt out to buckets, and of which those of a shard are equal."""
    return murmurhash(labels) if sharding is None else shard_numbers(labels, sharding)


@dataclass(frozen=True)
class _OverLists(Task):
    """A task over numbers of blocks or groups; how little it costs is not known before."""

    pieces: Pieces
    level: int = 0

    def describe(self) -> dict[str, Any]:
        pieces = self.pieces
        sharding = None if pieces.sharding is None else dict(pieces.sharding)
        what = {"pieces": pieces.source, "buckets": pieces.buckets, "sharding": sharding}
        return {"does": type(self).__name__, **what, "level": self.level}


@dataclass(frozen=True)
class _ListLabels(_OverLists):
    """Record the labels of a group of blocks, to be counted."""

    def read(self, box: BoundingBox) -> list[Arrays]:
        return required_records(self.pieces.scope.url, self.pieces.record(0), range(box.start[0], box.stop[0]))

    def compute(self, box: BoundingBox, inputs: list[Arrays]) -> Arrays:  # noqa: ARG002
        return label_record(np.concatenate([rows["label"] for rows in inputs]))

    def write(self, box: BoundingBox, outputs: Arrays) -> BlockResult:
        self.pieces.counting.write(box.start[0] // self.pieces.fan_in, outputs)
        return BlockResult(empty=not any(array.any() for array in outputs.values()))


@dataclass(frozen=True)
class _Gather(_OverLists):
    """Merge the lists of a group for a range of buckets, and cut the result."""

    def read(self, box: BoundingBox) -> tuple[list[Arrays], Sharding | None]:
        _, splits, _ = self.pieces.levels[self.level - 1]
        numbers = [source * splits + box.start[1] for source in range(box.start[0], box.stop[0])]
        lists = required_records(self.pieces.scope.url, self.pieces.record(self.level - 1), numbers)
        return lists, self.pieces.shards()

    def compute(self, box: BoundingBox, inputs: tuple[list[Arrays], Sharding | None]) -> list[Arrays]:
        pieces, (_, splits, lists) = self.pieces, self.pieces.levels[self.level - 1]
        rows = {name: np.concatenate([one[name] for one in inputs[0]]) for name in inputs[0][0]}
        numbers = _order(rows["label"], inputs[1])
        buckets = numbers & np.uint64(pieces.buckets - 1)
        by_shard = () if pieces.sharding is None else (numbers,)
        order = np.lexsort((rows["block"], rows["label"], *by_shard, buckets))
        step = pieces.buckets // (splits * lists)
        first = box.start[1] * lists * step
        edges = np.arange(first, first + lists * step + 1, step, dtype=np.uint64)
        cuts = np.searchsorted(buckets[order], edges).tolist()
        return [{name: rows[name][order[a:b]] for name in rows} for a, b in itertools.pairwise(cuts)]

    def write(self, box: BoundingBox, outputs: list[Arrays]) -> BlockResult:
        pieces, (_, splits, lists) = self.pieces, self.pieces.levels[self.level - 1]
        first = (box.start[0] // pieces.fan_in * splits + box.start[1]) * lists
        for number, rows in enumerate(outputs, first):
            write_record(pieces.scope.url, pieces.record(self.level), number, rows)
        return BlockResult()


def label_record(labels: npt.NDArray[np.uint64]) -> Arrays:
    """Return the record of some labels: the labels themselves, or a sketch of very many.

    The sketch is a HyperLogLog: of the hashes that begin alike, the most zeros that follow. The record of several sets
    is the same whatever was merged first.
    """
    labels = np.unique(labels)
    return {"labels": labels} if len(labels) <= _EXACT else {"registers": _sketch(labels)}


def join_labels(records: list[Arrays]) -> Arrays:
    """Return the record of all labels whose records are given."""
    sketches = [record["registers"] for record in records if "registers" in record]
    lists = [record["labels"] for record in records if "labels" in record]
    joined = label_record(np.concatenate([np.zeros(0, np.uint64), *lists]))
    if not sketches:
        return joined
    sketches.append(joined["registers"] if "registers" in joined else _sketch(joined["labels"]))
    return {"registers": np.maximum.reduce(sketches)}


def label_count(record: Arrays) -> int:
    """Return how many labels a record holds: exactly up to 65,536, else within about a per cent.

    Source: O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm 6.
    """
    if "labels" in record:
        return len(record["labels"])
    registers = record["registers"]
    size = len(registers)
    counts = np.bincount(registers, minlength=_RANKS + 2).tolist()
    total = size * _tau(1 - counts[_RANKS + 1] / size)
    for rank in range(_RANKS, 0, -1):
        total = 0.5 * (total + counts[rank])
    total += size * _sigma(counts[0] / size)
    return round(size * size / (2 * math.log(2) * total))


def _sketch(labels: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    registers = np.zeros(2**_BITS, np.uint8)
    hashed = murmurhash(labels)
    rest: npt.NDArray[Any] = hashed << np.uint64(_BITS)
    # the leading zeros of 50 bits: 64 - bits of the number that they are, in two halves that a float holds exactly
    high = np.frexp((rest >> np.uint64(32)).astype(np.float64))[1]
    low = np.frexp((rest & np.uint64(2**32 - 1)).astype(np.float64))[1]
    used = np.where(high > 0, high + 32, low)
    ranks = np.minimum(64 - used + 1, _RANKS + 1).astype(np.uint8)
    np.maximum.at(registers, (hashed >> np.uint64(64 - _BITS)).astype(np.int64), ranks)
    return registers


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z = 1.0, x
    while True:
        x *= x
        before, z, y = z, z + x * y, 2 * y
        if z == before:
            return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z = 1.0, 1 - x
    while True:
        x = math.sqrt(x)
        before, y = z, 0.5 * y
        z -= (1 - x) ** 2 * y
        if z == before:
            return z / 3
