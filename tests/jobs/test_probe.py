"""What a worker of another machine is asked before anything runs; here it is a thread of this process."""

import numpy as np
import pytest
from distributed import Client, Scheduler, SpecCluster, Worker

import daskflow
from daskflow.errors import PlanError
from daskflow.jobs import probe


@pytest.fixture(scope="module")
def client():
    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    workers = {name: {"cls": Worker, "options": {"nthreads": 1, **here}} for name in ("a", "b")}
    with (
        SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": here}, silence_logs=False) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def job(tmp_path):
    source = tmp_path / "in" / "image.npy"
    source.parent.mkdir()
    np.save(source, np.zeros((8, 8, 8), np.uint8))
    return daskflow.save(daskflow.open(source, voxel_size=(1, 1, 1)), tmp_path / "deep" / "out")


def answering(monkeypatch, **changed):
    """Let workers answer with other values than they found."""
    look = probe.look

    def answer(stages, folders, packages):
        seen = look(stages, folders, packages)
        versions = {**seen.versions, **changed.get("versions", {})}
        unseen = (*seen.unseen, *changed.get("unseen", ()))
        return probe.Seen("node7:11", unseen, versions, changed.get("scratch", seen.scratch))

    monkeypatch.setattr(probe, "look", answer)


def test_workers_that_see_the_same_are_fine_and_nothing_is_stored(client, job, tmp_path, caplog):
    job.check(client)
    assert not caplog.messages
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert job.run(client, progress=False).ok


def test_folder_and_source_that_no_worker_sees_are_refused_before_anything_is_stored(client, job, tmp_path):
    stages = [probe.PickledStage.of(stage).data for stage in job.stages]
    seen = client.submit(probe.look, stages, [str(tmp_path / "no")], []).result()
    assert seen.unseen == (f"{tmp_path / 'no'} is not there",)
    (tmp_path / "in" / "image.npy").unlink()
    for refused in (probe.check_workers, lambda job, client: job.run(client, progress=False)):
        with pytest.raises(PlanError, match=r"no worker of tcp://.* sees what this process sees; on .*image\.npy"):
            refused(job, client)
    assert not (tmp_path / "deep").exists()


def test_worker_of_another_daskflow_is_refused_with_both_versions(client, job, monkeypatch):
    answering(monkeypatch, versions={"daskflow": "0.0.1"})
    with pytest.raises(PlanError, match=rf"daskflow is 0\.0\.1, and here {daskflow.__version__}\. Paths"):
        job.check(client)


def test_other_packages_are_told(client, job, monkeypatch, caplog):
    answering(monkeypatch, versions={"numpy": "1.0"})
    job.check(client)
    assert f"the worker node7:11 has other packages: numpy is 1.0, and here {np.__version__}" in caplog.text


def test_little_space_of_a_worker_is_told(client, job, monkeypatch, caplog):
    answering(monkeypatch, scratch=("/scratch", 5 * 10**6))
    job.check(client)
    assert "the worker node7:11 has only 5 MB free in its folder /scratch" in caplog.text
