"""Workers that do not die but are slow, hang, or are cut off and come back late."""

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest
from blockfiles import grid, job
from distributed import Client, LocalCluster
from processes import until

from daskflow.clusters import connect

BOXES = [str(box) for box in grid(12)]
EXPECTED = {box: f"1 {box}".encode() for box in BOXES}


def test_straggler_holds_up_its_own_batch_alone(client, tmp_path):
    files, task = job(tmp_path, blocks=12, slow={BOXES[2]: 3.0}, seconds=0.02)
    assert files.run(client, progress=False).ok
    assert task.outputs() == EXPECTED
    written = {path.stem: path.stat().st_mtime for path in task.folder.glob("*.out")}
    assert sum(written[box] >= written[BOXES[2]] for box in BOXES) <= 4  # blocks of a batch


@pytest.mark.slow
def test_worker_that_hangs_is_replaced_and_its_block_runs_elsewhere(tmp_path):
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": "5s"}),
        connect("local", workers=2, threads=1) as client,
    ):
        pid = next(iter(client.run(os.getpid).values()))
        files, task = job(tmp_path, blocks=12, seconds=0.2)
        stops = threading.Thread(target=lambda: (until(task.outputs), os.kill(pid, signal.SIGSTOP)))
        task.check()
        stops.start()
        report = files.run(client, progress=False, retries=0)
        stops.join()
    assert report.ok
    assert task.outputs() == EXPECTED
    assert report.stages[0].lost_workers == 1
    assert 12 <= task.calls("read") <= 14


class Link:
    """A way to a port, on which bytes wait while it is cut; no connection ends."""

    def __init__(self, port):
        self.whole = threading.Event()
        self.whole.set()
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source, target):
        try:
            while data := source.recv(65536):
                self.whole.wait()
                target.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            target.close()

    def close(self):
        self._listener.close()


@contextmanager
def worker_behind(link):
    """Run a worker that reaches its scheduler by a link."""
    imports = os.pathsep.join([str(Path(__file__).parents[1] / "jobs"), os.environ.get("PYTHONPATH", "")])
    words = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--name", "far", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://127.0.0.1:{link.port}", *words],
        env={**os.environ, "PYTHONPATH": imports},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_worker_that_is_cut_off_and_comes_back_late_does_no_harm(tmp_path):
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": "5s"}),
        LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        link = Link(int(cluster.scheduler_address.rpartition(":")[2]))
        with worker_behind(link) as far:
            client.wait_for_workers(2, timeout=60)
            files, task = job(tmp_path, blocks=12, seconds=0.2)
            cuts = threading.Thread(target=lambda: (until(lambda: len(task.outputs()) > 3), link.whole.clear()))
            task.check()
            cuts.start()
            report = files.run(client, progress=False, retries=0)
            cuts.join()
            assert report.ok
            assert report.stages[0].lost_workers == 1
            assert task.calls("read") > 12
            link.whole.set()
            far.wait(timeout=60)  # it hears that it was given up
        link.close()
    assert task.outputs() == EXPECTED
