r"""Tables by key: written block by block, merged as a tree, read in ranges of the keys.

    blocks       0 1 ... 63   64 ... 127   128 ...            a record each
                  \ | /          |           |
    merging 1     group 0       group 1     group 2  ...      each a run, sorted by key
                     |\    ____/ |     ____/ |
    merging 2      0-99       100-249     250-   ...          ranges of keys of 64 groups each, again runs
                     :            :         :

Every task of every pass merges at most 64 pieces and so holds about as much as the tables of 64 blocks, however many
keys there are. Where the ranges begin follows from a sample of the keys of the first runs.

A run is one object: parts of some rows, each a record by itself. Its index has of each part the first key and the end
in bytes, and a sample of all keys, so that the rows between two keys are read alone.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from daskflow.errors import JobError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.scratch.records import (
    Arrays,
    Reduce,
    at_once,
    decode,
    encode,
    read_record,
    read_records,
    record_url,
    write_record,
)
from daskflow.stores import kvstore
from daskflow.volume.stage import BlockResult, Bound, Scope, Stage, Task

Keys = npt.NDArray[np.uint64]
How = Literal["key", "sum", "min", "max", "first"]
_COMBINE: dict[How, np.ufunc] = {"sum": np.add, "min": np.minimum, "max": np.maximum}
_SAMPLES = 2**14  # keys by which ranges are chosen
_SAMPLED = 16  # runs or samples at once, as the samples of 64 would take more than the rows
_CACHED = 8
_PARTS = 256  # that a run is written in, if they have as many rows as the next number; also keys of its sample
_ROWS = 64
_SHIFT = (5**0.5 - 1) / 2


def merged(columns: Mapping[str, How], parts: Sequence[Mapping[str, npt.NDArray[Any]]]) -> Arrays:
    """Return the rows of some parts, at least one, sorted by their keys in the order of columns; equal ones become one.

    Parts come in the order in which a value is the first. Columns that are not keys may have several axes.
    """
    whole = {name: np.concatenate([part[name] for part in parts]) for name in columns}
    order = np.lexsort([whole[name] for name in _keys(columns)][::-1])
    for name, column in whole.items():
        whole[name] = column[order]
    fresh = np.ones(len(order), bool)
    fresh[1:] = np.any([whole[name][1:] != whole[name][:-1] for name in _keys(columns)], axis=0)
    starts = np.flatnonzero(fresh)
    return {
        name: _COMBINE[how].reduceat(whole[name], starts) if how in _COMBINE and len(starts) else whole[name][starts]
        for name, how in columns.items()
    }


def found_in(known: Keys, wanted: Keys) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return where each of some keys stands among rising ones, and whether it is there at all."""
    at = np.searchsorted(known, wanted)
    there = at < len(known)
    there[there] = known[at[there]] == wanted[there]
    return at, there


@dataclass(frozen=True)
class Table(Bound):
    """Columns of one or two keys, and of values of which those of equal keys become one.

    Attributes:
        name: identifies its records in the scope.
        blocks: how many write rows.
        columns: their names, and what becomes of the values of equal keys. Keys are uint64.
        scope: where all records lie.
        then: functions of the rows of a range once all are merged, and the tables or records that take the result.
        fan_in: how many pieces are merged at once.
    """

    name: str
    blocks: int
    columns: Mapping[str, How]
    scope: Scope
    then: tuple[tuple[Callable[[Arrays], Arrays], Table | Reduce], ...] = ()
    fan_in: int = 64

    def into(self, function: Callable[[Arrays], Arrays], target: Table | Reduce) -> Table:
        """Return the table that hands what a module's function makes of each of its `ranges` to another, as a block."""
        return replace(self, then=(*self.then, (function, target)))

    def write(self, index: int, rows: Mapping[str, npt.NDArray[Any]]) -> None:
        """Store the rows of a block, each key once and sorted by key."""
        write_record(self.scope.url, self.record(0), index, rows)

    def stages(self) -> tuple[Stage, ...]:
        """Return the passes that merge what the blocks wrote, and then those of what takes the result; in order."""
        merging = [
            Stage(self.record(level), _numbers(groups, buckets), Merge(self, level), numbered=True)
            for level, (groups, buckets) in enumerate(self.levels)
            if level
        ]
        if self.ranges > 1:
            merging[1:1] = self.sampling.stages()
        return (*merging, *(stage for _, target in self.then for stage in target.stages()))

    @functools.cached_property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """Groups, and the ranges of keys that each is cut into: the blocks, and what every pass of merging leaves."""
        found = [(self.blocks, 1)]
        while found[-1][0] > 1 or (self.then and len(found) == 1):
            groups, buckets = found[-1]
            pieces = min(self.fan_in, groups) if len(found) > 1 else 1
            found.append((-(-groups // self.fan_in), buckets * pieces))
        return tuple(found)

    @property
    def ranges(self) -> int:
        """Into how many ranges of keys the whole is divided."""
        return self.levels[-1][1]

    @property
    def sampling(self) -> Reduce:
        """The passes that choose where ranges begin."""
        runs = _index_of(self.record(1))
        name, fan_in = f"choose-ranges-{self.name}", min(self.fan_in, _SAMPLED)
        return Reduce(name, runs, self.levels[1][0], merge_samples, self.scope, fan_in=fan_in)

    def record(self, level: int) -> str:
        """Return the name of the pass, and of the records, of a level of merging; 0 is that of the blocks."""
        return f"merge-{self.name}-{level}" if level else self.name

    def tables(self) -> Iterator[Arrays]:
        """Yield the rows of every range once the passes ran, sorted by key; keys rise from range to range."""
        return (self.rows(number) for number in range(self.ranges))

    def rows(self, number: int) -> Arrays:
        """Return the rows of one range once the passes ran, sorted by key."""
        return _record(self.scope, self._merged, number)

    def of(self, keys: npt.ArrayLike) -> Arrays:
        """Return the values of some keys, in any order, 0 for one that does not occur; of tables with one key alone."""
        wanted = np.asarray(keys, np.uint64).reshape(-1)
        numbers = np.searchsorted(self.splitters[:, 0], wanted, side="right")
        places = np.argsort(np.argsort(numbers, kind="stable"))
        asked = np.unique(numbers).tolist() or [0]
        parts = [self._found(number, wanted[numbers == number]) for number in asked]
        return {name: np.concatenate([part[name] for part in parts])[places] for name in parts[0]}

    @property
    def _merged(self) -> str:
        return self.record(len(self.levels) - 1)

    def _found(self, number: int, keys: Keys) -> Arrays:
        rows = _kept(self.scope, self._merged, number)
        (known,) = (rows[name] for name in _keys(self.columns))
        at, there = found_in(known, keys)
        found = {}
        for name in self.columns.keys() - _keys(self.columns):
            found[name] = np.zeros((len(keys), *rows[name].shape[1:]), rows[name].dtype)
            found[name][there] = rows[name][at[there]]
        return found

    @property
    def splitters(self) -> Keys:
        """Return the first key of every range but the first, a row each."""
        if self.ranges == 1:
            return np.empty((0, len(_keys(self.columns))), np.uint64)
        return _splitters(self.scope, self.sampling.name, self.ranges)

    def between(self, bucket: int, buckets: int) -> tuple[Keys | None, Keys | None]:
        """Return where one of so many ranges of keys begins and where it ends; None for the first and the last."""
        splitters, step = self.splitters, self.ranges // buckets
        low = splitters[bucket * step - 1] if bucket else None
        return low, splitters[(bucket + 1) * step - 1] if bucket + 1 < buckets else None


@dataclass(frozen=True)
class Merge(Task):
    """Merge the rows that some groups have in one range of keys; passes are counted from level 1."""

    table: Table
    level: int

    @property
    def _last(self) -> bool:
        return self.level == len(self.table.levels) - 1

    def read(self, box: BoundingBox) -> list[Arrays]:
        table, source = self.table, self.table.record(self.level - 1)
        directory = table.scope.url
        group, bucket = box.start[0], box.start[1]
        (below, wider), (_, buckets) = table.levels[self.level - 1 : self.level + 1]
        members = range(group * table.fan_in, min((group + 1) * table.fan_in, below))
        if self.level == 1:
            records = read_records(directory, source, members)
            return [_present(record, directory, source) for record in records]
        around = bucket // (buckets // wider)
        runs = [member * wider + around for member in members]
        low, high = table.between(bucket, buckets)
        return read_runs(directory, source, runs, _keys(table.columns), low, high)

    def compute(self, box: BoundingBox, inputs: list[Arrays]) -> Arrays:  # noqa: ARG002
        return merged(self.table.columns, inputs)

    def write(self, box: BoundingBox, outputs: Arrays) -> BlockResult:
        table, keys = self.table, _keys(self.table.columns)
        number = box.start[0] * table.levels[self.level][1] + box.start[1]
        if self._last:
            write_record(table.scope.url, table.record(self.level), number, outputs)
            for function, target in table.then:
                target.write(number, function(outputs))
        else:
            write_run(table.scope.url, table.record(self.level), number, keys, outputs)
        return BlockResult(empty=not len(outputs[keys[0]]))

    def describe(self) -> dict[str, Any]:
        table = self.table
        then = [f"{function.__module__}.{function.__qualname__}" for function, _ in table.then if self._last]
        merging = {"merge": table.record(self.level - 1), "columns": dict(table.columns), "then": then}
        return merging | {"fan_in": table.fan_in}


def merge_samples(records: list[Arrays]) -> Arrays:
    """Return a sample of the keys of all runs, each standing for `weights` of theirs."""
    keys, weights = (np.concatenate([record[name] for record in records]) for name in ("keys", "weights"))
    order = np.lexsort(keys.T[::-1])
    keys, weights = keys[order], weights[order]
    if len(keys) <= _SAMPLES:
        return {"keys": keys, "weights": weights}
    total = np.cumsum(weights)
    at = np.unique(np.searchsorted(total, (np.arange(_SAMPLES) + 0.5) * total[-1] / _SAMPLES))
    return {"keys": keys[at], "weights": np.diff(total[at], prepend=0)}


def _keys(columns: Mapping[str, How]) -> list[str]:
    return [name for name, how in columns.items() if how == "key"]


def _numbers(groups: int, buckets: int) -> BlockGrid:
    return BlockGrid(BoundingBox((0, 0, 0), (groups, buckets, 1)), (1, 1, 1))


def _record(scope: Scope, stage: str, number: int) -> Arrays:
    return _present(read_record(scope.url, stage, number), scope.url, stage)


_kept = functools.lru_cache(maxsize=_CACHED)(_record)


@functools.lru_cache(maxsize=8)
def _splitters(scope: Scope, stage: str, ranges: int) -> Keys:
    record = _record(scope, stage, 0)
    total = np.cumsum(record["weights"])
    if not len(total):
        return np.zeros((ranges - 1, record["keys"].shape[1]), np.uint64)
    wanted = np.arange(1, ranges) * (total[-1] / ranges)
    at = np.minimum(np.searchsorted(total - record["weights"] / 2, wanted), len(total) - 1)
    splitters: Keys = record["keys"][at]
    return splitters


def write_run(
    directory: str, stage: str, number: int, keys: Sequence[str], rows: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Store rows, sorted by the columns that `keys` names; other arguments as for `write_record`."""
    names = np.stack([rows[name] for name in keys], axis=1)
    count = len(names)
    step = max(_ROWS, -(-count // _PARTS))
    starts = range(0, max(1, count), step)
    parts = [encode({name: column[at : at + step] for name, column in rows.items()}) for at in starts]
    kvstore.write_bytes(record_url(directory, stage, number), b"".join(parts))
    samples = min(count, _PARTS)
    shift = number * _SHIFT % 1  # so that the samples of runs that are alike are not
    index = {
        "first": names[::step],
        "ends": np.cumsum([len(part) for part in parts]),
        "keys": names[((np.arange(samples) + shift) * count / max(1, samples)).astype(np.int64)],
        "weights": np.full(samples, count / max(1, samples)),
    }
    write_record(directory, _index_of(stage), number, index)


def _index_of(stage: str) -> str:
    """Return the name of the records that hold `keys`, a sample of those of each run, and their `weights`: rows."""
    return f"{stage}-index"


def read_runs(
    directory: str, stage: str, numbers: Sequence[int], keys: Sequence[str], low: Keys | None, high: Keys | None
) -> list[Arrays]:
    """Return the rows of each of some runs whose keys are at least `low` and below `high`; None stands for no bound."""
    return at_once(lambda number: _read(directory, stage, number, keys, low, high), numbers)


def _read(directory: str, stage: str, number: int, keys: Sequence[str], low: Keys | None, high: Keys | None) -> Arrays:
    index = _present(read_record(directory, _index_of(stage), number), directory, stage)
    first, ends = list(index["first"].T), [0, *index["ends"].tolist()]
    begin = 0 if low is None else max(0, _place(first, low) - 1)
    end = len(ends) - 1 if high is None else max(begin + 1, _place(first, high))
    url, bounds = record_url(directory, stage, number), ends[begin : end + 1]
    data = kvstore.read_range(url, bounds[0], bounds[-1])
    if data is None:
        raise _missing(directory, stage)
    view = memoryview(data)
    parts = [decode(view[a - bounds[0] : b - bounds[0]], url) for a, b in itertools.pairwise(bounds)]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns = [rows[name] for name in keys]
    start = 0 if low is None else _place(columns, low)
    stop = None if high is None else _place(columns, high)
    return {name: column[start:stop] for name, column in rows.items()}


def _place(keys: Sequence[Keys], splitter: Keys) -> int:
    """Return the first row of sorted key columns that does not come before a splitter."""
    low, high = 0, len(keys[0])
    for column, value in zip(keys, splitter, strict=True):
        first, last = (int(np.searchsorted(column[low:high], value, side=side)) for side in ("left", "right"))
        low, high = low + first, low + last
    return low


def _present(record: Arrays | None, directory: str, stage: str) -> Arrays:
    if record is None:
        raise _missing(directory, stage)
    return record


def _missing(directory: str, stage: str) -> JobError:
    return JobError(f"records of {stage} in {directory} are missing; delete the job's directory and run it again")
