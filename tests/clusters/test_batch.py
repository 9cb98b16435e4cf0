"""Scripts of jobs, which need no batch system."""

import sys

import dask
import pytest

from daskflow.clusters.batch import script
from daskflow.clusters.batch_systems import SYSTEMS
from daskflow.clusters.request import Request
from daskflow.errors import ParameterError

pytest.importorskip("dask_jobqueue", reason="pip install 'daskflow[slurm]'")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(kind="slurm", **options):
    return script(kind, Request.of(options))


@pytest.mark.parametrize("kind", SYSTEMS)
def test_script_of_each_system_has_defaults_that_work(kind, tmp_path):
    text = written(kind)
    assert f"{sys.executable} -m distributed.cli.dask_worker" in text
    assert "--nthreads 1 --memory-limit 3.73GiB" in text
    assert str(tmp_path / "daskflow-logs") in text
    assert not list(tmp_path.iterdir())
    assert "--dashboard-address 127.0.0.1:0" in text
    assert ("--lifetime 3000s --lifetime-stagger 300s" in text) == (kind != "htcondor")


@pytest.mark.parametrize(
    ("kind", "line"),
    [("slurm", "-t 02:30:00"), ("pbs", "walltime=02:30:00"), ("lsf", "-W 02:30"), ("sge", "h_rt=02:30:00")],
)
def test_walltime_is_written_as_each_system_reads_it(kind, line):
    assert line in written(kind, walltime="150min")


def test_options_reach_the_script():
    text = written(
        threads=2,
        memory="8GB",
        processes=4,
        queue="short",
        account="lab",
        environment={"TOKEN": "it's"},
        job_script_prologue=["module load x"],
        **{"job-extra-directives": ["--gres=gpu:1"]},
    )
    for part in ("-p short", "-A lab", "--cpus-per-task=8", "--mem=30G", "gpu:1", "--nworkers 4 ", "--nthreads 2"):
        assert part in text
    assert "export MALLOC_ARENA_MAX=1" in text
    assert text.index("export TOKEN='it'\"'\"'s'") < text.index("module load x") < text.index("dask_worker")


def test_each_group_has_a_script_and_takes_over_what_it_does_not_say():
    gpu = {"workers": "0:3", "queue": "gpu", "resources": {"GPU": 1, "DISK": 0.5}}
    text = written(workers=4, queue="cpu", walltime="2h", resources={"DISK": 1}, groups={"gpu": gpu})
    headline = "# slurm, gpu: 0 to 3 workers of 1 thread and 4 GB each, GPU 1, DISK 0.5, jobs of 02:00:00\n"
    first, second = text.split(headline)
    assert first.startswith("# slurm: 4 workers of 1 thread and 4 GB each, DISK 1, jobs of 02:00:00\n#!")
    for part, words in ((first, ("-p cpu", "--resources DISK=1")), (second, ("-p gpu", "--resources GPU=1,DISK=0.5"))):
        assert all(word in part for word in (*words, "-t 02:00:00"))


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (["gpu"], "groups .* must have options by name"),
        ({"GPU": {}}, "must be named by small letters"),
        ({"gpu": {"qeue": 1}}, "did you mean queue"),
        ({"gpu": {"workers": "0:0"}}, "workers 0 must be at least 1"),
        ({"gpu": {"resources": "GPU=1"}}, "must be numbers by name"),
    ],
)
def test_group_that_cannot_be_is_refused(groups, told):
    with pytest.raises(ParameterError, match=told):
        written(groups=groups)


def test_configuration_of_dask_wins_over_defaults_and_options_win_over_it(tmp_path):
    ours = {
        "cores": 8,
        "memory": "32GB",
        "processes": 2,
        "queue": "long",
        "walltime": "2-00:00:00",
        "log-directory": str(tmp_path / "logs"),
        "name": "mine",
        "local-directory": "/fast",
        "worker-extra-args": ["--lifetime", "5m"],
    }
    with dask.config.set({"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **ours}}):
        text = written()
        asked = written(threads=1, memory="2GB", queue="short", walltime="30min")
    for part in ("-J mine", "-p long", "-t 48:00:00", "--cpus-per-task=8", "--nthreads 4", "/fast", "--lifetime 5m"):
        assert part in text
    assert "--lifetime-stagger" not in text
    for part in ("-p short", "-t 00:30:00", "--cpus-per-task=2", "--nthreads 1", "--memory-limit 1.86GiB"):
        assert part in asked


def test_section_of_the_configuration_can_be_chosen():
    with dask.config.set({"jobqueue.night": {**dask.config.get("jobqueue.slurm"), "queue": "night"}}):
        assert "-p night" in written(config_name="night")
    with pytest.raises(ParameterError, match=r"no jobqueue\.night, but .*slurm"):
        written(config_name="night")


@pytest.mark.parametrize(
    ("name", "told"),
    [("qeue", "did you mean queue"), ("cores", "say threads and processes"), ("env_extra", "say job_script_prologue")],
)
def test_unknown_option_is_refused_with_what_to_say(name, told):
    with pytest.raises(ParameterError, match=told):
        written(**{name: 1})


def test_lsf_has_a_project_and_no_account():
    with pytest.raises(ParameterError, match="unknown option 'account' of lsf"):
        written("lsf", account="lab")
