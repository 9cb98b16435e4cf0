"""The chart is well-formed, takes good values, refuses bad ones, and makes what Kubernetes knows, from 1.20 on."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from chart_values import BAD, GOOD

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/daskflow"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
OLDEST = json.loads((Path(__file__).parent / "kubernetes-1.20.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def validate(one, minor):
    """Hold an object to the strict schema of Kubernetes 1.minor."""
    if minor == 20:
        (name,) = [
            name
            for name in OLDEST["definitions"]
            if name.endswith(f".{one['apiVersion'].split('/')[-1]}.{one['kind']}")
        ]
        jsonschema.Draft7Validator({"$ref": f"#/definitions/{name}", **OLDEST}).validate(one)
    else:
        assert kubernetes_validate.validate(one, f"1.{minor}", strict=True) == f"1.{minor}"


def known_to_kubernetes(one):
    """The operator's objects as the pods and services that they hold; others as they are."""
    if "dask.org" not in one["apiVersion"]:
        yield one
        return
    metadata = {"name": one["metadata"]["name"]}
    for part in [one["spec"][name] for name in ("scheduler", "worker") if name in one["spec"]]:
        pod = {"containers": part["spec"]["containers"], **part["spec"]}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, **part["metadata"]}, "spec": pod}
        if "service" in part:
            yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": part["service"]}


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD)
def test_lint_finds_nothing(helm, values):
    report = helm.lint(str(CHART), values=values, strict=True, kube_version="v1.20.0")
    assert report["errors"] == []
    assert {message["error"] for message in report["messages"]} <= {"icon is recommended"}


@pytest.mark.parametrize("minor", [20, 37])
@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD)
def test_every_object_is_known_to_this_kubernetes(install, values, minor):
    for one in install(values, minor).objects:
        for known in known_to_kubernetes(one):
            validate(known, minor)


@pytest.mark.parametrize(("values", "told"), BAD.values(), ids=BAD)
def test_bad_values_are_refused_by_name(helm, values, told):
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmError) as caught:
        chart.render(values, name="em", namespace="lab")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("minor", "autoscaler", "budget", "policy"),
    [
        (20, "autoscaling/v2beta2", "policy/v1beta1", False),
        (22, "autoscaling/v2beta2", "policy/v1", False),
        (25, "autoscaling/v2", "policy/v1", False),
        (37, "autoscaling/v2", "policy/v1", True),
    ],
)
def test_api_versions_follow_the_server(install, minor, autoscaler, budget, policy):
    release = install(GOOD["everything"], minor)
    assert {one["apiVersion"] for one in release.of("HorizontalPodAutoscaler")} == {autoscaler}
    assert {one["apiVersion"] for one in release.of("PodDisruptionBudget")} == {budget}
    (job,) = release.of("Job")
    assert ("podFailurePolicy" in job["spec"]) == policy


def test_kubernetes_before_1_20_is_refused(install, helm):
    with pytest.raises(helm.HelmError, match=r"1\.20"):
        install({}, 19)


def test_versions_are_the_package_s():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == VERSION
    images = [DEFAULTS["image"], DEFAULTS["workers"]["gpu"]["image"], DEFAULTS["jupyter"]["image"]]
    assert [image["tag"].removeprefix(VERSION) for image in images] == ["", "-cuda", "-jupyter"]


def test_the_schema_names_every_value_and_nothing_else():
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    assert set(schema["properties"]) == {*DEFAULTS, "global"}
    assert set(schema["definitions"]["group"]["properties"]) == set(DEFAULTS["workerDefaults"])

    def compare(values, one, path):
        one = schema["definitions"][one["$ref"].rsplit("/", 1)[1]] if "$ref" in one else one
        if one.get("additionalProperties") is False:
            assert set(values) <= set(one["properties"]), path
            for name, value in values.items():
                if isinstance(value, dict):
                    compare(value, one["properties"][name], f"{path}.{name}")

    compare(DEFAULTS, schema, "")


def test_long_names_of_releases_stay_apart(install):
    names = {
        name: install({"operator": {"enabled": True}}, 37, name).of("DaskCluster")[0]["metadata"]["name"]
        for name in ("a" * 53, "a" * 52 + "b", "em")
    }
    assert len(set(names.values())) == 3
    assert all(len(name) <= 40 for name in names.values())
