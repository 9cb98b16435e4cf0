"""The files that describe the project say the same thing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from daskflow.cli.app import app

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CI = (ROOT / ".ci/run").read_text()
README = (ROOT / "README.md").read_text()
WORKFLOWS = ROOT / ".github/workflows"


def requirements(*extras: str) -> set[str]:
    """What an install with these extras asks for, extras that name extras followed."""
    lines = set(PROJECT["dependencies"])
    for extra in extras:
        for line in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(line)
            lines |= requirements(*requirement.extras) if requirement.name == "daskflow" else {line}
    return lines


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def commands(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith("python3 -m venv")]


def test_environment_yml_asks_for_what_pyproject_asks_for():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, pip = environment["dependencies"]
    assert python == f"python{PROJECT['requires-python']}"
    wanted, options = set(), set()
    for line in pip["pip"]:
        (options if line.startswith("-") else wanted).add(line)
    assert wanted == requirements("all", "dev")
    assert options == {"-c constraints.txt", "-e ."}


def test_the_base_install_is_light():
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert not names & {"torch", "neuroglancer", "cloud-volume", "kimimaro", "zmesh", "h5py", "s3fs", "gcsfs"}


@pytest.mark.parametrize("line", sorted(requirements("all", "dev")))
def test_constraints_allow_what_pyproject_asks_for(line):
    requirement = Requirement(line)
    pinned = [
        spec for spec in constraints()[canonicalize_name(requirement.name)].specifier if spec.operator in ("==", "<=")
    ]
    assert len(pinned) == 1
    assert requirement.specifier.contains(pinned[0].version)


def test_torch_is_pinned_in_the_constraints_alone():
    assert str(constraints()["torch"].specifier) == "==2.13.0"
    pins = [Requirement(line) for line in requirements("torch") if line.startswith("torch")]
    assert all(spec.operator == ">=" for pin in pins for spec in pin.specifier)


def test_ci_runs_the_test_command_of_the_readme_last():
    demo, tests = commands(README)
    assert demo.endswith(".venv/bin/daskflow demo")
    assert tests.endswith(".venv/bin/pytest -n 2 --dist worksteal")
    assert CI.rstrip().splitlines()[-1] == tests


def test_ci_installs_the_system_packages_that_the_readme_names():
    assert "apt install chromium fonts-dejavu-core" in README
    assert "chromium fonts-dejavu-core" in CI


@pytest.mark.parametrize("name", ["LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt", "check", ".ci/run"])
def test_the_file_exists_and_is_executable_where_it_is_a_command(name):
    path = ROOT / name
    assert path.stat().st_size > 0
    assert bool(path.stat().st_mode & 0o100) == (name in ("check", ".ci/run"))


def test_actions_are_pinned_to_a_commit_and_say_its_version():
    uses = [line for path in WORKFLOWS.glob("*.yml") for line in re.findall(r"uses: (.*)", path.read_text())]
    assert len(uses) >= 10
    assert [line for line in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v[\d.]+", line)] == []


def test_ci_runs_on_the_versions_of_python_that_the_package_names():
    job = yaml.safe_load((WORKFLOWS / "tests.yml").read_text())["jobs"]["tests"]
    named = [line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert job["strategy"]["matrix"]["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert job["steps"][-1]["run"] == ".ci/run"


def test_commits_and_issues_ask_for_the_commands_that_exist():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == ["./check"]
    asked = " ".join(path.read_text() for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    typed = re.findall(r"`daskflow ([a-z][\w-]*)", asked)
    assert {"info", "status"} <= set(typed) <= set(app.list_commands(None))
