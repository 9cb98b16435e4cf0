"""What streaming costs: time per block that does nothing, memory of client and scheduler, and ten million blocks.

The scheduler runs in this process, as it does in `daskflow.connect("local")`, so the figures of CPU and memory are
those of client and scheduler together.
"""

from __future__ import annotations

import argparse
import gc
import resource
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import psutil

from daskflow.clusters import connect
from daskflow.clusters.workers import Workers
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.executor import executor_of
from daskflow.jobs.ledger import DONE, PENDING, Ledger
from daskflow.jobs.plan import Plan
from daskflow.jobs.stage_run import Policy, StageRun
from daskflow.jobs.stream import Stream
from daskflow.volume.stage import BlockResult, Stage, Task

PROCESS = psutil.Process()


@dataclass(frozen=True)
class Nothing(Task):
    """Does nothing for each block."""

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        """Write nothing."""
        return BlockResult()

    def describe(self) -> dict[str, Any]:
        """Describe nothing."""
        return {}


def stage_of(blocks: int) -> Stage:
    """Return a stage of so many blocks."""
    return Stage("nothing", BlockGrid(BoundingBox((0, 0, 0), (1, 1, 64 * blocks)), (1, 1, 64)), Nothing())


def megabytes() -> float:
    """Return the resident memory of this process."""
    gc.collect()
    return PROCESS.memory_info().rss / 1e6


def cpu() -> float:
    """Return the CPU seconds that this process has used."""
    times = PROCESS.cpu_times()
    return times.user + times.system


def stream(client: Any, blocks: int, *, batched: bool) -> dict[str, float]:
    """Stream blocks that do nothing and return what it took."""
    stage = stage_of(blocks)
    ledger = Ledger(stage.grid)
    executor = executor_of(client)
    most = [megabytes()]
    started, used, memory = time.perf_counter(), cpu(), most[0]
    next_look = [0.0]

    def tick(_: object) -> None:
        if time.monotonic() > next_look[0]:
            next_look[0] = time.monotonic() + 1
            most.append(PROCESS.memory_info().rss / 1e6)

    Stream(executor, [StageRun(stage, ledger, Policy(batched=batched), Counter())], tick=tick).run()
    wall, used = time.perf_counter() - started, cpu() - used
    executor.close()
    if ledger.count(DONE) != blocks:
        raise SystemExit(f"only {ledger.count(DONE)} of {blocks} blocks were done")
    return {
        "wall": wall,
        "wall_ms": 1000 * wall / blocks,
        "cpu_ms": 1000 * used / blocks,
        "memory": max(most) - memory,
        "memory_after": megabytes() - memory,
    }


def show(name: str, blocks: int, figures: dict[str, float]) -> None:
    """Print the figures of a stream."""
    print(
        f"{name}: {blocks:,} blocks in {figures['wall']:.1f} s, {figures['wall_ms']:.3f} ms wall and "
        f"{figures['cpu_ms']:.3f} ms CPU of client and scheduler per block; "
        f"memory {figures['memory']:+.0f} MB at its peak, {figures['memory_after']:+.0f} MB afterwards"
    )


def plan_and_ledger(blocks: int) -> tuple[float, float]:
    """Plan, make, save, load and scan a ledger; return seconds and MB."""
    side = round(blocks ** (1 / 3))
    grid = BlockGrid(BoundingBox((0, 0, 0), (64 * side,) * 3), (64, 64, 64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        Plan.of("nothing", folder, [Stage("nothing", grid, Nothing())], Workers(2, 2, 1, None))
        ledger = Ledger(grid)
        for first in range(0, len(ledger), 30_000):
            ledger.mark(range(first, min(first + 30_000, len(ledger)), 3), DONE)
        ledger.save(folder)
        again = Ledger.load(folder, grid)
        scanned = sum(len(part) for part in again.blocks(PENDING))
    seconds = time.perf_counter() - started
    if scanned != ledger.count(PENDING):
        raise SystemExit("the ledger did not come back as it was saved")
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3


def main() -> None:
    """Print every figure beside its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a few seconds instead of minutes")
    parser.add_argument("--workers", type=int, default=2)
    small = parser.parse_args().small
    workers = parser.parse_args().workers
    ten_million = 10**5 if small else 10**7
    seconds, memory = plan_and_ledger(ten_million)
    print(f"plan and ledger of {ten_million:,} blocks: {seconds:.2f} s (target 2), {memory:.0f} MB (target 100)")
    with connect("local", workers=workers, threads=1) as client:
        stream(client, 20 if small else 200, batched=False)
        for name, blocks, batched in (
            ("one block per task", 50 if small else 10**4, False),
            ("batched", 500 if small else 10**5, True),
        ):
            show(name, blocks, stream(client, blocks, batched=batched))
    print("target: 3 ms wall per block; soak.py has what many tasks leave behind")


if __name__ == "__main__":
    main()
