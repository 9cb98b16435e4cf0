"""Saving volumes as jobs: what is written, resumed, fused, refused."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskflow
from daskflow.clusters import Threads
from daskflow.errors import AlignmentError, ChangedJobError, MetadataMismatchError, ParameterError, PlanError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.jobs.sinks import ScratchSink
from daskflow.stores.opening import open_store
from daskflow.volume import Volume
from daskflow.volume.stage import Scope

IMAGE = np.random.default_rng(0).integers(0, 255, (20, 30, 40)).astype(np.uint8)


def volume(array=IMAGE, **spec):
    return daskflow.open(array, **{"voxel_size": (40, 4, 4), **spec})


def plus_one(array):
    return array + 1


def counted(array, log):
    with log.open("a") as file:
        file.write(f"{array.shape}\n")
    return array


def quietly(job, client=None, **options):
    report = job.run(client, progress=False, **options)
    assert report.ok, str(report)
    return report


@pytest.mark.parametrize("name", ["layer", "a.zarr", "a.h5", "a.npy", "a.tif"])
def test_every_format_gives_back_what_was_saved(tmp_path, name):
    quietly(volume(voxel_offset=(5, 6, 7)).with_block((8, 16, 16)).save(tmp_path / name))
    result = daskflow.open(tmp_path / name)
    np.testing.assert_array_equal(result.read(), IMAGE)
    if name not in ("a.npy", "a.tif"):
        assert result.box.start == (5, 6, 7)
    if name != "a.npy":
        assert result.voxel_size == (40, 4, 4)


@settings(max_examples=10)
@given(
    block=st.tuples(*[st.integers(1, 24)] * 3),
    chunk=st.tuples(*[st.integers(4, 12)] * 3),
    sharded=st.booleans(),
    data=st.data(),
)
def test_stored_voxels_do_not_depend_on_blocks_and_chunks(tmp_path_factory, block, chunk, sharded, data):
    home = tmp_path_factory.mktemp("grid")
    shard = tuple(c * data.draw(st.integers(1, 3)) for c in chunk) if sharded else None
    source = (
        volume(voxel_offset=(-7, 3, 0))
        .with_block(block)
        .map_overlap(plus_one, depth=1, boundary="reflect", dtype=np.uint8)
    )
    quietly(source.save(home / "a.zarr", chunk=chunk, shard=shard))
    np.testing.assert_array_equal(daskflow.open(home / "a.zarr").read(), IMAGE + 1)


def test_sinks_over_the_same_box_share_every_block(tmp_path):
    log = tmp_path / "log"
    source = volume().map_blocks(counted, dtype=np.uint8, log=log)
    jobs = [
        source.save(tmp_path / "a", chunk=(10, 15, 20)),
        source.map_blocks(plus_one).save(tmp_path / "b", chunk=(5, 30, 20)),
        source.save(tmp_path / "c.h5"),
    ]
    report = quietly(daskflow.merge(jobs))
    assert len(log.read_text().splitlines()) == report.stages[0].blocks
    for name, expected in (("a", IMAGE), ("b", IMAGE + 1), ("c.h5", IMAGE)):
        np.testing.assert_array_equal(daskflow.open(tmp_path / name).read(), expected)


def test_waiting_volumes_run_their_stages_first(tmp_path):
    labels = daskflow.connected_components(volume(), threshold=128)
    report = quietly(labels.with_block((8, 16, 16)).save(tmp_path / "labels"))
    assert report.stages[-1].name == "save-labels"
    np.testing.assert_array_equal(daskflow.open(tmp_path / "labels").read(), labels.read())


def test_second_run_says_that_all_is_done_and_a_vanished_output_is_made_again(tmp_path):
    job = volume().save(tmp_path / "layer")
    quietly(job)
    assert quietly(volume().save(tmp_path / "layer")).already_done
    shutil.rmtree(tmp_path / "layer")
    assert not quietly(job).already_done
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read(), IMAGE)
    file = volume().save(tmp_path / "a.h5")
    quietly(file)
    (tmp_path / "a.h5").unlink()
    quietly(file)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "a.h5").read(), IMAGE)


def test_another_operation_into_the_same_output_is_refused(tmp_path):
    quietly(daskflow.threshold(volume(), threshold=10).save(tmp_path / "layer"))
    with pytest.raises(ChangedJobError, match="threshold"):
        daskflow.threshold(volume(), threshold=20).save(tmp_path / "layer").run(progress=False)


def test_existing_layer_gives_its_chunks_and_one_that_differs_is_refused(tmp_path):
    quietly(volume().save(tmp_path / "layer", chunk=(10, 10, 10)))
    shutil.rmtree(tmp_path / "layer.daskflow")
    quietly(volume().map_blocks(plus_one).save(tmp_path / "layer", overwrite=True))
    assert daskflow.open(tmp_path / "layer").spec.chunk == (10, 10, 10)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read(), IMAGE + 1)
    shutil.rmtree(tmp_path / "layer.daskflow")
    with pytest.raises(MetadataMismatchError, match="resolution"):
        volume(voxel_size=(30, 4, 4)).save(tmp_path / "layer").run(progress=False)


def test_block_that_shares_a_chunk_is_refused_with_the_nearest_grid(tmp_path):
    with pytest.raises(AlignmentError, match=r"nearest is \(16, 16, 24\)"):
        volume().save(tmp_path / "layer", chunk=(8, 8, 8), block=(12, 16, 20))
    with pytest.raises(AlignmentError, match="nearest is"):
        volume().save(tmp_path / "a.zarr", chunk=(4, 4, 4), shard=(8, 8, 8), block=(4, 8, 8))


def test_what_a_store_cannot_hold_is_refused_before_anything_runs(tmp_path):
    halves = volume(IMAGE.astype(np.float16))
    with pytest.raises(ParameterError, match="float16"):
        halves.save(tmp_path / "layer").run(progress=False)
    with pytest.raises(ParameterError, match="no mips"):
        volume().save(tmp_path / "a.h5", mip=1)
    assert not (tmp_path / "layer").exists()


def test_block_larger_than_the_memory_is_refused(tmp_path):
    job = volume().save(tmp_path / "layer")
    with Threads(1, memory=1000) as pool, pytest.raises(PlanError, match="memory"):
        job.run(pool, progress=False)


def test_provenance_says_how_the_data_were_made(tmp_path):
    quietly(daskflow.threshold(volume(), threshold=42).save(tmp_path / "layer"))
    quietly(volume().save(tmp_path / "a.h5"))
    record = json.loads((tmp_path / "layer" / "provenance").read_text())
    assert {"description", "owners", "processing", "sources"} <= set(record)
    assert '"threshold": 42' in json.dumps(record["processing"])
    assert json.loads((tmp_path / "a.h5.provenance.json").read_text())["processing"]


def test_verify_finds_a_missing_chunk_and_the_next_run_mends_it(tmp_path):
    job = volume().save(tmp_path / "layer", chunk=(10, 15, 20), block=(10, 15, 20))
    quietly(job)
    (tmp_path / "layer" / "4_4_40" / "20-40_0-15_0-10").unlink()
    assert "20-40_0-15_0-10" in str(job.verify(progress=False))
    report = quietly(job)
    assert report.stages[0].skipped == 7
    assert job.verify(progress=False).ok


def test_missing_chunks_read_as_zeros_are_counted_in_the_report(tmp_path):
    quietly(volume().save(tmp_path / "layer", chunk=(10, 15, 20)))
    (tmp_path / "layer" / "4_4_40" / "0-20_0-15_0-10").unlink()
    strict = daskflow.open(tmp_path / "layer").save(tmp_path / "strict.npy").run(progress=False, retries=0)
    assert not strict.ok
    filled = daskflow.open(tmp_path / "layer", fill_missing=True).save(tmp_path / "filled.npy")
    assert quietly(filled).counts["missing_chunks"] == 1


def test_array_sources_reach_worker_processes(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (64, 128, 160)).astype(np.uint8)
    with daskflow.connect("local", workers=1) as client:
        quietly(volume(array).with_block((32, 64, 64)).map_blocks(plus_one).save(tmp_path / "layer"), client)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read(), array + 1)


def test_dask_arrays_are_sources_of_jobs(tmp_path):
    import dask.array as da

    lazy = Volume.from_dask(da.from_array(IMAGE, chunks=(7, 9, 11)) + 1)
    quietly(lazy.save(tmp_path / "layer"))
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read(), IMAGE + 1)


def test_merging_nothing_is_refused():
    with pytest.raises(ParameterError, match="no jobs"):
        daskflow.merge([])


def test_writing_where_the_volume_is_read_from_is_refused(tmp_path):
    quietly(volume().save(tmp_path / "layer"))
    source = daskflow.open(tmp_path / "layer")
    with pytest.raises(ParameterError, match="computed from"):
        daskflow.gaussian_filter(source).save(tmp_path / "layer")
    with pytest.raises(ParameterError, match="computed from"):
        daskflow.connected_components(source).save(tmp_path / "layer")


def test_each_mip_of_a_layer_has_a_job_of_its_own(tmp_path):
    def every_second(array):
        return array[::2, ::2, ::2]

    source = volume()
    quietly(source.save(tmp_path / "layer", chunk=(10, 10, 10)))
    coarse = source.map_blocks(every_second, factor=2)
    quietly(coarse.with_block((10, 10, 10)).save(tmp_path / "layer", mip=1, chunk=(10, 10, 10)))
    assert len(daskflow.open(tmp_path / "layer").mips) == 2
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer", mip=1).read(), IMAGE[::2, ::2, ::2])
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read(), IMAGE)


def test_block_that_was_asked_for_is_kept_when_sinks_share_it(tmp_path):
    asked = volume().save(tmp_path / "a", chunk=(4, 5, 5), block=(8, 10, 20))
    other = volume().save(tmp_path / "b.npy")
    merged = daskflow.merge([asked, other])
    assert merged.stages[0].grid.block == (8, 10, 20)
    quietly(merged)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), IMAGE)
    clash = volume().save(tmp_path / "c", chunk=(4, 5, 5), block=(4, 10, 20))
    with pytest.raises(ParameterError, match="different blocks"):
        daskflow.merge([asked, clash])


@pytest.mark.parametrize(
    ("name", "other"), [("layer", {}), ("a.zarr", {}), ("a.npy", {}), ("layer", {"mip": 1, "chunk": (4, 5, 5)})]
)
def test_two_volumes_for_one_place_are_refused(tmp_path, name, other):
    one = volume().save(tmp_path / name, levels=int(bool(other)), **{"chunk": (4, 5, 5)} if other else {})
    second = volume(IMAGE[:, ::2, ::2] if other else 255 - IMAGE, voxel_size=(40, 8, 8)).save(tmp_path / name, **other)
    with pytest.raises(ParameterError, match="two results would be written"):
        daskflow.merge([one, second])
    assert len(daskflow.merge([one, one]).stages) == len(one.stages)


@pytest.mark.parametrize(("name", "chunks"), [("c", "4_4_40"), ("c.zarr", "0/c")])
def test_a_job_for_two_layers_notices_that_the_chunks_of_one_are_gone(tmp_path, name, chunks):
    job = daskflow.merge([volume().save(tmp_path / "b"), volume().save(tmp_path / name)])
    quietly(job)
    assert quietly(job).already_done
    gone = tmp_path / name / chunks
    shutil.rmtree(gone if gone.exists() else tmp_path / name / "c")
    assert not quietly(job).already_done
    np.testing.assert_array_equal(daskflow.open(tmp_path / name).read(), IMAGE)


def test_file_sinks_do_not_make_shared_blocks_larger(tmp_path):
    jobs = [
        volume().with_block((7, 11, 13)).save(tmp_path / "a.npy"),
        volume().with_block((16, 16, 16)).save(tmp_path / "b", chunk=(8, 8, 8)),
    ]
    assert daskflow.merge(jobs).stages[0].grid.block == (16, 16, 16)


def test_scratch_chunks_are_no_larger_than_the_volume(tmp_path):
    url = str(tmp_path / "blocks.zarr")
    spec = VolumeSpec(BoundingBox((0, 5, 0), (4, 10, 600)), np.dtype(np.uint8))
    ScratchSink(url, spec, (1792, 1792, 512), Scope("gathered", (url,))).check()
    assert open_store(url).spec.chunk == (4, 5, 512)


def test_a_file_of_somebody_else_is_not_replaced(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(MetadataMismatchError, match="was not written by this job"):
        volume().save(tmp_path / "a.npy").run(progress=False)
    assert np.load(tmp_path / "a.npy").shape == (3,)


def test_what_lies_in_memory_is_not_sent_to_worker_processes():
    job = volume().save("memory://sinks/layer")
    with daskflow.connect("local", workers=1) as client, pytest.raises(PlanError, match="run in threads"):
        job.run(client, progress=False)
    quietly(job)
    np.testing.assert_array_equal(daskflow.open("memory://sinks/layer").read(), IMAGE)


def test_writing_a_large_file_needs_the_memory_of_a_slab_only(tmp_path):
    from daskflow.geometry import BoundingBox, VolumeSpec

    spec = VolumeSpec(BoundingBox((0, 0, 0), (2000, 6000, 6000)), np.uint8)
    plan = Volume.from_function(np.zeros, spec).with_block((64, 512, 512)).save(tmp_path / "a.tif").plan()
    assert plan.stages[-1].block_memory < 10**9


@pytest.mark.parametrize(
    ("name", "dtype", "options"),
    [
        ("a.tif", bool, {}),
        ("a.npy", np.uint8, {"compression": "gzip"}),
        ("a.h5", np.uint8, {"compression": "br"}),
        ("a.tif", np.uint8, {"encoding": "jpeg"}),
    ],
)
def test_what_a_file_cannot_hold_is_refused_before_anything_runs(tmp_path, name, dtype, options):
    seen = []

    def watched(array):
        seen.append(array.shape)
        return array

    source = volume(IMAGE.astype(dtype)).map_blocks(watched, dtype=dtype)
    with pytest.raises(ParameterError):
        source.save(tmp_path / name, **options).run(progress=False)
    assert not seen
    assert not (tmp_path / name).exists()


def test_a_dataset_is_added_to_a_file_and_the_others_stay(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["main"] = np.zeros(3)
    quietly(volume().save(f"{tmp_path / 'a.h5'}:volumes/raw"))
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["volumes/raw"][:], IMAGE)
        assert file["main"].shape == (3,)
    assert quietly(volume().save(f"{tmp_path / 'a.h5'}:volumes/raw")).already_done
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["a.h5.daskflow"]


@pytest.mark.parametrize("layout", [{"chunk": (8, 8, 8)}, {"chunk": (4, 4, 4), "shard": (8, 8, 8)}])
@pytest.mark.parametrize("place", ["0/0/0", "2/3/4"])
def test_damaged_chunks_are_found_and_made_anew_also_at_the_edge(tmp_path, layout, place):
    job = volume().save(tmp_path / "a.zarr", **layout)
    quietly(job)
    (chunk,) = (tmp_path / "a.zarr").rglob(f"c/{place}")
    chunk.write_bytes(chunk.read_bytes()[:-7])
    assert not job.verify(progress=False).ok
    assert not job.verify(progress=False).ok
    quietly(job)
    assert job.verify(progress=False).ok
    np.testing.assert_array_equal(daskflow.open(tmp_path / "a.zarr").read(), IMAGE)


def test_jobs_and_reports_show_themselves_in_a_line_and_in_notebooks(tmp_path):
    job = volume().save(tmp_path / "layer")
    assert repr(job).startswith("<Job save-layer")
    assert "save-layer" in job._repr_html_()
    assert repr(quietly(job)).startswith("<Report save-layer: finished")
