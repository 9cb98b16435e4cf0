import time

import numpy as np
import pytest
from blockfiles import WriteFiles, grid, job

from daskflow.clusters import Threads
from daskflow.errors import ParameterError
from daskflow.jobs.batch import Batch
from daskflow.jobs.executor import executor_of
from daskflow.volume.stage import Stage, Task


@pytest.fixture(params=["threads", "distributed"])
def executor(request):
    executor = executor_of(request.getfixturevalue({"threads": "threads", "distributed": "client"}[request.param]))
    yield executor
    executor.close()


def gather(executor, count, seconds=60):
    settled, end = [], time.monotonic() + seconds
    while len(settled) < count:
        settled += executor.collect(0.1)
        assert time.monotonic() < end
    return settled


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def opened(executor, folder, **options):
    task = WriteFiles(folder / "out", **options)
    task.check()
    return task, executor.open(Stage("files", grid(8), task), overlap=True, verb="run")


def test_every_batch_comes_back(executor, tmp_path):
    task, submit = opened(executor, tmp_path)
    batches = [Batch(np.arange(first, first + 2)) for first in range(0, 8, 2)]
    submit(batches)
    settled = gather(executor, 4)
    assert {one.batch for one in settled} == set(batches)
    assert all(one.deaths == 0 and len(one.result.states) == 2 for one in settled)
    assert len(task.outputs()) == 8
    assert executor.collect(0) == []


def test_workers_are_counted_and_limited(executor):
    workers = executor.workers
    assert workers.threads == 2
    assert workers.memory > 0


def test_batches_nobody_began_can_be_withdrawn(executor, tmp_path):
    task, submit = opened(executor, tmp_path, seconds=0.5)
    batches = [Batch([block]) for block in range(8)]
    submit(batches)
    end = time.monotonic() + 60
    while not task.calls():
        assert time.monotonic() < end
        time.sleep(0.01)
    taken = executor.withdraw()
    assert 4 <= len(taken) <= 7
    left = gather(executor, 8 - len(taken))
    assert {one.batch for one in left} | set(taken) == set(batches)
    time.sleep(0.2)
    assert len(task.outputs()) <= len(left) + 2  # a worker may begin one while it is withdrawn


def test_running_batches_can_be_let_go(executor, tmp_path):
    _, submit = opened(executor, tmp_path, seconds=0.3)
    submit([Batch([block]) for block in range(4)])
    assert len(executor.withdraw(running=True)) == 4
    time.sleep(0.8)
    assert executor.collect(0) == []


def test_large_stage_reaches_every_worker(client):
    heavy = Stage("files", grid(8), Heavy(np.zeros(10**6, np.uint8)))
    executor = executor_of(client)
    submit = executor.open(heavy, overlap=False, verb="run")
    submit([Batch([block]) for block in range(8)])
    assert all(not one.result.failures for one in gather(executor, 8))
    executor.close()


class Heavy(Task):
    def __init__(self, array):
        self.array = array

    def read(self, box):
        return self.array

    def compute(self, box, inputs):
        return inputs

    def write(self, box, outputs):
        from daskflow.volume.stage import BlockResult

        assert len(outputs) == 10**6
        return BlockResult()


def test_batches_that_came_back_leave_nothing_with_client_and_scheduler(client, tmp_path):
    def left():
        tasks = client.run_on_scheduler(lambda dask_scheduler: list(map(str, dask_scheduler.tasks)))
        kinds = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_groups))
        return [*tasks, *kinds, *client.futures]

    def prefixes():
        return client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.task_prefixes))

    counts = []
    for run in range(2):
        executor = executor_of(client)
        _, submit = opened(executor, tmp_path / str(run))
        submit([Batch([block]) for block in range(8)])
        assert len(gather(executor, 8)) == 8
        executor.close()
        until(lambda: not left())
        counts.append(prefixes())
    assert counts[0] == counts[1]


def test_scheduler_forgets_its_notes_on_submissions(client, tmp_path, monkeypatch):
    def notes(dask_scheduler):
        spans = dask_scheduler.extensions["spans"].spans.values()
        return sum(len(span.metadata["collections"]) for span in spans)

    monkeypatch.setattr("daskflow.jobs.executor._WATCH", 3600)
    executor = executor_of(client)
    _, submit = opened(executor, tmp_path)
    for block in range(8):
        submit([Batch([block])])
    gather(executor, 8)
    executor.close()
    assert client.run_on_scheduler(notes) >= 8
    monkeypatch.setattr("daskflow.jobs.executor._WATCH", 0.02)
    executor = executor_of(client)
    until(lambda: client.run_on_scheduler(notes) == 0)
    executor.close()


def test_results_that_are_done_together_are_fetched_together(client, tmp_path, monkeypatch):
    asked = []
    fetch = client._gather_remote

    async def counted(*args):
        asked.append(args)
        return await fetch(*args)

    monkeypatch.setattr(client, "_gather_remote", counted)
    monkeypatch.setattr("daskflow.jobs.executor._ROUND", 2.0)
    executor = executor_of(client)
    _, submit = opened(executor, tmp_path)
    submit([Batch([block]) for block in range(8)])
    gather(executor, 8)
    executor.close()
    assert len(asked) <= 3


def test_job_on_processes_equals_job_on_threads(client, threads, tmp_path):
    one, task = job(tmp_path / "threads", blocks=100)
    other, task2 = job(tmp_path / "processes", blocks=100)
    assert one.run(threads, progress=False).counts == other.run(client, progress=False).counts
    assert task.outputs() == task2.outputs()
    assert task2.calls() == 100


def test_other_things_are_refused():
    with pytest.raises(ParameterError, match="runs no jobs"):
        executor_of("tcp://127.0.0.1:1")


def test_closed_pool_is_refused(tmp_path):
    from daskflow.errors import JobError

    pool = Threads(1)
    pool.close()
    with pytest.raises(JobError, match="closed"):
        job(tmp_path)[0].run(pool, progress=False)
