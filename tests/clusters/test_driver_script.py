"""Drivers in jobs of other batch systems than a real SLURM: what their commands get, and what the scripts do."""

import os
import subprocess
import sys
from pathlib import Path

import dask
import pytest
from click.testing import CliRunner

from daskflow.cli.app import app
from daskflow.clusters.driver_job import DriverJob
from daskflow.errors import JobError, ParameterError

pytest.importorskip("dask_jobqueue", reason="pip install 'daskflow[slurm]'")

ANSWERS = {
    "slurm": ("sbatch", "scancel", "41;site"),
    "pbs": ("qsub", "qdel", "41.server"),
    "lsf": ("bsub", "bkill", "Job <41> is submitted to queue <q7>."),
    "sge": ("qsub", "qdel", 'Your job 41 ("daskflow-driver") has been submitted'),
    "htcondor": ("condor_submit", "condor_rm", "41.0 - 41.0"),
}
HEADERS = {
    "slurm": ("#SBATCH --time=90", "#SBATCH --mem=477M", "#SBATCH --partition=long", "#SBATCH --requeue"),
    "pbs": ("#PBS -l walltime=01:30:00", "#PBS -l select=1:ncpus=1:mem=477MB", "#PBS -q long", "#PBS -r y"),
    "lsf": ("#BSUB -W 01:30", "#BSUB -M 500000", "#BSUB -q long", '#BSUB -Q "99"'),
    "sge": ("#$ -l h_rt=01:30:00", "#$ -q long", "#$ -r y", "#$ -S /bin/bash"),
    "htcondor": ("Universe = local", "Request_Memory = 477", "Queue"),
}


@pytest.fixture(autouse=True)
def _on_a_login_node(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()


def stand_in(name, answer):
    """Put a command on the PATH that records its words and what it reads, and answers."""
    path = Path("bin", name)
    record = Path.cwd() / name
    path.write_text(f"#!/bin/sh\necho \"$@\" >> {record}.words\ncat > {record}.in\necho '{answer}'\n")
    path.chmod(0o755)


def driver(kind, *command, walltime="90min", queue="long"):
    return DriverJob.of(command, kind, walltime=walltime, memory="500MB", queue=queue)


@pytest.mark.parametrize("kind", ANSWERS)
def test_each_system_gets_a_script_in_its_own_words(kind):
    submit, cancel, answer = ANSWERS[kind]
    stand_in(submit, answer)
    stand_in(cancel, "")
    options = ["--cluster", kind, "--walltime", "90min", "--memory", "500MB", "--queue", "long"]
    words = ["recipe.py", "it's two words"]
    shown = CliRunner().invoke(app, ["submit", "--show-script", *options, *words], prog_name="daskflow")
    assert not Path("daskflow-logs").exists()
    told = CliRunner().invoke(app, ["submit", *options, *words], prog_name="daskflow").stdout
    assert "job 41 runs the driver" in told
    assert f"`{cancel} 41` ends it" in told
    given = Path(f"{submit}.in").read_text().rstrip()
    assert len(given.splitlines()) == len(shown.stdout.rstrip().splitlines())
    assert set(HEADERS[kind]) <= set(given.splitlines())
    if kind != "htcondor":
        assert f"\n{sys.executable} recipe.py 'it'\"'\"'s two words' &\n" in given


@pytest.mark.parametrize(("kind", "status"), [("pbs", 0), ("lsf", 99), ("sge", 99)])
def test_job_comes_back_when_its_walltime_ends_and_not_when_the_driver_does(kind, status, tmp_path):
    stand_in(ANSWERS[kind][0], ANSWERS[kind][2])
    stand_in(ANSWERS[kind][1], "")
    told_once = "trap 'n=x$n' TERM; echo begun; until [ $n ]; do sleep 0.05; done; sleep 0.2; echo told $n; exit 143"
    job = driver(kind, "bash", "-c", told_once, walltime="3s", queue=None)
    _, log = job.submit()
    script = Path(f"{ANSWERS[kind][0]}.in").read_text()
    ended = subprocess.run(["bash"], input=script, cwd="/", text=True, check=False, timeout=60, capture_output=True)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert log.read_text().startswith("begun\ntold x\nwalltime ends")
    assert "queued again" in log.read_text()
    if kind == "pbs":
        assert (tmp_path / "qsub.words").read_text() == f"\n{job.driver.copy}\n"
        assert job.driver.copy.read_text() == script
    failing = driver(kind, "bash", "-c", "exit 7", walltime="3s", queue=None)
    failing.submit()
    script = Path(f"{ANSWERS[kind][0]}.in").read_text()
    assert subprocess.run(["bash"], input=script, text=True, check=False, timeout=60).returncode == 7
    told = failing.driver.log.read_text().splitlines()
    assert [words for words in told if "wait_for: No record of process" not in words] == []  # as bash says now and then


def test_account_of_the_configuration_pays_for_the_driver():
    named = {f"jobqueue.{name}": "lab" for name in ("pbs.account", "lsf.project", "slurm.account")}
    with dask.config.set(named):
        assert "#PBS -A lab\n" in driver("pbs", "true").script
        assert '#BSUB -P "lab"\n' in driver("lsf", "true").script
        assert "#SBATCH --account=lab\n" in driver("slurm", "true").script


def test_driver_that_cannot_be_submitted_is_refused():
    with pytest.raises(ParameterError, match=r"drivers can be submitted to slurm, pbs, .*, not to local"):
        driver("local", "true")
    stand_in("qsub", "")
    stand_in("qdel", "")
    Path("bin/qsub").write_text("#!/bin/sh\necho 'qsub: no such queue' >&2\nexit 1\n")
    with pytest.raises(JobError, match="pbs refuses the driver's job: qsub: no such queue"):
        driver("pbs", "true").submit()
