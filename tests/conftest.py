"""What every test shares: hypothesis without a clock, and the real data where they lie."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "daskflow", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("daskflow")

_DATA = Path(os.environ.get("DASKFLOW_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data():
    """The directory of real EM volumes; tests that need it are skipped where it is absent."""
    if not (_DATA / "fib25_image.tif").is_file():
        pytest.skip(f"no real EM data in {_DATA}; set DASKFLOW_TEST_DATA to a directory that holds fib25_image.tif")
    return _DATA
