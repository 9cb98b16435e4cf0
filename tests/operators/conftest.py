import pytest

from daskflow.clusters import Threads


@pytest.fixture
def threads():
    with Threads(1) as pool:
        yield pool
