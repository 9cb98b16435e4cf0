"""Jobs from bucket to bucket, while the server fails as servers do."""

import random
import threading
from collections import Counter

import numpy as np
import pytest
from emulators import in_front_of

import daskflow
from daskflow.clusters import Threads
from daskflow.stores import kvstore

FAULTS = ("lose", "reset", "500 Internal Server Error", "503 Slow Down", "429 Too Many Requests")


class FaultPlan:
    """Which requests fail, by chance: one in six, and never the same request more than twice in a row."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.in_a_row = Counter()
        self.made = Counter()
        self.lock = threading.Lock()

    def __call__(self, method, path):
        with self.lock:
            if self.in_a_row[method, path] == 2 or self.chance.random() > 1 / 6:
                self.in_a_row[method, path] = 0
                return ""
            self.in_a_row[method, path] += 1
            fault = FAULTS[self.made.total() % len(FAULTS)]
            self.made[fault] += 1
            return fault


def results(url):
    return {
        name: kvstore.read_bytes(f"{url}/{name}") for name in kvstore.list_names(url) if not name.endswith("provenance")
    }


@pytest.mark.emulator
def test_job_over_a_failing_server_ends_in_the_bytes_of_a_clean_run(s3, moto, monkeypatch, tmp_path):
    seed = 1
    array = np.random.default_rng(seed).integers(0, 255, (32, 48, 40), np.uint8)
    source = f"{s3}/source-{seed}"
    daskflow.save(daskflow.Volume.from_array(array, voxel_size=(8, 8, 8)), source, chunk=(16, 16, 16)).run(
        progress=False
    )

    def whole(url):
        smooth = daskflow.gaussian_filter(daskflow.open(source), sigma=1)
        return daskflow.save(smooth, url, chunk=(16, 16, 16))

    clean = tmp_path / "clean"
    assert whole(clean).run(progress=False).ok
    faults = FaultPlan(seed)
    with in_front_of(moto, faults) as endpoint, Threads(2) as threads:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        report = whole(f"{s3}/out-{seed}").run(threads, progress=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    assert report.ok
    assert set(faults.made) == set(FAULTS)
    assert results(f"{s3}/out-{seed}") == results(f"file://{clean}")
