"""Imports point down the house, and importing daskflow is cheap."""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "daskflow"
HEAVY = {"torch", "cupy", "distributed", "kimimaro", "zmesh", "kubernetes"}
OPTIONAL = HEAVY | {
    *("safetensors", "h5py", "brotli", "neuroglancer", "PIL", "bokeh", "s3fs", "gcsfs", "cryptography", "cloudvolume"),
    *(
        "dask_cuda",
        "dask_jobqueue",
        "dask_kubernetes",
        "imagecodecs",
        "monai",
        "pytest",
        "hypothesis",
        "IPython",
        "pyarrow",
    ),
}

# Imported only when they are used: clusters, networks and what runs them, and the suites for authors of stores
# and operators.
LATE = (
    *(f"clusters/{name}.py" for name in ("local", "owning", "cuda", "kubernetes")),
    *(f"clusters/{name}.py" for name in ("arrival", "batch", "batch_options", "groups", "replacing")),
    *("inference/pytorch.py", "inference/state_dicts.py", "demo/boundary_net.py", "testing/"),
)
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def run_python(code: str) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=120).stdout


def loaded_by(code: str) -> set[str]:
    """Packages outside Python itself that a program loads, and `site` does not."""
    code = f"import json, sys\nbefore = set(sys.modules)\n{code}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    names = {name.partition(".")[0] for name in json.loads(run_python(code).splitlines()[-1])}
    return names - sys.stdlib_module_names


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text())


def imported_by(module: str) -> Iterator[tuple[int, str]]:
    """Line and top-level name of what a module imports when it is imported, type checking apart."""

    def visit(statements: list[ast.stmt]) -> Iterator[tuple[int, str]]:
        for statement in statements:
            match statement:
                case ast.Import(names=names):
                    yield from ((statement.lineno, name.name.partition(".")[0]) for name in names)
                case ast.ImportFrom(module=str(name), level=0):
                    yield statement.lineno, name.partition(".")[0]
                case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=orelse):
                    yield from visit(orelse)
                case ast.If() | ast.Try() | ast.With() | ast.ClassDef():
                    for field in ("body", "orelse", "finalbody"):
                        yield from visit(getattr(statement, field, []))

    yield from visit(tree_of(module).body)


def test_imports_point_down_the_house(monkeypatch):
    monkeypatch.chdir(ROOT)
    # The linter configures logging in a way that disables every logger there is, for all tests that follow.
    monkeypatch.setattr("logging.config.dictConfig", lambda config: None)
    assert lint_imports(no_cache=True) == 0


def test_importing_daskflow_loads_nothing_heavy():
    assert loaded_by("import daskflow") == {"daskflow"}


@pytest.mark.parametrize(
    ("words", "packages"), [(["--help"], {"click"}), (["threshold", "--help"], {"click", "numpy"})]
)
def test_help_loads_little(words, packages):
    code = f"from daskflow.cli.app import app\napp({words}, standalone_mode=False)"
    assert loaded_by(code) <= {"daskflow", *packages}


def test_small_job_in_threads_loads_neither_a_cluster_nor_dask(tmp_path):
    code = f"""
import json, sys
import numpy
from daskflow.cli.app import app
numpy.save({str(tmp_path / "in.npy")!r}, numpy.ones((4, 4, 4), "uint8"))
words = ["--quiet", "open", {str(tmp_path / "in.npy")!r}, "save", {str(tmp_path / "out")!r}]
app(words, standalone_mode=False)
print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))
"""
    loaded = set(json.loads(run_python(code).splitlines()[-1]))
    assert not (HEAVY | {"dask", "rich", "scipy", "skimage", "zarr"}) & loaded


def test_optional_packages_are_imported_where_they_are_used():
    found = [
        f"{module}, line {line} imports {name}"
        for module in MODULES
        if not module.startswith(LATE)
        for line, name in imported_by(module)
        if name in OPTIONAL
    ]
    assert found == []


def test_every_package_that_is_imported_is_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    asked = {canonicalize_name(Requirement(line).name) for line in lines}
    homes = packages_distributions()
    imported = {name for module in MODULES for name in everything_imported_by(module)} - {"daskflow"}
    foreign = {name for name in imported - sys.stdlib_module_names if name in homes} - {"IPython"}  # there in notebooks
    assert {name for name in foreign if not asked & set(map(canonicalize_name, homes[name]))} == set()


def test_rooms_take_nothing_but_the_version_from_the_package_itself():
    below = [module for module in MODULES if not module.startswith(("cli/", "demo/", "testing/"))]
    taken = {module: set(taken_from_package(tree_of(module))) - {"__version__"} for module in below}
    assert {module: names for module, names in taken.items() if names} == {}


def everything_imported_by(module: str) -> Iterator[str]:
    for node in ast.walk(tree_of(module)):
        match node:
            case ast.Import(names=names):
                yield from (name.name.partition(".")[0] for name in names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name.partition(".")[0]


def taken_from_package(tree: ast.Module) -> Iterator[str]:
    """What a module uses of `daskflow/__init__.py`, which stands above every room."""
    rooms = {path.stem for path in PACKAGE.iterdir()}
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="daskflow", names=names):
                yield from (name.name for name in names if name.name not in rooms)
            case ast.Attribute(value=ast.Name(id="daskflow"), attr=attribute) if attribute not in rooms:
                yield attribute
