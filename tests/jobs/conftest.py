import sys
from pathlib import Path

import pytest

from daskflow.clusters import Threads, connect

sys.path.insert(0, str(Path(__file__).parent))  # for blockfiles, which workers import by name


@pytest.fixture
def threads():
    """Two threads of this process."""
    with Threads(2) as pool:
        yield pool


@pytest.fixture(scope="session")
def client():
    """Two worker processes."""
    with connect("local", workers=2, threads=1) as client:
        yield client
