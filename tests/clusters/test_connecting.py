import socket
import sys
from types import SimpleNamespace

import pytest

from daskflow import clusters
from daskflow.clusters import Threads, connect, resolve, script_is_guarded, stand_in
from daskflow.clusters.kinds import KINDS
from daskflow.clusters.workers import Workers
from daskflow.errors import JobError, MissingDependencyError, ParameterError


def test_threads_is_a_pool_in_this_process():
    with connect("threads", workers=2, threads=3, memory="1GB") as pool:
        assert isinstance(pool, Threads)
        assert (pool.threads, pool.memory) == (6, 10**9)


@pytest.mark.parametrize("target", ["nowhere", "connecting", ""])
def test_unknown_name_is_refused_with_the_known_ones(target):
    with pytest.raises(ParameterError, match=r"use local, threads, .* an address like tcp://host:8786"):
        connect(target)


def test_name_that_is_nearly_right_is_told():
    with pytest.raises(ParameterError, match="'slrum'; did you mean slurm"):
        connect("slrum")


@pytest.mark.parametrize("kind", ["local", "threads"])
def test_unknown_option_is_refused_with_the_nearest(kind):
    with pytest.raises(ParameterError, match=f"unknown option 'worker' of {kind}; did you mean workers"):
        connect(kind, worker=3)


@pytest.mark.parametrize("workers", ["2-4", "x", "0", "3:2", ":4", 0, -1])
def test_numbers_of_workers_that_cannot_be_are_refused(workers):
    with pytest.raises(ParameterError, match="workers"):
        connect("slurm", workers=workers)


@pytest.mark.parametrize("kind", ["local", "threads"])
def test_range_of_workers_is_refused_where_their_number_is_fixed(kind):
    with pytest.raises(ParameterError, match=f"{kind} starts a fixed number; say 4"):
        connect(kind, workers="2:4")


def test_memory_that_no_process_fits_in_is_refused():
    with pytest.raises(ParameterError, match=r"memory 60 MB is less than a worker process takes .* 150 MB or more"):
        connect("local", workers=1, memory="60MB")


def test_command_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(JobError, match=r"slurm needs the commands sbatch and scancel, not found on the PATH"):
        connect("slurm")


def test_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"slurm needs dask-jobqueue: pip install 'daskflow\[slurm\]'"):
        connect("slurm")


def test_modules_of_all_kinds_can_be_imported():
    assert all(callable(kind.load().start) for kind in KINDS.values() if kind.package is None)


def test_file_names_a_kind_and_its_options(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("kind: threads\nthreads: 3\nworkers: 2\nmemory: 1GB\n")
    with connect(file, workers=1) as pool:
        assert (pool.threads, pool.memory) == (3, 10**9)


def test_file_reads_ranges_and_times_as_they_are_written(tmp_path):
    file = tmp_path / "mine.yml"
    file.write_text(
        "kind: slurm\nworkers: 2:50\nwalltime: 1:30:00\nprocesses: 2\nnanny: true\nenvironment: {A: 007, B: yes}\n"
    )
    kind, request = resolve(str(file), {"threads": 2, "memory": None})
    assert (kind.name, request.workers, request.threads, request.memory) == ("slurm", (2, 50), 2, None)
    assert request.options == {
        "walltime": "1:30:00",
        "processes": 2,
        "nanny": True,
        "environment": {"A": "007", "B": "yes"},
    }


@pytest.mark.parametrize("text", ["", "workers: 3", "- slurm", "kind: [", "kind: {a: 1}"])
def test_file_that_names_no_kind_is_refused(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ParameterError, match=r"mine\.yaml"):
        connect(file)


def test_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"cannot read .*mine\.yaml"):
        connect(tmp_path / "mine.yaml")
    with pytest.raises(JobError, match=r"there is no .*scheduler\.json"):
        connect(tmp_path / "scheduler.json")


def test_scheduler_that_takes_connections_and_never_answers_is_waited_for_aloud_and_not_for_ever(caplog, monkeypatch):
    monkeypatch.setattr(clusters, "_PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(JobError, match=f"no Dask scheduler answers at {address} within 1 s"):
            connect(address, timeout=1)
    assert f"waiting for the Dask scheduler at {address}, for 1 s at most" in caplog.text


def test_scheduler_file_leads_to_its_scheduler(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, processes=False, protocol="tcp://", dashboard_address="127.0.0.1:0") as cluster:
        (tmp_path / "scheduler.json").write_text(f'{{"address": "{cluster.scheduler_address}"}}')
        with connect(tmp_path / "scheduler.json") as client:
            assert client.submit(int, "7").result(timeout=60) == 7


def test_planning_starts_nothing_where_workers_are_far_away(monkeypatch):
    monkeypatch.setattr("shutil.which", str)
    planned = stand_in("slurm", {"workers": "2:10", "threads": 3, "memory": "2GB"})
    assert planned == Workers(10, 30, 3, 2 * 10**9, at_most=True)
    gpu = {"workers": "0:4", "memory": "9GB", "resources": {"GPU": 2}}
    planned = stand_in("slurm", {"workers": 2, "threads": 3, "memory": "2GB", "groups": {"gpu": gpu}})
    assert planned == Workers(6, 18, 3, 2 * 10**9, Workers(4, 12, 3, 9 * 10**9, at_most=True), at_most=True)
    assert stand_in("local", {}) is None
    assert stand_in("tcp://host:1", {}) is None


@pytest.mark.parametrize("option", ["workers", "threads"])
def test_no_workers_are_refused(option):
    with pytest.raises(ParameterError, match=f"{option} 0 must be at least 1"):
        connect("local", **{option: 0})


def test_workers_at_an_address_cannot_be_chosen():
    with pytest.raises(ParameterError, match="workers, memory cannot be chosen for tcp://host:1"):
        connect("tcp://host:1", workers=2, memory="1GB")


def test_address_without_a_scheduler_is_an_error_in_time():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(JobError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1"):
            connect(f"tcp://127.0.0.1:{taken.getsockname()[1]}", timeout=1)


@pytest.mark.parametrize(
    ("text", "guarded"), [("print()", False), ('if __name__ == "__main__":\n    print()', True), (None, False)]
)
def test_script_that_would_run_again_in_workers_is_told(tmp_path, monkeypatch, text, guarded):
    script = tmp_path / "<stdin>"
    if text is not None:
        script.write_text(text)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(script), __spec__=None))
    assert script_is_guarded() == guarded


def test_notebook_has_nothing_to_run_again(monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace())
    assert script_is_guarded()
