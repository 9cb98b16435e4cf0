import numpy as np
import pytest

from daskflow.errors import StoreNotFoundError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.jobs import verify
from daskflow.stores import Layout
from daskflow.stores.opening import create_store


@pytest.fixture
def layer(tmp_path):
    spec = VolumeSpec(BoundingBox((-8, 0, 0), (8, 16, 24)), np.uint8, voxel_size=(40, 4, 4), layer_type="image")
    url = f"precomputed://{tmp_path / 'layer'}"
    store = create_store(url, spec, layout=Layout(chunk=(8, 8, 8), encoding="raw"))
    store.write(spec.box, np.ones(spec.shape, np.uint8))
    return url, tmp_path / "layer"


def test_whole_layer_passes(layer, threads):
    report = verify(layer[0], client=threads, progress=False)
    assert report.ok
    assert report.stages[0].done == 12
    assert report.stages[0].voxels == 16 * 16 * 24


def test_missing_and_damaged_chunks_are_listed(layer, threads):
    url, folder = layer
    chunks = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "info")
    chunks[0].unlink()
    chunks[5].write_bytes(chunks[5].read_bytes()[:10])
    report = verify(url, client=threads, progress=False)
    assert not report.ok
    assert (report.stages[0].done, report.stages[0].failed) == (10, 2)
    assert {failure.exception for failure in report.failures} == {"MissingChunkError", "CorruptChunkError"}


def test_layer_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreNotFoundError):
        verify(str(tmp_path / "nothing"), progress=False)
