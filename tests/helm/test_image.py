"""The Dockerfile, what is sent to it, and the workflow that builds it, fit each other. Nothing is built."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/image.yml").read_text())
DEFAULTS = yaml.safe_load((ROOT / "helm/daskflow/values.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VARIANTS = WORKFLOW["jobs"]["image"]["strategy"]["matrix"]["include"]


def words(instruction):
    return [line.split()[1:] for line in INSTRUCTIONS if line.startswith(f"{instruction} ")]


def arguments(variant):
    return dict(line.split("=", 1) for line in variant["arguments"].splitlines())


def test_the_image_runs_as_the_user_that_the_chart_names():
    (user,) = words("USER")
    security = DEFAULTS["podSecurityContext"]
    assert user == [f"{security['runAsUser']}:{security['runAsGroup']}"]
    assert INSTRUCTIONS.index(f"USER {user[0]}") > max(n for n, line in enumerate(INSTRUCTIONS) if "apt-get" in line)


def test_what_is_copied_is_sent_and_nothing_else():
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for sources in words("COPY") if "--from=build" not in sources for source in sources[:-1]}
    assert copied == sent
    assert all((ROOT / one).exists() for one in sent)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {build["project"]["readme"], *build["project"]["license-files"]} <= sent
    assert set(build["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= sent


def test_versions_are_those_of_the_tests():
    (install,) = [line for line in INSTRUCTIONS if "/bin/pip install" in line]
    assert "-c constraints.txt" in install
    assert '".[${EXTRAS}]"' in install
    assert "Python 3.11" in (ROOT / "constraints.txt").read_text().splitlines()[0]
    assert words("ARG")[0] == ["BASE=debian:bookworm-slim"]
    assert [stage[0] for stage in words("FROM")] == ["${BASE}", "${BASE}"]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant["variant"])
def test_arguments_of_a_variant_exist(variant):
    declared = {word.split("=")[0] for (word,) in words("ARG")}
    assert set(arguments(variant)) <= declared
    extras = arguments(variant).get("EXTRAS", "all").split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"]) - {"cuda"}  # which pins another dask


def test_every_image_that_the_chart_names_is_a_variant():
    named = [DEFAULTS["image"], DEFAULTS["workers"]["gpu"]["image"], DEFAULTS["jupyter"]["image"]]
    assert [one["tag"].removeprefix(PROJECT["version"]) for one in named] == [one["suffix"] for one in VARIANTS]


def test_the_workflow_pushes_nothing_for_pull_requests():
    steps = WORKFLOW["jobs"]["image"]["steps"]
    for step in steps:
        text = yaml.safe_dump(step)
        if "docker push" in text or "login-action" in text or "packages" in text:
            assert step["if"] == "github.event_name != 'pull_request'", step["name"]
        assert not step.get("with", {}).get("push")
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "pull_request" in WORKFLOW[True]  # YAML 1.1 reads the key "on" so
