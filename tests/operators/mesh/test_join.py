"""Meshes that are written in a job with others."""

from pathlib import Path

import numpy as np
import pytest

import daskflow
from daskflow.clusters import Threads
from daskflow.operators.objects.mesh import mesh
from daskflow.volume import Volume

pytest.importorskip("zmesh")
pytest.importorskip("numba")
pytest.importorskip("DracoPy")


def files(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file() and path.name != "provenance"
    }


def run(job):
    with Threads(2) as threads:
        assert job.run(threads, progress=False).ok


@pytest.mark.parametrize("memory", [1_000_000_000, 250_000])
def test_two_meshings_in_one_job_are_what_they_are_alone(tmp_path, memory):
    z, y, x = np.ogrid[:40, :40, :40]
    ball = ((z - 20) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 < 15**2).astype(np.uint32)
    bar = np.zeros_like(ball)
    bar[8:30, 4:36, 10:24] = 1

    def jobs(folder):
        how = {"shape": (16, 24, 20), "min_chunk": (8, 8, 8), "memory": memory}
        for name, array in (("ball", ball), ("bar", bar)):
            volume = Volume.from_array(array, voxel_size=(10, 10, 10), layer_type="segmentation")
            yield mesh(volume, output=str(folder / name), **how)

    for job in jobs(tmp_path / "alone"):
        run(job)
    run(daskflow.merge(list(jobs(tmp_path / "merged"))))
    for name in ("ball", "bar"):
        assert files(tmp_path / "merged" / name) == files(tmp_path / "alone" / name)
