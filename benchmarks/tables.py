"""Tables by key: what each task of each pass holds and takes, on synthetic rows.

    python benchmarks/tables.py                     # 10^7 keys in 2 * 10^7 rows of 10^4 blocks: 15 s, 1 GB of files
    python benchmarks/tables.py --keys 100000000    # ten times as many: a minute, 10 GB of files
    python benchmarks/tables.py --small             # 9000 keys over 300 blocks, whose figures mean nothing

Every key is in two blocks, as labels at a seam are, and key 0 in all of them. The tasks run one after the other in this
process. "of 64 blocks" is the rows of a task over those of 64 blocks, which should stay near 1 or below; memory is the
most that the process holds above what it held when the pass began.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
import time

import numpy as np
from ccl import begin, peak

from daskflow.scratch import Table
from daskflow.volume import Stage
from daskflow.volume.stage import Scope, Scopes

HEADER = f"{'pass':<24}{'tasks':>8}{'CPU s':>8}{'ms/task':>9}{'rows':>12}{'of 64 blocks':>14}{'MB':>8}"


def rows_of(block: int, blocks: int, keys: int) -> dict[str, np.ndarray]:
    """Return the rows of a block: half of its keys are those of the block before it, too."""
    each = keys // blocks
    numbers = (np.arange(block * each, (block + 2) * each) % (each * blocks)).astype(np.uint64)
    labels = np.unique(np.append(numbers * np.uint64(0x9E3779B97F4A7C15), np.uint64(0)))
    return {"labels": labels, "counts": np.ones(len(labels), np.int64)}


def freshly() -> int:
    """Give freed memory back to the system, and begin."""
    ctypes.CDLL(None).malloc_trim(0)
    return begin()


def run(stage: Stage, scopes: Scopes, usual: int) -> None:
    """Run the tasks of a pass, and print what they took."""
    task, most, before = stage.task.bind(scopes), 0, freshly()
    began = time.process_time()
    for box in stage.grid:
        inputs = task.read(box)
        most = max(most, sum(len(next(iter(record.values()))) for record in inputs))
        task.write(box, task.compute(box, inputs))
    show(stage.name, len(stage.grid), time.process_time() - began, most, usual, peak() - before)


def show(name: str, tasks: int, seconds: float, most: int, usual: int, held: int) -> None:
    """Print a row."""
    figures = f"{seconds:>8.1f}{seconds / tasks * 1e3:>9.2f}{most:>12,}{most / usual:>14.2f}{held / 1e6:>8.0f}"
    print(f"{name:<24}{tasks:>8,}{figures}")


def main(keys: int, blocks: int, fan_in: int) -> None:
    table = Table("counts", blocks, {"labels": "key", "counts": "sum"}, Scope("counts"), fan_in=fan_in)
    usual = fan_in * len(rows_of(0, blocks, keys)["labels"])
    print(f"{keys:,} keys, {blocks:,} blocks, {fan_in} at a time, {table.ranges:,} ranges\n{HEADER}")
    with tempfile.TemporaryDirectory() as directory:
        scopes = Scopes(directory)
        table = table.bind(scopes)
        before, seconds, written = freshly(), 0.0, 0
        for block in range(blocks):
            rows = rows_of(block, blocks, keys)
            began = time.process_time()
            table.write(block, rows)
            seconds += time.process_time() - began
            written += len(rows["labels"])
        show("write", blocks, seconds, usual // fan_in, usual, peak() - before)
        for stage in table.stages():
            run(stage, scopes, usual)
        before, began = freshly(), time.process_time()
        found = sizes = most = 0
        for rows in table.tables():
            found, sizes = found + len(rows["labels"]), sizes + int(rows["counts"].sum())
            most = max(most, len(rows["labels"]))
        show("read all", table.ranges, time.process_time() - began, most, usual, peak() - before)
        asked = rows_of(blocks // 2, blocks, keys)["labels"]
        before, began = freshly(), time.process_time()
        counts = table.of(asked)["counts"]
        show("look up those of a block", 1, time.process_time() - began, len(asked), usual, peak() - before)
    assert (found, sizes) == (keys // blocks * blocks, written)
    assert set(counts.tolist()) <= {2, blocks}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--keys", type=int, default=10_000_000)
    options = parser.parse_args()
    main(*((9_000, 300, 8) if options.small else (options.keys, 10_000, 64)))
