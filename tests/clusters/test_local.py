import os
import signal
import subprocess
import sys

import pytest

from daskflow.clusters import connect, local
from daskflow.errors import JobError


@pytest.fixture(scope="module")
def client():
    with connect("local", workers=2, threads=1, memory="500MB") as client:
        yield client


def test_workers_are_as_asked_for(client):
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    assert [(worker["nthreads"], worker["memory_limit"]) for worker in workers] == [(1, 500 * 10**6)] * 2


def test_everything_listens_on_this_machine_only(client):
    import psutil

    pids = [os.getpid(), *client.run(os.getpid).values()]
    listening = [c.laddr.ip for pid in pids for c in psutil.Process(pid).net_connections() if c.status == "LISTEN"]
    assert len(listening) >= 3
    assert set(listening) == {"127.0.0.1"}


def test_stranger_on_this_machine_is_not_let_in(client):
    address = client.scheduler.address
    assert address.startswith("tls://127.0.0.1")
    assert {worker.split(":")[0] for worker in client.scheduler_info(n_workers=-1)["workers"]} == {"tls"}
    with pytest.raises(JobError, match="no Dask scheduler answers"):
        connect(address.replace("tls", "tcp"), timeout=0.5)
    with pytest.raises(JobError, match=r"wants certificates.*distributed\.comm\.tls\.ca-file"):
        connect(address, timeout=0.5)


def test_cluster_without_cryptography_says_so_once(caplog):
    local._say_unprotected.cache_clear()
    for _ in range(2):
        local._say_unprotected()
    assert len(caplog.messages) == 1
    assert "daskflow[secure]" in caplog.text


def test_worker_holds_no_block_it_does_not_run(client):
    assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.WORKER_SATURATION) == 1.0


def test_workers_leave_ctrl_c_to_the_driver(client):
    assert set(client.run(signal.getsignal, signal.SIGINT).values()) == {signal.SIG_IGN}


def pages_of_new_arrays():
    """Return how many fresh pages ten arrays of 2 MB take, one after another."""
    import resource

    import numpy as np

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems hand out memory in other ways")
def test_workers_use_the_memory_of_arrays_again(client):
    assert max(client.run(pages_of_new_arrays).values()) < 5 * 2**21 // os.sysconf("SC_PAGE_SIZE")


def test_groups_of_workers_declare_what_they_have():
    gpu = {"threads": 2, "resources": {"GPU": 1}, "environment": {"CUDA_VISIBLE_DEVICES": "1"}}
    with connect("local", workers=1, memory="500MB", resources={"DISK": 2}, groups={"gpu": gpu}) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        devices = client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()
    assert {worker["name"]: (worker["nthreads"], worker["resources"]) for worker in workers} == {
        0: (1, {"DISK": 2}),
        "gpu-0": (2, {"GPU": 1}),
    }
    assert "1" in devices


def test_closing_the_client_ends_the_workers():
    with connect("local", workers=1) as client:
        (pid,) = client.run(os.getpid).values()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_script_without_a_main_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from daskflow.clusters import connect\nconnect('local', workers=1)\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert 'if __name__ == "__main__"' in done.stderr
