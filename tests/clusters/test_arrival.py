"""What is said of jobs whose workers are not there, with a stand-in for the queue."""

import asyncio
from types import SimpleNamespace

from distributed.core import Status

from daskflow.clusters import arrival
from daskflow.clusters.batch_systems import System


def test_job_whose_workers_are_gone_is_waited_for_aloud_and_replaced_when_it_leaves_the_queue(
    tmp_path, monkeypatch, caplog
):
    queue, squeue = tmp_path / "queue", tmp_path / "squeue"
    squeue.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {queue}\n')
    squeue.chmod(0o755)
    queue.write_text("7 PENDING (Priority)\n")
    monkeypatch.setattr(arrival, "_LOOK", 0.01)
    there, forgotten = [True], []
    cluster = SimpleNamespace(
        status=Status.running,
        loop=SimpleNamespace(add_callback=lambda start: start()),
        jobs={"": ["daskflow-0"], "gpu": []},
        awaited_jobs=lambda: {} if there[0] else {"daskflow-0": "7"},
        forget=forgotten.append,
    )

    async def until(seen):
        for _ in range(1000):
            if seen():
                return
            await asyncio.sleep(0.01)

    async def run():
        arrival.QueueWatch(cluster, "slurm", System("SLURMCluster", "squeue --me", queue=(str(squeue),)), tmp_path)
        await asyncio.sleep(0.1)
        assert not caplog.messages
        there[0] = False  # as when the walltime of the only worker ends in the middle of a run
        await until(lambda: caplog.messages)
        assert caplog.messages == ["slurm: no worker is there; waiting for one of job 7: PENDING (Priority)"]
        assert (tmp_path / "asked").read_text() == "7\n"
        assert not forgotten
        queue.write_text("")
        await until(lambda: forgotten)
        cluster.status = Status.closed
        await asyncio.sleep(0.05)

    asyncio.run(run())
    assert forgotten[0] == "daskflow-0"
    assert any("job 7 ended before its worker came, and is replaced" in line for line in caplog.messages)
