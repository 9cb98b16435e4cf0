import csv

import numpy as np
import pytest

from daskflow.errors import StoreNotFoundError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.layers.verify import verify
from daskflow.operators.stores.downsample import downsample
from daskflow.operators.stores.open import open as open_volume
from daskflow.stores import Layout
from daskflow.stores.opening import create_store, open_store
from daskflow.volume import Volume


@pytest.fixture
def layer(tmp_path):
    spec = VolumeSpec(BoundingBox((-8, 0, 0), (8, 16, 24)), np.uint8, voxel_size=(40, 4, 4), layer_type="image")
    url = f"precomputed://{tmp_path / 'layer'}"
    store = create_store(url, spec, layout=Layout(chunk=(8, 8, 8), encoding="raw"))
    store.write(spec.box, np.ones(spec.shape, np.uint8))
    return url, tmp_path / "layer"


def saved(directory, threads, **options):
    """A layer of two levels that a job in Python has written."""
    voxels = np.random.default_rng(0).integers(1, 99, (16, 16, 24)).astype(np.uint8)
    volume = Volume.from_array(voxels, voxel_offset=(-8, 0, 4), voxel_size=(40, 4, 4)).with_block((8, 8, 8))
    job = volume.save(directory / "layer", chunk=(8, 8, 8), encoding="raw", **options)
    assert job.run(threads, progress=False).ok
    return job, voxels


def chunks_of(folder):
    kept = ("info", "provenance")
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in kept)


def test_whole_layer_passes(layer, threads):
    report = verify(layer[0], client=threads, progress=False)
    assert report.ok
    assert report.stages[0].done == 12
    assert report.stages[0].voxels == 16 * 16 * 24
    assert report.results == {}


def test_missing_and_damaged_chunks_are_listed(layer, threads, tmp_path):
    url, folder = layer
    chunks = chunks_of(folder)
    chunks[0].unlink()
    chunks[5].write_bytes(chunks[5].read_bytes()[:10])

    report = verify(url, client=threads, progress=False, output=str(tmp_path / "bad.csv"))

    assert not report.ok
    assert (report.stages[0].done, report.stages[0].failed) == (10, 2)
    assert {failure.exception for failure in report.failures} == {"MissingChunkError", "CorruptChunkError"}
    assert report.counts == {"missing_chunks": 1, "damaged_chunks": 1}
    rows = list(csv.reader((tmp_path / "bad.csv").read_text().splitlines()))
    assert rows[0] == ["mip", "box", "error", "message"]
    named = {"_".join(reversed(path.name.split("_"))): path for path in (chunks[0], chunks[5])}
    assert {row[1] for row in rows[1:]} == set(named)
    assert report.results["missing"] == [f"chunks {'_'.join(reversed(chunks[0].name.split('_')))}"]


def test_background_that_was_left_out_is_no_error_when_that_is_said(layer, threads):
    url, folder = layer
    chunks_of(folder)[0].unlink()
    assert verify(url, client=threads, progress=False, fill_missing=True).ok


@pytest.mark.parametrize("format_name", ["precomputed", "ome-zarr"])
def test_every_level_is_read_and_a_chunk_of_a_shard_is_named(tmp_path, threads, format_name):
    saved(tmp_path, threads, levels=1, shard=(8, 16, 16), format=format_name)
    folder = tmp_path / "layer"
    shards = [path for path in chunks_of(folder) if "json" not in path.name]
    report = verify(str(folder), client=threads, progress=False)
    assert report.ok
    assert [stage.name for stage in report.stages] == ["mip-0", "mip-1"]

    data = bytearray(shards[-1].read_bytes())
    shards[-1].write_bytes(bytes(data[: len(data) // 2]))
    report = verify(str(folder), client=threads, progress=False)

    assert not report.ok
    assert 0 < sum(stage.failed for stage in report.stages) < sum(stage.blocks for stage in report.stages)
    assert verify(str(folder), mip=0, client=threads, progress=False).stages[0].name == "chunks"


def test_only_the_blocks_of_bad_chunks_run_again(tmp_path, threads):
    job, voxels = saved(tmp_path, threads, levels=1, factor=(1, 2, 2))
    folder = tmp_path / "layer"
    chunks = chunks_of(folder)
    fine = next(path for path in chunks if path.parent.name == "4_4_40")
    fine.unlink()

    report = verify(str(folder), client=threads, progress=False)
    assert report.counts == {"missing_chunks": 1}
    assert sum(report.results["set_back"].values()) == 1
    again = job.run(threads, progress=False)
    assert again.ok
    assert again.stages[0].skipped == again.stages[0].blocks - 1
    assert verify(str(folder), client=threads, progress=False).ok

    coarse = [path for path in chunks if path.parent.name == "8_8_40"][-1]
    coarse.unlink()
    assert sum(verify(str(folder), client=threads, progress=False).results["set_back"].values()) >= 1
    assert job.run(threads, progress=False).ok
    assert verify(str(folder), client=threads, progress=False).ok
    assert np.array_equal(open_store(folder).read(BoundingBox((-8, 0, 4), (8, 16, 28))), voxels)


@pytest.mark.parametrize("region", [{}, {"start": (-8, 0, 4), "stop": (8, 16, 12)}])
def test_levels_that_a_later_job_has_made_run_again_where_chunks_are_bad(tmp_path, threads, region):
    saved(tmp_path, threads)
    folder = tmp_path / "layer"
    job = downsample(open_volume(folder), levels=2, method="mode", memory="3kB", **region)
    assert job.run(threads, progress=False).ok
    levels = {path: path.read_bytes() for path in chunks_of(folder) if path.parent.name != "4_4_40"}
    assert {path.parent.name for path in levels} == {"8_8_40", "16_16_40"}
    for path in levels:
        path.unlink()
        report = verify(str(folder), client=threads, progress=False, mip=1 + (path.parent.name == "16_16_40"))
        assert sum(report.results["set_back"].values()) >= 1
        assert job.run(threads, progress=False).ok
        assert path.read_bytes() == levels[path]


def test_layer_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreNotFoundError):
        verify(str(tmp_path / "nothing"), progress=False)
