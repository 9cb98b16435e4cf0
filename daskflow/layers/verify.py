"""Whether every chunk of a stored volume can be read back, and what recreates the others."""

from __future__ import annotations

import contextlib
import copy
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from daskflow.clusters import Threads
from daskflow.errors import JobError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.batch import Home
from daskflow.jobs.directory import JobDirectory, load_grid
from daskflow.jobs.executor import Executor, executor_of
from daskflow.jobs.ledger import DONE, EMPTY, PENDING, Ledger
from daskflow.jobs.lock import Lease, holder_of
from daskflow.jobs.outputs import jobs_of
from daskflow.jobs.parts import settle
from daskflow.jobs.progress import Progress, Snapshot, progress_of
from daskflow.jobs.report import Failure, Report, StageReport, State
from daskflow.jobs.sinks import safe_name
from daskflow.jobs.stage_run import Policy, StageRun
from daskflow.jobs.stream import Stream
from daskflow.stores import kvstore
from daskflow.stores.base import Store
from daskflow.stores.local_files import replacing, sweep
from daskflow.stores.opening import open_store, split_prefix
from daskflow.volume.stage import BlockResult, Estimate, Output, Stage, Task, default_block, place_of

if TYPE_CHECKING:
    from distributed import Client

_WITHOUT_CHUNKS = (64, 512, 512)
_MOST_FAILURES = 10_000
_SHOWN = 5
MISSING = "MissingChunkError"


def verify(
    url: str,
    *more: str,
    name: str | None = None,
    mip: int | None = None,
    fill_missing: bool = False,
    output: str | None = None,
    client: Client | Threads | None = None,
    progress: bool | Progress | None = None,
) -> Report:
    """Read every chunk of a layer, also those in shards, and return a report whose failures are the bad ones.

    A chunk that was left out because it is all background counts as missing, unless `fill_missing` is given: storage
    does not distinguish the two. Where a job wrote the layer, its blocks that bad chunks lie in are marked as not done,
    so that running it again recreates only them.

    Args:
        url: the layer, or the file of a volume.
        more: others, that are read as well.
        name: what the report is of; by default the URL.
        mip: the level, -1 is the coarsest; by default all of them.
        fill_missing: take missing chunks for background, and look for damaged ones alone.
        output: path of a CSV file that lists every bad chunk: mip, box (z0-z1_y0-y1_x0-x1), error, message.
        client: what reads; by default threads of this process.
        progress: as in `Job.run`.

    Returns:
        The report: a stage for each level; ``results["missing"]`` and ``results["damaged"]`` have the first bad chunks,
        ``results["set_back"]`` how many blocks of jobs are to run again.

    Raises:
        StoreError: the layer cannot be opened.
    """
    opened = [open_store(one, mip=mip or 0, fill_missing=fill_missing) for one in (url, *more)]
    stores = [
        _with_background(store.with_mip(level))
        for store in opened
        for level in (range(len(store.mips)) if mip is None else [store.mip])
    ]
    shown = progress_of(progress)
    pool = Threads() if client is None else client
    executor = executor_of(pool, Home())
    started = time.time()
    for store in opened:
        if not any(holder_of(home.lock) for home in jobs_of(kvstore.normalise(store.url))):
            sweep(store.url, before=started)
    found: list[StageReport] = []
    failures: list[Failure] = []
    results: dict[str, Any] = {}
    set_back: Counter[str] = Counter()
    try:
        with _listing(output) as write:
            for store in stores:
                one = f"{safe_name(store.url)} mip {store.mip}" if more else f"mip-{store.mip}"
                stage = "chunks" if len(stores) == 1 else one
                check = _Check(store, executor, shown, write, stage)
                found.append(check.run())
                failures += check.failures[: _MOST_FAILURES - len(failures)]
                set_back.update(_set_back(store, check.boxes))
    finally:
        shown.close()
        executor.close()
        if client is None:
            pool.close()
    for found_bad, chosen in (("missing", True), ("damaged", False)):
        boxes = [f"{one.stage} {one.box}" for one in failures if (one.exception == MISSING) == chosen]
        if boxes:
            results[found_bad] = boxes[:_SHOWN]
    twins = [f"mip {store.mip} {box}" for store in stores for box in store.twins()]
    if twins:
        results["chunks_of_two_names"] = twins[:_SHOWN]
    if set_back:
        results["set_back"] = dict(set_back)
    bad = sum(stage.failed for stage in found)
    state: State = "failed" if bad else "finished"
    seconds = sum(stage.seconds for stage in found)
    return Report(name or url, url, state, tuple(found), tuple(failures), results, verified="chunks", seconds=seconds)


def _with_background(store: Store) -> Store:
    """Return a volume whose jobs left out chunks of background, as one that reads them so."""
    left = [one.background for _, one in _makers(store) if one.background is not None]
    if left and store.background is None:
        store = copy.copy(store)
        store.background = left[0]
    return store


@dataclass
class _Check:
    """Reads one level: in blocks first, then the blocks that cannot be read chunk by chunk."""

    store: Store
    executor: Executor
    shown: Progress
    write: Callable[[str], None]
    name: str
    failures: list[Failure] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    boxes: list[BoundingBox] = field(default_factory=list)

    def run(self) -> StageReport:
        """Return what was found, counted in chunks."""
        spec = self.store.spec
        block = _WITHOUT_CHUNKS if spec.chunk is None else default_block(spec)
        grid = BlockGrid(spec.box, block, spec.chunk_origin)
        bad_blocks: list[int] = []
        read = self._stream(grid, None, lambda failure: bad_blocks.append(failure.index))
        chunks = grid if spec.chunk is None else BlockGrid(spec.box, spec.chunk, spec.chunk_origin)
        if bad_blocks:
            states = np.zeros(len(chunks), np.uint8)
            for index in bad_blocks:
                states[list(chunks.touching(grid[index]))] = DONE
            self._stream(chunks, states, self._take)
        bad = sum(self.counts.values())
        return StageReport(
            self.name,
            len(chunks),
            done=len(chunks) - bad,
            failed=bad,
            counts=dict(self.counts),
            seconds=read.seconds,
            voxels=read.voxels,
            bytes_read=spec.nbytes,
            memory=read.memory,
        )

    def _take(self, failure: Failure) -> None:
        self.counts["missing_chunks" if failure.exception == MISSING else "damaged_chunks"] += 1
        self.boxes.append(BoundingBox.from_string(failure.box))
        message = failure.message.replace('"', "'").replace("\n", " ")
        self.write(f'{self.store.mip},{failure.box},{failure.exception},"{message}"\n')
        if len(self.failures) < _MOST_FAILURES:
            self.failures.append(failure)

    def _stream(self, grid: BlockGrid, states: Any, take: Callable[[Failure], None]) -> StageRun:
        """Read the blocks that are marked as done (all without `states`), and hand on those that cannot be."""
        marked = np.full(len(grid), DONE, np.uint8) if states is None else states
        ledger = Ledger(grid, marked)
        whole = ledger.count(DONE)
        stage = Stage(self.name, grid, _ReadBack(self.store))
        one = StageRun(stage, ledger, Policy(retries=0, verb="verify"), Counter())

        def tick(_: object) -> None:
            failures, one.failures = one.failures, []
            for failure in failures:
                take(failure)
            bad = whole - ledger.count(DONE)
            self.shown.update(Snapshot(self.name, whole, one.ran, bad, one.ran, one.voxels, one.seconds, 1))

        Stream(self.executor, [one], tick=tick).run()
        return one


def _set_back(store: Store, boxes: list[BoundingBox]) -> dict[str, int]:
    """Mark the blocks of jobs in which some boxes of a volume lie as not done; return how many, by directory."""
    found: Counter[str] = Counter()
    for home, one in _makers(store) if boxes else ():
        with Lease(home.lock):
            settle(home)
            assert one.grid is not None
            url = home.ledger(one.stage)
            ledger = Ledger.load(url, load_grid(one.grid))
            if one.kind == "file":
                blocks = set(range(len(ledger)))
            elif one.base is not None and 0 <= one.base < len(store.mips):
                inside = [store.spec.on_finer(box, store.mips[one.base]).clip(ledger.grid.box) for box in boxes]
                blocks = {b for box in inside if not box.empty for b in ledger.grid.touching(box)}
            else:
                continue
            settled = [block for block in sorted(blocks) if ledger.state(block) in (DONE, EMPTY)]
            if settled:
                ledger.mark(settled, PENDING)
                ledger.save(url)
                found[home.url] += len(settled)
    return found


def _makers(store: Store) -> list[tuple[JobDirectory, Output]]:
    """Return the jobs that made a volume, each with what it states of that."""
    if store.opened is None:
        return []
    url, place = store.opened.url, place_of(store.opened.url)
    stated = [(home, one) for home in jobs_of(url) for one in home.outputs if one.url == place and one.grid is not None]
    return [(home, one) for home, one in stated if one.kind == "file" or (one.kind, one.mip) == ("level", store.mip)]


def volumes_beside(output: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of the job that made an output, or whose directory it is, and the volumes that the job makes.

    The output alone, where no job made it itself.

    Raises:
        JobError: the job makes no volumes, such as one that counts voxels.
    """
    url = kvstore.normalise(split_prefix(output)[1])
    places = (url, place_of(url))
    known = JobDirectory(url)
    homes = [known] if known.outputs else jobs_of(url)
    for home in homes:
        volumes = [one for one in home.outputs if one.kind in ("level", "file")]
        tables = [one for one in home.outputs if one.kind == "table"]
        if home is known or any(one.url in places for one in (*volumes, *tables)):
            if tables and not volumes:
                made = ", ".join(map(str, home.outputs))
                raise JobError(f"verify reads volumes, and the job in {home.url} made none, but {made}")
            named = (f"{one.url}:{one.dataset}" if one.dataset else one.url for one in volumes)
            return home.read("job.json")["name"], tuple(dict.fromkeys(named)) or (url,)
    return output, (output,)


@contextlib.contextmanager
def _listing(output: str | None) -> Any:
    """Give what writes a line to the list of bad chunks, if there is to be one."""
    if output is None:
        yield lambda line: None  # noqa: ARG005
        return
    path = kvstore.local_path(output)
    if path is None:
        raise JobError(f"the list of chunks is written to a local file, not to {kvstore.redact(output)}")
    with replacing(path) as temporary, temporary.open("w") as file:
        file.write("mip,box,error,message\n")
        yield file.write
        file.flush()


@dataclass(frozen=True)
class _ReadBack(Task):
    verifiable = True
    store: Store

    def verify(self, box: BoundingBox) -> None:
        self.store.read(box)

    def read(self, box: BoundingBox) -> None:
        self.store.read(box)

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        return BlockResult()

    def estimate(self, box: BoundingBox) -> Estimate:
        size = self.store.spec.nbytes_of(box)
        return Estimate(bytes_read=size, memory=size, voxels_read=box.size)

    def describe(self) -> dict[str, object]:
        return self.store.fingerprint()
