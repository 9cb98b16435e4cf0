"""Clusters of which some workers declare GPUs; the workers are threads of this process."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, Scheduler, SpecCluster, Worker, get_worker

import daskflow
from daskflow.inference.network import ModelFile, Network
from daskflow.jobs import merge
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.jobs.executor import executor_of

BLOCK = (8, 8, 8)


@pytest.fixture
def cluster(request):
    """Start a worker for each of the resources that a test names."""
    clusters = []

    def start(nthreads=1, **resources):
        here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
        workers = {
            name: {"cls": Worker, "options": {"nthreads": nthreads, "resources": declared, **here}}
            for name, declared in resources.items()
        }
        scheduler = {"cls": Scheduler, "options": here}
        clusters.append(SpecCluster(workers=workers, scheduler=scheduler, silence_logs=False))
        clients.append(Client(clusters[-1]))
        return clients[-1]

    clients = []
    yield start
    for one in (*clients, *clusters):
        one.close()


def where(array, box, read_box, folder):
    """Leave a file that names the worker."""
    Path(folder, str(box)).write_text(get_worker().name)
    time.sleep(0.03)
    return array + 1


def seen(volume, folder, **options):
    folder.mkdir()
    reads = lambda box: box  # noqa: E731
    return volume.map_boxes(where, reads=reads, spec=volume.spec, folder=str(folder), **options)


def save(volume, path):
    return daskflow.save(volume, str(path), block=BLOCK, chunk=BLOCK)


def names(folder):
    return [path.read_text() for path in folder.iterdir()]


@pytest.fixture
def volume():
    return daskflow.open(np.zeros((16, 16, 64), np.uint8))


def test_blocks_that_need_a_gpu_run_where_one_is_declared_and_others_anywhere(cluster, volume, tmp_path):
    client = cluster(cpu={}, gpu={"GPU": 1})
    job = merge(
        [
            save(seen(volume, tmp_path / "net", gpu=True), tmp_path / "a.zarr"),
            save(seen(daskflow.open(np.zeros((16, 16, 128), np.uint8)), tmp_path / "any"), tmp_path / "b.zarr"),
        ]
    )
    assert job.run(client, progress=False).ok
    assert names(tmp_path / "net") == 32 * ["gpu"]
    assert set(names(tmp_path / "any")) == {"cpu", "gpu"}
    assert (daskflow.open(str(tmp_path / "a.zarr")).compute() == 1).all()


def test_without_declared_gpus_they_run_anywhere(cluster, volume, tmp_path):
    client = cluster(one={}, two={"MEMORY": 1})
    assert save(seen(volume, tmp_path / "net", gpu=True), tmp_path / "a.zarr").run(client, progress=False).ok
    assert set(names(tmp_path / "net")) == {"one", "two"}


def test_reading_back_what_a_gpu_made_needs_none(cluster, volume, tmp_path):
    client = cluster(gpu={"GPU": 1})
    job = save(seen(volume, tmp_path / "net", gpu=True), tmp_path / "a.zarr")
    assert job.run(client, progress=False).ok
    assert job.verify(cluster(cpu={}), progress=False).ok


def test_the_plan_says_which_stages_ask_for_gpus(cluster, volume, tmp_path):
    client = cluster(cpu={}, gpu={"GPU": 2}, gpu2={"GPU": 1})
    job = save(seen(volume, tmp_path / "net", gpu=True), tmp_path / "a.zarr")
    assert str(job.plan(client)).endswith(f"on GPUs: {job.stages[0].name} (2 blocks at once, 2 workers)")
    assert "GPU" not in str(save(volume, tmp_path / "b.zarr").plan(client))
    assert "GPU" not in str(job.plan())


def test_a_stage_waits_for_a_gpu_worker_that_went_away(cluster, volume, tmp_path):
    client = cluster(cpu={}, gpu={"GPU": 1})
    executor = executor_of(client)
    assert (executor.workers.gpu.count, executor.workers.gpu.threads) == (1, 1)
    client.retire_workers(names=["gpu"])
    executor.take_lost()
    assert executor.workers.count == 1
    assert (executor.workers.gpu.count, executor.workers.gpu.threads) == (0, 0)
    executor.close()


def test_the_network_computes_one_block_while_others_are_read_and_written(cluster, volume, tmp_path, monkeypatch):
    spans = {"read": [], "network": [], "write": []}

    def slow(name, function):
        def call(*args):
            start = time.perf_counter()
            time.sleep(0.04)
            result = function(*args)
            spans[name].append((start, time.perf_counter()))
            return result

        return call

    model = tmp_path / "net.py"
    model.write_text("class PatchInferencer:\n    def __init__(self, weight_path, mask): pass\n")
    network = Network("universal", BLOCK, BLOCK, channels=1, model=ModelFile.at(model))
    monkeypatch.setattr(network.engine(), "_inferencer", slow("network", np.negative))
    for name in ("read", "write"):
        monkeypatch.setattr(EvaluateVolumes, name, slow(name, getattr(EvaluateVolumes, name)))
    monkeypatch.setattr("daskflow.jobs.stage_run._OVERLAP_SECONDS", 0)  # as for blocks that take half a minute
    monkeypatch.setattr("daskflow.jobs.stage_run._TASK_SECONDS", 0.001)
    answer = daskflow.inference(
        daskflow.open(np.ones((16, 16, 32), np.uint8)),
        input_patch_size=BLOCK,
        output_patch_overlap=(0, 0, 0),
        num_output_channels=1,
        convnet_model=str(model),
    )
    client = cluster(nthreads=2, gpu={"GPU": 1})
    assert save(answer, tmp_path / "a.zarr").run(client, progress=False).ok
    _, *busy = sorted(spans["network"])  # the first tried the network
    assert len(busy) == 16
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(busy))
    beside = [any(a < stop and start < b for a, b in (*spans["read"], *spans["write"])) for start, stop in busy]
    assert sum(beside) > len(busy) / 2
