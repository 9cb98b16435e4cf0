import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for slurm_site


@pytest.fixture(scope="session")
def slurm_site(tmp_path_factory):
    """A real SLURM of two nodes on this machine; tests that need it are skipped where it is not installed."""
    from slurm_site import Site, missing

    absent = missing()
    if absent:
        pytest.skip(f"no SLURM here for want of {', '.join(absent)}: apt install slurm-wlm munge")
    site = Site(tmp_path_factory.mktemp("slurm"))
    try:
        site.start()
        yield site
    finally:
        site.stop()


@pytest.fixture
def slurm(slurm_site, monkeypatch, tmp_path):
    """That SLURM, found by its commands, in an empty folder; no job may be left in its queue."""
    for name, value in slurm_site.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield slurm_site
    slurm_site.until(lambda: not slurm_site.jobs())
