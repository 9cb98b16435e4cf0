"""The chart, installed by a real Helm engine on an API server in memory."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # for kubernetes_api

CHART = Path(__file__).parents[2] / "helm/daskflow"


@dataclass(frozen=True)
class Release:
    """What an installation made.

    Attributes:
        objects: all of them, the pod of `helm test` included.
        notes: what Helm tells who installed it.
        manifest: what was applied, as text.
    """

    objects: list
    notes: str
    manifest: str

    def of(self, kind):
        return [one for one in self.objects if one["kind"] == kind]

    def pods(self):
        """Name of the owner -> (labels, pod specification), those of the operator's objects included."""
        found = {}
        for one in self.objects:
            spec, name = one.get("spec", {}), f"{one['kind']}/{one['metadata']['name']}"
            if one["kind"] == "Pod":
                found[name] = (one["metadata"]["labels"], spec)
            elif "template" in spec:
                found[name] = (spec["template"]["metadata"]["labels"], spec["template"]["spec"])
            elif one["kind"] in ("DaskCluster", "DaskWorkerGroup"):
                for part in {"scheduler", "worker"} & set(spec):
                    found[f"{name}/{part}"] = (spec[part]["metadata"]["labels"], spec[part]["spec"])
        return found

    def containers(self):
        for name, (_, pod) in self.pods().items():
            for container in [*pod.get("initContainers", ()), *pod["containers"]]:
                yield f"{name}/{container['name']}", container


@pytest.fixture(scope="session")
def helm(tmp_path_factory):
    """The Helm engine, away from whatever configuration this machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("KUBECONFIG", raising=False)
        import helm_python

        yield helm_python


@pytest.fixture(scope="session")
def install(helm):
    """Install the chart with some values on an empty cluster of Kubernetes 1.minor."""
    from kubernetes_api import api_server

    installed = {}

    def install(values=None, minor=20, name="em"):
        key = json.dumps([values, minor, name])
        if key not in installed:
            with (
                api_server(minor) as (url, _),
                helm.Config(kube_apiserver=url, namespace="lab", storage_driver="memory") as config,
            ):
                told = config.install(str(CHART), name, values or {})
            with helm.Chart.load(CHART) as chart:
                rendered = chart.render(values or {}, name=name, namespace="lab")
            hooks = [text for file, text in rendered.items() if "/templates/tests/" in file]
            objects = [one for text in (told["manifest"], *hooks) for one in yaml.safe_load_all(text) if one]
            installed[key] = Release(objects, told["notes"], told["manifest"])
        return installed[key]

    return install
