from types import SimpleNamespace

import pytest

from daskflow.clusters import connect, kubernetes, stand_in
from daskflow.clusters.kubernetes import describe
from daskflow.clusters.request import Request
from daskflow.errors import JobError, ParameterError

pytest.importorskip("dask_kubernetes", reason="pip install 'daskflow[kubernetes]'")


def described(**options):
    return describe("kubernetes", Request.of(options))


def test_pods_start_the_commands_that_dask_installs():
    cluster = described(image="lab/daskflow", workers="2:9", threads=2, memory="8GB", environment={"A": "1"})
    (scheduler,) = cluster["spec"]["scheduler"]["spec"]["containers"]
    (worker,) = cluster["spec"]["worker"]["spec"]["containers"]
    assert scheduler["args"][:2] == ["dask", "scheduler"]
    assert worker["args"][:6] == ["dask", "worker", "--nthreads", "2", "--memory-limit", "8000000000"]
    assert cluster["spec"]["worker"]["replicas"] == 2
    assert worker["resources"]["requests"] == {"cpu": "2", "memory": "8000000000"}
    assert worker["env"] == [{"name": "A", "value": "1"}]
    assert worker["image"] == scheduler["image"] == "lab/daskflow"


def test_group_declares_its_resources_and_asks_for_its_gpus():
    gpu = {"workers": 3, "memory": "9GB", "resources": {"GPU": 1}}
    request = Request.of({"image": "lab/daskflow", "workers": "2:9", "groups": {"gpu": gpu}})
    workers = kubernetes._workers_of("kubernetes", request.groups()["gpu"])
    (container,) = workers["spec"]["containers"]
    assert workers["replicas"] == 3
    assert container["resources"]["limits"] == {"memory": "9000000000", "nvidia.com/gpu": "1"}
    assert "--memory-limit 9000000000 --resources GPU=1" in " ".join(container["args"])
    planned = stand_in("kubernetes", {"image": "lab/daskflow", "workers": "2:9", "groups": {"gpu": gpu}})
    assert (planned.count, planned.gpu.count, planned.gpu.memory) == (12, 3, 9 * 10**9)


def test_autoscaler_that_counts_the_blocks_of_another_group_is_warned_of(monkeypatch, caplog):
    adapted = []
    cluster = SimpleNamespace(add_worker_group=lambda *_, **__: None, adapt=lambda **limits: adapted.append(limits))
    monkeypatch.setattr("dask_kubernetes.operator.KubeCluster", lambda **_: cluster)
    monkeypatch.setattr(kubernetes, "OwningClient", lambda one: one)
    monkeypatch.setattr(kubernetes, "check_configuration", lambda _: None)
    monkeypatch.setattr(kubernetes, "exit_on_signals", lambda: None)
    for groups in ({}, {"gpu": {"resources": {"GPU": 1}}}):
        caplog.clear()
        kubernetes.start("kubernetes", Request.of({"image": "lab/daskflow", "workers": "2:9", "groups": groups}))
        assert ("may keep more of these 2 to 9 workers than have work" in caplog.text) == bool(groups)
    assert adapted == [{"minimum": 2, "maximum": 9}] * 2


def test_image_must_be_said():
    with pytest.raises(ParameterError, match="kubernetes needs the option image"):
        stand_in("kubernetes", {})
    with pytest.raises(ParameterError, match="unknown option 'imag' of kubernetes; did you mean image"):
        described(imag="x")


def test_machine_without_kubernetes_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(JobError, match=r"there is no .*none; name one by KUBECONFIG"):
        connect("kubernetes", image="lab/daskflow")
