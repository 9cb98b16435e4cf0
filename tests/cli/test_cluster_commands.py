import sys

import pytest
from click.testing import CliRunner

from daskflow.cli.app import app


def run(*words):
    return CliRunner().invoke(app, words)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_kind_is_listed_with_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    told = run("clusters")
    assert told.exit_code == 0
    lines = {line.split()[0]: line for line in told.output.splitlines() if line}
    assert lines["local"].endswith("ready")
    assert "sbatch" in lines["slurm"] or "pip install 'daskflow[slurm]'" in lines["slurm"]
    assert "KUBECONFIG" in lines["kubernetes"] or "pip install 'daskflow[kubernetes]'" in lines["kubernetes"]


def test_configuration_of_dask_is_listed():
    dask = pytest.importorskip("dask")
    pytest.importorskip("dask_jobqueue")
    with dask.config.set({"jobqueue.slurm.queue": "short", "jobqueue.slurm.account": "lab"}):
        assert "Dask's configuration (jobqueue.slurm) sets account, queue" in run("clusters").output


def test_script_is_shown_with_the_options_before_the_command(tmp_path):
    pytest.importorskip("dask_jobqueue")
    told = run("--memory", "8GB", "--cluster-option", "queue=short", "clusters", "--show-script", "slurm")
    assert told.exit_code == 0
    assert "#SBATCH -p short" in told.output
    assert "#SBATCH --mem=8G" in told.output
    assert f"{sys.executable} -m distributed.cli.dask_worker" in told.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["clusters", "--show-script", "local"], "local submits no jobs: show-script takes a batch system, e.g. slurm"),
        (["clusters", "--show-script", "slrum"], "did you mean slurm"),
        (["--cluster-option", "queue", "clusters", "--show-script", "slurm"], "NAME=VALUE, e.g. walltime=2h"),
        (["submit", "--cluster", "local", "open"], "can be submitted to slurm, pbs, lsf, sge, htcondor, not to local"),
        (["--cluster", "slurm", "--workers", "x", "create-chunk", "save", "out"], "e.g. 4, or the fewest and the most"),
    ],
)
def test_what_cannot_be_is_refused(words, told):
    result = run(*words)
    assert result.exit_code == 1
    assert told in result.output


@pytest.mark.parametrize("declared", [["--resources", "GPU=1"], ["--resources=DISK=2,GPU=1"]])
def test_worker_by_hand_has_two_threads_for_a_gpu(declared, monkeypatch):
    started = []
    monkeypatch.setattr("os.execv", lambda _, words: started.append(words))
    monkeypatch.setattr("daskflow.clusters.threads.cores", lambda: 8)
    run("worker", "tcp://host:8786")
    run("worker", "tcp://host:8786", *declared)
    run("worker", "--threads", "3", "tcp://host:8786", *declared)
    assert [words[words.index("--nworkers") :][:4] for words in started] == [
        ["--nworkers", "8", "--nthreads", "1"],
        ["--nworkers", "1", "--nthreads", "2"],
        ["--nworkers", "1", "--nthreads", "3"],
    ]
