import pickle
import shutil
import tempfile
from pathlib import Path

import cc3d
import dask
import numpy as np
import pytest

from daskflow.errors import MissingChunkError
from daskflow.operators.segmentation.connected_components import connected_components
from daskflow.volume import Volume, dask_array, expression


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def voxels():
    return np.random.default_rng(0).integers(0, 2, (8, 9, 10)).astype(np.uint8)


@pytest.fixture
def labelled(voxels):
    return connected_components(Volume.from_array(voxels).with_block(4))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_stages_run_once_for_all_blocks_and_leave_nothing(scheduler, voxels, labelled, temporary, monkeypatch):
    ran = []
    resolve = dask_array._resolve
    monkeypatch.setattr(dask_array, "_resolve", lambda waiting: ran.append(waiting) or resolve(waiting))

    assert np.array_equal(labelled.data.compute(scheduler=scheduler), cc3d.connected_components(voxels, connectivity=6))
    assert len(ran) == 1
    assert not list(temporary.iterdir())


def test_stages_that_run_again_leave_what_the_first_ones_left(labelled, temporary):
    first, second = (dask_array._resolve(labelled.expression) for _ in range(2))

    assert first.directory != second.directory
    del second
    assert [str(path) for path in temporary.iterdir()] == [first.directory]


def test_stages_that_fail_leave_nothing(labelled, temporary, monkeypatch):
    def fail(stages, scopes):
        (Path(scopes.url) / "half").write_bytes(b"done")
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(expression, "run_here", fail)
    with pytest.raises(RuntimeError, match="disk is full"):
        dask_array._resolve(labelled.expression)
    assert not list(temporary.iterdir())


def test_what_has_travelled_to_another_process_outlives_its_origin(voxels, labelled, temporary):
    data = pickle.dumps(dask_array._resolve(labelled.expression))

    block = dask_array._block(pickle.loads(data), labelled.grid, (0, 0, 0))
    assert np.array_equal(block, cc3d.connected_components(voxels, connectivity=6)[:4, :4, :4])


def test_blocks_whose_stages_ran_elsewhere_ask_for_save(labelled):
    ready = dask_array._resolve(labelled.expression)
    shutil.rmtree(ready.directory)

    with pytest.raises(MissingChunkError, match=r"another machine; save\(\)"):
        dask_array._block(ready, labelled.grid, (0, 0, 0))


def test_a_lost_chunk_of_a_directory_that_is_there_is_told_as_such(labelled, temporary):
    ready = dask_array._resolve(labelled.expression)
    for path in temporary.rglob("labels"):
        shutil.rmtree(path)

    with pytest.raises(MissingChunkError, match="labels/0/0"):
        dask_array._block(ready, labelled.grid, (0, 0, 0))


def test_a_volume_that_waits_meets_one_in_memory(voxels, labelled):
    added = labelled.map_blocks(np.add, Volume.from_array(voxels).with_block(4))

    expected = cc3d.connected_components(voxels, connectivity=6) + voxels
    assert np.array_equal(added.data.compute(scheduler="synchronous"), expected)


def test_workers_share_what_one_of_them_found(voxels, labelled, temporary):
    from distributed import Client, LocalCluster

    with (
        dask.config.set({"temporary-directory": str(temporary)}),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        found = client.compute(labelled.data).result(timeout=60)

    assert np.array_equal(found, cc3d.connected_components(voxels, connectivity=6))
    assert not list(temporary.rglob("daskflow-*"))
