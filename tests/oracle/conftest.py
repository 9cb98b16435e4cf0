"""igneous, in an environment and a process of its own, to compare with."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the modules that tests share

from environment import OracleError, oracle_python
from oracle import Igneous

from daskflow.clusters import Threads


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.oracle)
            item.add_marker(pytest.mark.timeout(600))  # the first one may have to install igneous


def pytest_collection_finish(session):
    if any(item.get_closest_marker("oracle") for item in session.items):
        threading.Thread(target=_make_environment, daemon=True).start()  # while other tests run


def _make_environment():
    with suppress(OracleError):  # said by the fixture
        oracle_python()


@pytest.fixture(scope="session")
def igneous_process():
    """The process that runs igneous."""
    try:
        python = oracle_python()
    except OracleError as error:
        pytest.skip(f"no igneous to compare with: {error}")
    with Igneous(python) as running:
        yield running


@pytest.fixture
def igneous(igneous_process, tmp_path):
    """igneous, which keeps its layers in the test's directory."""
    igneous_process.folder = tmp_path
    return igneous_process


@pytest.fixture
def threads():
    """Two threads of this process."""
    with Threads(2) as pool:
        yield pool
