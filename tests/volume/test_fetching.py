import numpy as np
import pytest

import daskflow
from daskflow import Volume, connect
from daskflow.errors import PlanError

VOXELS = np.arange(16 * 8 * 8, dtype=np.int32).reshape(16, 8, 8)


@pytest.fixture(scope="module")
def client():
    with connect("local", workers=1, threads=1) as client:
        yield client


def volume(client):
    return Volume.from_array(VOXELS, voxel_offset=(3, 0, 0), layer_type="image").with_block((4, 8, 4)).persist()


def test_what_workers_hold_can_be_read_here(client):
    held = volume(client)
    np.testing.assert_array_equal(held.read(), VOXELS)
    np.testing.assert_array_equal(np.asarray(held), VOXELS)
    np.testing.assert_array_equal(held.map_blocks(np.negative)[5:9, 2:7].read(), -VOXELS[2:6, 2:7])


def test_jobs_in_threads_read_what_workers_hold(client, tmp_path):
    job = volume(client).map_overlap(np.negative, depth=1).save(tmp_path / "a.zarr", chunk=(2, 2, 2), block=(2, 4, 4))
    with connect("threads", threads=2) as threads:
        assert job.run(threads, progress=False).ok
    np.testing.assert_array_equal(daskflow.open(tmp_path / "a.zarr").read(), -VOXELS)


def test_jobs_on_workers_are_refused_before_they_run(client, tmp_path):
    with pytest.raises(PlanError, match="run this in threads"):
        volume(client).save(tmp_path / "a.zarr").run(client, progress=False)
    # as a Dask graph, the pieces are inputs of the tasks
    np.testing.assert_array_equal(volume(client).map_blocks(np.negative).compute(), -VOXELS)
