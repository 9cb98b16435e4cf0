"""How much memory it takes to mesh a label that is larger than `memory`."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("zmesh")
pytest.importorskip("numba")
pytest.importorskip("DracoPy")

MEMORY = 25_000_000
MEASURED = """
import json, sys
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from daskflow.clusters import Threads
from daskflow.operators.objects.mesh import mesh
from daskflow.volume import Volume


def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def run(array, name):
    volume = Volume.from_array(array, voxel_size=(10, 10, 10), layer_type="segmentation")
    job = mesh(volume, output=f"{sys.argv[1]}/{name}", shape=(32, 32, 32), memory=int(sys.argv[2]))
    with Threads(1) as threads:
        report = job.run(threads, progress=False)
    assert report.ok, report
    return report.counts


smooth = uniform_filter(np.random.default_rng(0).random((96, 96, 96), dtype=np.float32), 3)
noise = (smooth > np.median(smooth)).astype(np.uint32)
del smooth
run(noise[:32, :32, :32], "libraries-are-loaded")
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
counts = run(noise, "noise")
print(json.dumps({"parts": counts["mesh_parts"], "above": resident("VmHWM") - before}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux tells it")
def test_a_label_of_many_times_the_memory_takes_little_more_than_it(tmp_path):
    command = [sys.executable, "-c", MEASURED, str(tmp_path), str(MEMORY)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)

    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout.splitlines()[-1])
    assert measured["parts"] > 8
    assert measured["above"] < 2.5 * MEMORY
