import contextlib
import sys
from pathlib import Path

import pytest

from daskflow.clusters import Threads
from daskflow.errors import JobError

sys.path.insert(0, str(Path(__file__).parent))  # for object_jobs


@pytest.fixture
def threads():
    with Threads(1) as pool:
        yield pool


@pytest.fixture(scope="session")
def run_twice():
    """Run a job until the writing of what a class stores fails, then to its end."""

    def run(job, broken, blocks):
        write, left = broken.write, [blocks]

        def fail(task, box, outputs):
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("a block is lost")
            return write(task, box, outputs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(broken, "write", fail)
            with contextlib.suppress(JobError):
                job.run(Threads(1), progress=False, retries=0, fail_fast=True)
        assert job.run(Threads(2), progress=False, retry_failed=True).ok

    return run
