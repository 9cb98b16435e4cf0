import sys
from pathlib import Path

import pytest

from daskflow.clusters import Threads

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))  # for blockfiles


@pytest.fixture
def threads():
    """Two threads of this process."""
    with Threads(2) as pool:
        yield pool
