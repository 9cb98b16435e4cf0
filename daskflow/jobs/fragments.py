"""Parts of objects that blocks leave in a job's scratch data, and stages that gather them by label.

A block leaves one object: a list of its fragments, then their bytes. `Shuffle` sorts these lists, not the bytes, into
buckets, group by group, so that no task reads more than about what 64 blocks have listed:

    blocks    0 ... 63     64 ... 127    128 ...         lists sorted by label
    level 1      0             1            2            64 blocks each, sorted by bucket
    level 2   0: bucket 0-3   1: bucket 4-7   ...        64 groups each, of some buckets
    ...                                                  until one group is left

Nothing is listed by prefix: every name follows from a number. Bytes of fragments are read where the blocks left them.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import CorruptChunkError, MissingChunkError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.label_count import join_labels, label_count, label_record
from daskflow.scratch.records import Reduce, at_once, numbered, write_record
from daskflow.stores import kvstore
from daskflow.stores.objects.shards import Sharding, murmurhash, object_sharding, shard_numbers
from daskflow.volume.stage import BlockResult, Stage, Task

Entries = npt.NDArray[Any]
Bounds = tuple[float, float, float, float, float, float]

_ENTRY = np.dtype(
    [("label", "<u8"), ("block", "<u8"), ("start", "<u8"), ("size", "<u8"), ("bounds", "<f8", (6,))]  # 80 bytes
)
_HEAD = struct.Struct("<8sQ")
_MAGIC = b"dflowfr1"
_FAN_IN = 64
_MOST_BUCKETS = 4096
_FEWEST_BUCKETS = 16
_PIECE = 2**16  # entries of a bucket that are read at once
_SMALL = 2**14  # bytes of a label that is read with others ...
_TOGETHER = 256  # ... of so many fragments
_NEAR = 2**16  # bytes between fragments that one request reads, with what is between them


@dataclass(frozen=True)
class Fragment:
    """What one block has left of one label.

    Attributes:
        label: whose it is.
        block: which block left it.
        start: where its bytes begin in the block's object.
        size: bytes.
        bounds: x0, y0, z0, x1, y1, z1 in nm, zeros where the block gave none.
    """

    label: int
    block: int
    start: int
    size: int
    bounds: Bounds


def write_fragments(
    directory: str,
    stage: str,
    block: int,
    fragments: Mapping[int, bytes],
    bounds: Mapping[int, Sequence[float]] | None = None,
) -> dict[str, int]:
    """Store what a block has of each label, in one object, atomically; the same fragments give the same bytes.

    Every block must call this, also one that has none: a block without an object counts as lost.

    Args:
        directory: URL; a task takes the one that it was bound to.
        stage: name that tells these fragments from others below the directory; the `source` of a `Shuffle`.
        block: its number.
        fragments: bytes by label.
        bounds: by label, xyz in nm.

    Returns:
        Totals for `BlockResult.counts`: fragments and fragment_bytes.
    """
    labels = sorted(fragments)
    entries = np.zeros(len(labels), _ENTRY)
    sizes = np.array([len(fragments[label]) for label in labels], np.uint64)
    entries["label"], entries["block"], entries["size"] = labels, block, sizes
    entries["start"] = np.cumsum(sizes) - sizes + np.uint64(_HEAD.size + entries.nbytes)
    if bounds is not None and labels:
        entries["bounds"] = [bounds[label] for label in labels]
    parts = [_HEAD.pack(_MAGIC, len(entries)), entries.tobytes(), *(fragments[label] for label in labels)]
    kvstore.write_bytes(_place(directory, stage, block), b"".join(parts))
    return {"fragments": len(labels), "fragment_bytes": int(sizes.sum())}


def bucket_count(blocks: int) -> int:
    """Return how many buckets suit a number of blocks: a power of two, about one for 8 blocks, 16 to 4,096."""
    return min(max(1 << max(blocks // 8 - 1, 0).bit_length(), _FEWEST_BUCKETS), _MOST_BUCKETS)


@dataclass(frozen=True)
class Shuffle:
    """Stages that gather what blocks have written by `write_fragments`.

    Attributes:
        name: of the stages, with a number behind it.
        source: the stage name under which the blocks wrote; it tells what the stages keep from that of another shuffle
            in the same job.
        blocks: how many there are; each has written.
        buckets: how many tasks the labels are shared out to; a power of two, see `bucket_count`.
        sharding: keyword arguments of `object_sharding` when labels go to shards: then all labels of shard n are in
            bucket n mod `buckets`, in the order of shards. None spreads them by their hash.
        fan_in: lists that one task merges.

    Raises:
        ParameterError: no blocks, buckets that are no power of two, or a fan-in below 2.
    """

    name: str
    source: str
    blocks: int
    buckets: int
    sharding: Mapping[str, Any] | None = None
    fan_in: int = _FAN_IN

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.fan_in < 2 or self.buckets < 1 or self.buckets & (self.buckets - 1):
            raise ParameterError(
                f"no shuffle of {self.blocks} blocks to {self.buckets} buckets, {self.fan_in} at a time: buckets must"
                " be a power of two"
            )
        if self.sharding is not None:
            object_sharding(1, **self.sharding)

    @property
    def counting(self) -> Reduce:
        """The passes that count the labels."""
        groups = -(-self.blocks // self.fan_in)
        return Reduce(f"count-{self.source}", f"{self.source}-labels", groups, join_labels, fan_in=self.fan_in)

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages, in order, to be put behind the one whose blocks write the fragments."""
        blocks = BlockGrid(BoundingBox((0, 0, 0), (self.blocks, 1, 1)), (self.fan_in, 1, 1))
        stages = [Stage(f"{self.name}-labels", blocks, _ListLabels(self), numbered=True), *self.counting.stages()]
        sources = self.blocks
        for level, (groups, splits) in enumerate(self._levels(), 1):
            grid = BlockGrid(BoundingBox((0, 0, 0), (sources, splits, 1)), (self.fan_in, 1, 1))
            stages.append(Stage(f"{self.name}-{level}", grid, _Gather(self, level), numbered=True))
            sources = groups
        return tuple(stages)

    def label_count(self, directory: str) -> int:
        """Return how many labels have fragments: exactly up to 65,536, else within about a per cent.

        Args:
            directory: URL of the scratch data, in which the stages ran.
        """
        return label_count(self.counting.result(directory))

    def shards(self, directory: str) -> Sharding:
        """Return the ``sharding`` JSON for as many labels as there are.

        Raises:
            ParameterError: the shuffle is not for shards.
        """
        if self.sharding is None:
            raise ParameterError(f"shuffle {self.name} has no sharding")
        return object_sharding(self.label_count(directory), **self.sharding)

    def labels_of(self, directory: str, bucket: int) -> Iterator[tuple[int, list[Fragment]]]:
        """Yield the labels of a bucket with their fragments, in the order of blocks; of shards one after another.

        Within a shard, and without shards, labels ascend. Memory holds one label's list and some pieces of 5 MB.
        """
        for _, label, found in self._labels(directory, bucket, None):
            yield label, found

    def shards_of(self, directory: str, bucket: int) -> Iterator[tuple[int, list[tuple[int, list[Fragment]]]]]:
        """Yield the shards of a bucket: number, and labels (ascending) with their fragments."""
        labels = self._labels(directory, bucket, self.shards(directory))
        for number, found in itertools.groupby(labels, key=lambda one: one[0]):
            yield number, [(label, fragments) for _, label, fragments in found]

    def read(self, directory: str, fragment: Fragment) -> bytes:
        """Return the bytes of a fragment, and read no others.

        Raises:
            MissingChunkError: the scratch data are gone.
        """
        url = _place(directory, self.source, fragment.block)
        return _bytes(url, fragment.start, fragment.start + fragment.size)

    def read_all(self, directory: str, fragments: Iterable[Fragment]) -> list[bytes]:
        """Return the bytes of some fragments, several being read at once."""
        return at_once(functools.partial(self.read, directory), fragments)

    def read_labels(
        self, directory: str, labels: Iterable[tuple[int, list[Fragment]]], most: int
    ) -> Iterator[tuple[int, list[Fragment], list[bytes]]]:
        """Yield labels, their fragments and the bytes of these, none for labels of more than `most` bytes.

        Of small labels, those that lie near each other in what one block wrote are read at once.
        """
        batch, count = list[tuple[int, list[Fragment]]](), 0
        for label, fragments in labels:
            size = sum(fragment.size for fragment in fragments)
            small = size <= min(_SMALL, most)
            if batch and (not small or count + len(fragments) > _TOGETHER):
                yield from self._read_batch(directory, batch)
                batch, count = [], 0
            if small:
                batch.append((label, fragments))
                count += len(fragments)
            else:
                yield label, fragments, self.read_all(directory, fragments) if size <= most else []
        yield from self._read_batch(directory, batch)

    def _read_batch(
        self, directory: str, batch: list[tuple[int, list[Fragment]]]
    ) -> Iterator[tuple[int, list[Fragment], list[bytes]]]:
        ordered = sorted((one for _, fragments in batch for one in fragments), key=lambda one: (one.block, one.start))
        runs = list[list[Fragment]]()
        for fragment in ordered:
            last = runs[-1][-1] if runs else fragment
            if runs and last.block == fragment.block and fragment.start - last.start <= _NEAR:
                runs[-1].append(fragment)
            else:
                runs.append([fragment])
        spans = [replace(run[0], size=run[-1].start + run[-1].size - run[0].start) for run in runs]
        found = dict[tuple[int, int], bytes]()
        for run, data in zip(runs, self.read_all(directory, spans), strict=True):
            for one in run:
                at = one.start - run[0].start
                found[one.block, one.start] = data[at : at + one.size]
        for label, fragments in batch:
            yield label, fragments, [found[one.block, one.start] for one in fragments]

    def _labels(
        self, directory: str, bucket: int, sharding: Sharding | None
    ) -> Iterator[tuple[int, int, list[Fragment]]]:
        """Yield the labels of a bucket: shard (0 without sharding), label, fragments."""
        entries = self._entries_of(directory, bucket, sharding)
        for (shard, label), found in itertools.groupby(entries, key=lambda one: (one[0], one[1].label)):
            yield shard, label, [fragment for _, fragment in found]

    def _levels(self) -> list[tuple[int, int]]:
        """Return, of every level, how many groups of blocks there are, and how many ranges of buckets each has."""
        levels: list[tuple[int, int]] = []
        groups, splits = self.blocks, 1
        while not levels or groups > 1:
            groups = -(-groups // self.fan_in)
            levels.append((groups, splits))
            splits = min(splits * _FAN_IN, self.buckets)
        return levels

    def _list(self, directory: str, level: int, group: int, split: int) -> str:
        """Return the URL of a list: sorted by bucket, and before it where each of its buckets begins."""
        return _place(directory, f"{self.source}-{level}", group * self._levels()[level - 1][1] + split)

    def _span(self, directory: str, level: int, group: int, first: int, last: int) -> tuple[str, int, int]:
        """Return where the entries of the buckets `first` to `last` are in a list: URL, first and last byte."""
        width = self.buckets // self._levels()[level - 1][1]
        split, place = divmod(first, width)
        url = self._list(directory, level, group, split)
        begins = np.frombuffer(_bytes(url, place * 8, (place + last - first + 1) * 8), "<u8")
        base = (width + 1) * 8
        return url, base + int(begins[0]) * _ENTRY.itemsize, base + int(begins[-1]) * _ENTRY.itemsize

    def _entries_of(self, directory: str, bucket: int, sharding: Sharding | None) -> Iterator[tuple[int, Fragment]]:
        url, start, stop = self._span(directory, len(self._levels()), 0, bucket, bucket + 1)
        step = _PIECE * _ENTRY.itemsize
        for begin in range(start, stop, step):
            entries = np.frombuffer(_bytes(url, begin, min(begin + step, stop)), _ENTRY)
            shards = (
                np.zeros(len(entries), np.uint64) if sharding is None else shard_numbers(entries["label"], sharding)
            )
            for shard, (label, block, place, size, bounds) in zip(shards.tolist(), entries.tolist(), strict=True):
                yield shard, Fragment(label, block, place, size, tuple(bounds))

    def _sorted(self, entries: Entries, sharding: Sharding | None) -> tuple[Entries, npt.NDArray[np.uint64]]:
        """Return entries by bucket, shard, label and block, and their buckets."""
        labels = entries["label"]
        if sharding is None:
            shards, buckets = np.zeros(len(labels), np.uint64), murmurhash(labels) & np.uint64(self.buckets - 1)
        else:
            shards = shard_numbers(labels, sharding)
            buckets = shards & np.uint64(self.buckets - 1)
        order = np.lexsort((entries["block"], labels, shards, buckets))
        return entries[order], buckets[order]


@dataclass(frozen=True)
class _OverLists(Task):
    """A task over numbers of blocks or groups; how little it costs is not known before."""

    shuffle: Shuffle
    level: int = 0
    directory: str = ""

    def describe(self) -> dict[str, Any]:
        shuffle = self.shuffle
        sharding = None if shuffle.sharding is None else dict(shuffle.sharding)
        what = {"shuffle": shuffle.source, "buckets": shuffle.buckets, "sharding": sharding}
        return {"does": type(self).__name__, **what, "level": self.level}


@dataclass(frozen=True)
class _ListLabels(_OverLists):
    """Record the labels of a group of blocks, to be counted."""

    def read(self, box: BoundingBox) -> list[Entries]:
        return at_once(functools.partial(_block_entries, self.directory, self.shuffle.source), _numbers(box))

    def compute(self, box: BoundingBox, inputs: list[Entries]) -> dict[str, npt.NDArray[Any]]:  # noqa: ARG002
        return label_record(np.concatenate([entries["label"] for entries in inputs]).astype(np.uint64))

    def write(self, box: BoundingBox, outputs: dict[str, npt.NDArray[Any]]) -> BlockResult:
        shuffle = self.shuffle
        write_record(self.directory, shuffle.counting.source, box.start[0] // shuffle.fan_in, outputs)
        return BlockResult(empty=not any(array.any() for array in outputs.values()))


@dataclass(frozen=True)
class _Gather(_OverLists):
    """Merge the lists of a group for a range of buckets."""

    def read(self, box: BoundingBox) -> tuple[Entries, Sharding | None]:
        if self.level == 1:
            lists = at_once(functools.partial(_block_entries, self.directory, self.shuffle.source), _numbers(box))
        else:
            first, last = self._buckets(box)
            lists = at_once(lambda group: self._part(group, first, last), _numbers(box))
        sharding = None if self.shuffle.sharding is None else self.shuffle.shards(self.directory)
        return np.concatenate(lists), sharding

    def compute(self, box: BoundingBox, inputs: tuple[Entries, Sharding | None]) -> bytes:
        entries, buckets = self.shuffle._sorted(*inputs)
        first, last = self._buckets(box)
        begins = np.searchsorted(buckets, np.arange(first, last + 1, dtype=np.uint64))
        return begins.astype("<u8").tobytes() + entries.tobytes()

    def write(self, box: BoundingBox, outputs: bytes) -> BlockResult:
        group, split = box.start[0] // self.shuffle.fan_in, box.start[1]
        kvstore.write_bytes(self.shuffle._list(self.directory, self.level, group, split), outputs)
        return BlockResult()

    def _buckets(self, box: BoundingBox) -> tuple[int, int]:
        width = self.shuffle.buckets // self.shuffle._levels()[self.level - 1][1]
        return box.start[1] * width, (box.start[1] + 1) * width

    def _part(self, group: int, first: int, last: int) -> Entries:
        url, start, stop = self.shuffle._span(self.directory, self.level - 1, group, first, last)
        return np.frombuffer(_bytes(url, start, stop), _ENTRY)


def _numbers(box: BoundingBox) -> range:
    return range(box.start[0], box.stop[0])


def _block_entries(directory: str, stage: str, block: int) -> Entries:
    url = _place(directory, stage, block)
    magic, count = _HEAD.unpack(_bytes(url, 0, _HEAD.size))
    if magic != _MAGIC:
        raise CorruptChunkError(f"{url} holds no fragments; delete the job's directory and run it again")
    return np.frombuffer(_bytes(url, _HEAD.size, _HEAD.size + count * _ENTRY.itemsize), _ENTRY)


def _bytes(url: str, start: int, stop: int) -> bytes:
    data = kvstore.read_range(url, start, stop)
    if data is None:
        raise MissingChunkError(f"scratch data at {url} are gone; delete the job's directory and run it again")
    return data


def _place(directory: str, stage: str, index: int) -> str:
    return numbered(kvstore.join(directory, "fragments", stage), index)
