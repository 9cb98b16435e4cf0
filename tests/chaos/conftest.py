import sys
from pathlib import Path

import pytest

from daskflow.clusters import connect

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))  # for blockfiles, which workers import by name
from emulators import gcs, gcs_emulator, moto, s3

__all__ = ["gcs", "gcs_emulator", "moto", "s3"]  # fixtures


@pytest.fixture(scope="session")
def client():
    """Two worker processes, replaced when they die."""
    with connect("local", workers=2, threads=1) as client:
        yield client
