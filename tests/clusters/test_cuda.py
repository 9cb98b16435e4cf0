import stat
import sys
from types import SimpleNamespace

import pytest

from daskflow.clusters import connect
from daskflow.errors import JobError


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a program of that name on the PATH, which prints a text."""

    def install(text):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '{text}'\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    return install


def test_machine_without_a_gpu_is_told_so(nvidia_smi):
    nvidia_smi("No devices were found\\n")
    with pytest.raises(JobError, match="cuda needs a GPU on this machine; nvidia-smi says: No devices were found"):
        connect("cuda")


def test_one_worker_per_gpu_and_no_more(nvidia_smi, monkeypatch):
    nvidia_smi("GPU 0: H200\\nGPU 1: H200\\n")
    started = []
    monkeypatch.setitem(
        sys.modules, "dask_cuda", SimpleNamespace(LocalCUDACluster=lambda **options: started.append(options))
    )
    monkeypatch.setattr("daskflow.clusters.cuda.OwningClient", lambda cluster: cluster)
    connect("cuda", memory="4GB")
    assert (started[0]["n_workers"], started[0]["memory_limit"]) == (2, 4 * 10**9)
    assert (started[0]["host"], started[0]["threads_per_worker"]) == ("127.0.0.1", 2)
    with pytest.raises(JobError, match="this machine has 2: --workers 3 is too many"):
        connect("cuda", workers=3)
