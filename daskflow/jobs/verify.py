"""Whether every chunk of a stored volume can be read back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from daskflow.clusters import Threads
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.batch import Failure
from daskflow.jobs.executor import executor_of
from daskflow.jobs.ledger import DONE, PENDING, Ledger
from daskflow.jobs.progress import Progress, Snapshot, progress_of
from daskflow.jobs.report import Report, StageReport
from daskflow.jobs.stream import Policy, Stream
from daskflow.stores.base import Store
from daskflow.stores.opening import open_store
from daskflow.volume.stage import BlockResult, Estimate, Stage

if TYPE_CHECKING:
    from distributed import Client

_WITHOUT_CHUNKS = (64, 512, 512)
_MOST_FAILURES = 10_000


def verify(
    url: str, *, mip: int = 0, client: Client | Threads | None = None, progress: bool | Progress | None = None
) -> Report:
    """Read every chunk (or shard) of a layer, and return a report whose failures are the missing and damaged ones.

    A chunk that was left out because it is all background counts as missing: storage does not tell the two apart.

    Args:
        url: the layer.
        mip: its level.
        client: what reads; threads of this process unless given.
        progress: as in `Job.run`.

    Raises:
        StoreError: the layer cannot be opened.
    """
    store = open_store(url, mip=mip)
    spec = store.spec
    grid = BlockGrid(spec.box, spec.write_unit or _WITHOUT_CHUNKS, spec.chunk_origin)
    stage = Stage("chunks", grid, _ReadBack(store))
    ledger = Ledger(grid, np.full(len(grid), DONE, np.uint8))
    shown = progress_of(progress)
    damaged: list[Failure] = []

    def tick(stream: Stream) -> None:
        damaged.extend(stream.failures[: _MOST_FAILURES - len(damaged)])
        stream.failures.clear()
        bad = ledger.count(PENDING)
        shown.update(Snapshot("chunks", len(grid), stream.ran, bad, stream.ran, stream.voxels, stream.seconds, 1))

    pool = Threads() if client is None else client
    executor = executor_of(pool)
    try:
        stream = Stream(stage, executor, ledger, Policy(retries=0, verb="verify"), Counter(), tick)
        stream.run()
        tick(stream)
    finally:
        shown.close()
        executor.close()
        if client is None:
            pool.close()
    bad = ledger.count(PENDING)
    done = StageReport(
        "chunks",
        len(grid),
        done=len(grid) - bad,
        failed=bad,
        seconds=stream.seconds,
        voxels=stream.voxels,
        bytes_read=spec.nbytes,
        memory=stream.memory,
    )
    return Report(f"verify {url}", url, "failed" if bad else "finished", (done,), tuple(damaged))


@dataclass(frozen=True)
class _ReadBack:
    store: Store

    def verify(self, box: BoundingBox) -> None:
        self.store.read(box)

    def read(self, box: BoundingBox) -> None:
        self.store.read(box)

    def compute(self, box: BoundingBox, inputs: None) -> None:
        pass

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        return BlockResult()

    def estimate(self, box: BoundingBox) -> Estimate:
        size = self.store.spec.nbytes_of(box)
        return Estimate(bytes_read=size, memory=size, voxels_read=box.size)

    def check(self) -> None:
        pass

    def describe(self) -> dict[str, object]:
        return self.store.fingerprint()

    def bind(self, directory: str) -> _ReadBack:  # noqa: ARG002
        return self
