"""Skeletons of whole volumes, as a job: what is written, what is left out, and that nothing else changes it."""

import csv
import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from object_jobs import assert_same, files, layer_of, run

import daskflow
from daskflow.clusters import Threads
from daskflow.clusters.workers import Workers
from daskflow.errors import ChangedJobError, JobError, MetadataMismatchError, ParameterError
from daskflow.geometry import BoundingBox
from daskflow.jobs import Job
from daskflow.jobs.directory import JobDirectory
from daskflow.operators.objects.skeletonize import skeletonize
from daskflow.operators.objects.skeletonize.pieces import components
from daskflow.stores import kvstore
from daskflow.stores.objects.layer_objects import Skeletons, read_skeleton
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.volume import Volume

pytest.importorskip("kimimaro")

ALL = {"dust": 0, "min_cable_length": 0}
LARGEST = 2**64 - 1


def tubes():
    """Two tubes through most of 20 x 24 x 70 voxels, and a label of one voxel."""
    array = np.zeros((20, 24, 70), np.uint64)
    array[3:10, 3:10, 4:66] = 5
    array[12:18, 2:22, 30:37] = LARGEST
    array[19, 23, 69] = 8
    return array


@pytest.fixture
def layer(tmp_path):
    return layer_of(tmp_path / "layer", tubes())


@pytest.mark.parametrize("form", ["files", "sharded"])
def test_skeletons_lie_in_the_layer_and_cloudvolume_reads_every_one(layer, form):
    cloudvolume = pytest.importorskip("cloudvolume")
    report = run(skeletonize(daskflow.open(layer), format=form, shape=(16, 16, 16), **ALL))
    assert report.results["skeletons"]["skeletons"] == 3
    assert json.loads((layer / "info").read_text())["skeletons"] == "skeletons_mip_0"
    theirs = cloudvolume.CloudVolume(f"file://{layer}", progress=False)
    for label in (5, 8, LARGEST):
        read = theirs.skeleton.get(label)
        read = read[0] if isinstance(read, list) else read
        own = read_skeleton(layer, label)
        np.testing.assert_array_equal(read.vertices, own.vertices)
        np.testing.assert_array_equal(read.edges, own.edges)
        np.testing.assert_array_equal(read.radius, own.attributes["radius"])
    whole = cloudvolume.Bbox((0, 0, 0), (700, 240, 200))
    assert set(theirs.skeleton.spatial_index.query(whole)) == {5, 8, LARGEST}
    assert set(theirs.skeleton.spatial_index.query(cloudvolume.Bbox((0, 0, 0), (150, 150, 150)))) == {5}


def test_one_skeleton_lies_in_the_middle_of_each_tube(layer):
    run(skeletonize(daskflow.open(layer), shape=(16, 16, 16), **ALL))
    skeleton = read_skeleton(layer, 5)
    assert components(len(skeleton.vertices), skeleton.edges).max() == 0
    middle = skeleton.vertices[(skeleton.vertices[:, 0] > 150) & (skeleton.vertices[:, 0] < 550)]
    assert np.abs(middle[:, 1:] - 65).max() <= 20
    assert skeleton.attributes["radius"].max() <= 45
    assert skeleton.cable_length > 550


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(8, 30), st.integers(8, 30), st.integers(12, 80)),
    block=st.sampled_from([(16, 16, 16), (32, 32, 32)]),
    threads=st.integers(1, 3),
)
def test_any_work_on_the_same_blocks_gives_the_same_bytes(tmp_path_factory, shape, block, threads):
    volume = Volume.from_array(tubes(), voxel_size=(10, 10, 10), layer_type="segmentation")
    found = []
    for work, pool in ((volume, 1), (volume.with_block(block), threads)):
        folder = tmp_path_factory.mktemp("skeletons") / "out"
        with Threads(pool) as workers:
            assert skeletonize(work, output=str(folder), shape=shape, **ALL).run(workers, progress=False).ok
        found.append(files(folder))
    assert_same(*found)
    assert {"5", "8", str(LARGEST)} <= found[0].keys()
    for label in (5, LARGEST):
        skeleton = Skeletons(str(folder.parent), directory=folder.name).read(label)
        assert components(len(skeleton.vertices), skeleton.edges).max() == 0


@pytest.mark.parametrize("form", ["files", "sharded"])
@pytest.mark.parametrize("stage", ["trace-labels", "gather-pieces-1", "write-skeletons", "index-skeletons"])
def test_a_run_that_stopped_anywhere_goes_on_to_the_same_bytes(tmp_path, monkeypatch, stage, form):
    volume = Volume.from_array(tubes(), voxel_size=(10, 10, 10), layer_type="segmentation")
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    run(skeletonize(volume, output=str(whole), shape=(10, 12, 35), format=form, **ALL))
    job = skeletonize(volume, output=str(halted), shape=(10, 12, 35), format=form, **ALL)
    task = type(next(one for one in job.stages if one.name == stage).task)
    write, calls = task.write, []

    def failing(self, box, outputs):
        result = write(self, box, outputs)  # written, but the job does not hear of it
        calls.append(box)
        if len(calls) == 1:
            raise RuntimeError("stop here")
        return result

    monkeypatch.setattr(task, "write", failing)
    with Threads(1) as threads:
        report = job.run(threads, progress=False, retries=0, fail_fast=True)
    assert not report.ok
    assert not (halted / "info").exists()
    monkeypatch.undo()
    run(job, retry_failed=True)
    assert_same(files(halted), files(whole))


def test_a_second_run_does_nothing(layer):
    job = skeletonize(daskflow.open(layer), **ALL)
    run(job)
    before = files(layer)
    assert run(skeletonize(daskflow.open(layer), **ALL)).already_done
    assert_same(files(layer), before)


def test_skeletons_that_were_deleted_are_made_again(layer):
    import shutil

    run(skeletonize(daskflow.open(layer), **ALL))
    before = files(layer / "skeletons_mip_0")
    shutil.rmtree(layer / "skeletons_mip_0")
    assert not run(skeletonize(daskflow.open(layer), **ALL)).already_done
    assert_same(files(layer / "skeletons_mip_0"), before)


def test_other_parameters_are_refused_and_so_are_skeletons_of_others(layer, tmp_path):
    run(skeletonize(daskflow.open(layer), **ALL))
    for does in (Job.check, run):
        with pytest.raises(ChangedJobError, match="scale"):
            does(skeletonize(daskflow.open(layer), scale=3, **ALL))
    kvstore.delete_tree(f"{layer}/skeletons_mip_0.daskflow")
    for does in (Job.check, run):
        with pytest.raises(MetadataMismatchError, match="not made"):
            does(skeletonize(daskflow.open(layer), scale=3, **ALL))
    run(skeletonize(daskflow.open(layer), scale=3, output=f"{layer}/others", **ALL))
    assert json.loads((layer / "info").read_text())["skeletons"] == "others"


def test_blocks_fit_the_workers_of_batch_systems_and_the_plan_says_so(tmp_path):
    volume = Volume.from_array(np.broadcast_to(np.uint64(0), (1000, 1000, 1000)), voxel_size=(10, 10, 10))
    plan = skeletonize(volume, output=str(tmp_path)).plan(Workers(4, 4, 1, 4 * 10**9))
    plan.check()
    assert any("blocks of 384 384 384 zyx, for which workers of 4 GB have memory" in note for note in plan.notes)
    chosen = skeletonize(volume, output=str(tmp_path), shape=(384, 384, 384)).plan()
    assert [stage.grid for stage in chosen.stages] == [stage.grid for stage in plan.stages]
    assert chosen.notes == ()
    whole = skeletonize(volume, output=str(tmp_path), fill_holes=True)
    assert any(len(stage.grid) == 1 and stage.grid.box == volume.box for stage in whole.stages)


def test_unknown_words_of_the_info_stay(layer):
    info = json.loads((layer / "info").read_text())
    (layer / "info").write_text(json.dumps({**info, "mesh": "meshes", "segment_properties": "names"}))
    run(skeletonize(daskflow.open(layer), **ALL))
    expected = {**info, "mesh": "meshes", "segment_properties": "names", "skeletons": "skeletons_mip_0"}
    assert json.loads((layer / "info").read_text()) == expected


def test_dust_is_counted_over_the_whole_volume_and_not_by_block(tmp_path):
    array = np.zeros((8, 8, 80), np.uint32)
    array[2:4, 2:4, 5:75] = 3  # 280 voxels, at most 40 in a block
    array[5:7, 5:7, 5:15] = 4  # 40 voxels, all in one block
    volume = Volume.from_array(array, voxel_size=(10, 10, 10))
    report = run(skeletonize(volume, output=str(tmp_path / "out"), shape=(8, 8, 10), dust=200, min_cable_length=0))
    assert report.results["skeletons"]["skeletons"] == 1
    assert (tmp_path / "out" / "3").exists()


def test_lengths_are_limited_after_pieces_are_joined(tmp_path):
    array = np.zeros((30, 30, 120), np.uint32)
    array[3:8, 3:8, 5:115] = 1  # about 1100 nm of cable, 100 in a block
    array[3:8, 15:20, 5:45] = 2  # about 400 nm
    array[20:25, 3:8, 5:115] = 3  # as 1, with a side branch of about 200 nm
    array[20:25, 8:29, 62:66] = 3
    volume = Volume.from_array(array, voxel_size=(10, 10, 10))

    def lengths(name, **limits):
        run(skeletonize(volume, output=str(tmp_path / name), shape=(30, 30, 12), dust=0, **limits))
        found = Skeletons(str(tmp_path), directory=name)
        return {label: found.read(label).cable_length for label in found.labels().tolist()}

    free = lengths("free", min_cable_length=0)
    assert set(free) == {1, 2, 3}
    assert set(lengths("short", min_cable_length=800)) == {1, 3}
    assert set(lengths("long", min_cable_length=0, max_cable_length=800)) == {2}
    ticked = lengths("ticked", min_cable_length=0, tick_length=250)
    assert ticked[3] < free[3] - 80
    assert ticked[1] == pytest.approx(free[1], rel=0.15)


def test_what_is_left_out_is_counted(layer):
    report = run(skeletonize(daskflow.open(layer), dust=0, min_cable_length=300, max_cable_length=400))
    assert report.counts["short_skeletons_left_out"] == 2
    assert report.counts["long_skeletons_left_out"] == 1
    assert report.results["skeletons"]["skeletons"] == 0
    assert Skeletons(str(layer)).labels().tolist() == []


@pytest.mark.parametrize("form", ["files", "sharded"])
def test_a_volume_without_labels_has_no_skeletons(tmp_path, form):
    layer = layer_of(tmp_path / "layer", np.zeros((20, 20, 40), np.uint32))
    report = run(skeletonize(daskflow.open(layer), shape=(10, 10, 10), format=form))
    assert report.results["skeletons"] == {"skeletons": 0, "vertices": 0, "cable_length_nm": 0.0}
    assert Skeletons(str(layer)).labels().tolist() == []


def test_a_label_that_fills_the_volume_has_one_component(tmp_path):
    layer = layer_of(tmp_path / "layer", np.full((24, 24, 40), 6, np.uint32))
    run(skeletonize(daskflow.open(layer), shape=(12, 12, 12), **ALL))
    skeleton = read_skeleton(layer, 6)
    assert components(len(skeleton.vertices), skeleton.edges).max() == 0


@pytest.mark.parametrize("offset", [(0, 0, 0), (-7, 40, -300)])
def test_vertices_are_in_the_middle_of_voxels_wherever_the_volume_lies(tmp_path, offset):
    array = np.zeros((3, 5, 30), np.uint32)
    array[1, 2, 3:27] = 9
    layer = layer_of(tmp_path / "layer", array, offset=offset, voxel_size=(40, 8, 5))
    run(skeletonize(daskflow.open(layer), shape=(3, 5, 10), **ALL))
    skeleton = read_skeleton(layer, 9)
    z, y, x = offset
    expected = [[5 * (x + i + 0.5), 8 * (y + 2.5), 40 * (z + 1.5)] for i in range(3, 27)]
    np.testing.assert_allclose(skeleton.vertices, expected)
    index = SpatialIndex.of(Skeletons(str(layer)).info, daskflow.open(layer).box)
    assert list(index.query(f"{layer}/skeletons_mip_0")) == [9]


def test_a_coarser_level_begins_where_the_finest_does(tmp_path):
    fine = np.zeros((2, 9, 41), np.uint32)
    fine[:, 2:6, 3:39] = 9
    layer = layer_of(tmp_path / "layer", fine, offset=(0, 3, 5), voxel_size=(10, 4, 4))
    coarse = np.zeros((2, 5, 21), np.uint32)
    coarse[:, 1:3, 2:19] = 9
    layer_of(layer, coarse, offset=(0, 1, 2), voxel_size=(10, 8, 8), mip=1)
    run(skeletonize(daskflow.open(layer, mip=1), **ALL))
    assert json.loads((layer / "info").read_text())["skeletons"] == "skeletons_mip_1"
    vertices = read_skeleton(layer, 9).vertices
    # the first coarse voxel begins at the first fine one, 20 nm and 12 nm; not at 2 * 8 and 1 * 8
    assert ((vertices[:, 0] - 20) % 8 == 4).all()
    assert ((vertices[:, 1] - 12) % 8 == 4).all()


def test_only_some_labels(layer):
    run(skeletonize(daskflow.open(layer), labels=[5, LARGEST, 77], exclude_labels=[LARGEST], **ALL))
    assert Skeletons(str(layer)).labels().tolist() == [5]


def test_a_part_of_a_layer_has_the_skeletons_of_that_part(layer):
    part = daskflow.open(layer)[0:20, 0:24, 0:28]
    run(skeletonize(part, **ALL))
    assert Skeletons(str(layer)).labels().tolist() == [5]
    assert read_skeleton(layer, 5).vertices[:, 0].max() < 280


def test_what_is_computed_is_written_where_output_says(tmp_path):
    mask = Volume.from_array((tubes() > 0).astype(np.uint8), voxel_size=(10, 10, 10))
    labels = daskflow.connected_components(mask)
    with pytest.raises(ParameterError, match="output="):
        skeletonize(labels)
    report = run(skeletonize(labels, output=str(tmp_path / "out"), table=str(tmp_path / "table.csv"), **ALL))
    assert report.results["skeletons"]["skeletons"] == 3
    with (tmp_path / "table.csv").open() as file:
        rows = {int(row["label"]): row for row in csv.DictReader(file)}
    assert set(rows) == {1, 2, 3}
    for label, row in rows.items():
        skeleton = Skeletons(str(tmp_path), directory="out").read(label)
        assert int(row["vertices"]) == len(skeleton.vertices)
        assert float(row["cable_length_nm"]) == pytest.approx(skeleton.cable_length, abs=0.01)


def test_cross_sections_are_an_attribute(layer):
    run(skeletonize(daskflow.open(layer), cross_section=5, format="sharded", **ALL))
    skeleton = read_skeleton(layer, 5)
    middle = (skeleton.vertices[:, 0] > 200) & (skeleton.vertices[:, 0] < 300)
    area = skeleton.attributes["cross_sectional_area"][middle]
    assert np.median(area) == pytest.approx(4900, rel=0.35)


@pytest.mark.parametrize("option", [{"cross_section": 5}, {"fill_holes": True}])
def test_what_cut_objects_would_spoil_takes_the_volume_as_one_block(layer, option):
    with pytest.raises(ParameterError, match=r"take the volume as one block, shape 20 24 70 \(about 806 kB"):
        skeletonize(daskflow.open(layer), shape=(20, 24, 35), **option, **ALL)


def test_shards_are_as_many_as_labels_need(tmp_path):
    array = np.zeros((12, 40, 64), np.uint32)
    labels = array[::3, ::4, ::16]
    labels[...] = np.arange(1, labels.size + 1).reshape(labels.shape)
    for x in range(1, 6):
        array[::3, ::4, x::16] = array[::3, ::4, ::16]
    volume = Volume.from_array(array, voxel_size=(10, 10, 10))
    run(skeletonize(volume, output=str(tmp_path / "out"), format="sharded", max_labels_per_shard=20, **ALL))
    assert len(list((tmp_path / "out").glob("*.shard"))) == 8
    found = Skeletons(str(tmp_path), directory="out")
    assert found.labels().tolist() == list(range(1, labels.size + 1))
    assert all(len(found.read(label).vertices) > 1 for label in found.labels().tolist())


def test_pieces_that_get_lost_fail_the_job(layer, monkeypatch):
    from daskflow.scratch.pieces import Pieces

    found = Pieces.labels_of
    monkeypatch.setattr(Pieces, "labels_of", lambda *where: list(found(*where))[1:])
    with pytest.raises(JobError, match="pieces of skeletons were traced"), Threads(1) as threads:
        skeletonize(daskflow.open(layer), **ALL).run(threads, progress=False)
    assert "skeletons" not in json.loads((layer / "info").read_text())


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (Volume.from_array(np.zeros((4, 4, 4), np.float32)), "float32"),
        (Volume.from_array(np.zeros((2, 4, 4, 4), np.uint8)), "channel"),
        (Volume.from_array(np.zeros((4, 4, 4), np.uint8), layer_type="image"), "image"),
    ],
)
def test_what_is_no_segmentation_is_refused(volume, message):
    with pytest.raises(ParameterError, match=message):
        skeletonize(volume, output="out")


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": -1},
        {"const": float("nan")},
        {"tick_length": -3},
        {"max_paths": 0},
        {"labels": [0]},
        {"exclude_labels": [2**64]},
        {"shape": (0, 4, 4)},
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r".+"):
        skeletonize(Volume.from_array(np.ones((4, 4, 4), np.uint8)), output="out", **wrong)


def test_labels_below_zero_fail_the_job(tmp_path):
    volume = Volume.from_array(np.full((4, 4, 4), -3, np.int32))
    with Threads(1) as threads, pytest.raises(JobError, match="-3"):
        skeletonize(volume, output=str(tmp_path / "out"), dust=0).run(threads, progress=False)


def test_the_job_asks_for_processes_where_it_takes_long():
    volume = Volume.from_array(np.ones((256, 256, 256), bool))
    job = skeletonize(volume, output="out")
    assert job.plan().seconds_saved > 5
    assert JobDirectory(job.directory).url.endswith("out.daskflow")
    assert BoundingBox((0, 0, 0), (1, 8, 1)) == job.stages[-6].grid.box


def test_two_skeletonizations_in_one_job_are_what_they_are_alone(layer, tmp_path):
    def jobs(folder):
        volume = daskflow.open(layer)
        every = {**ALL, "shape": (16, 16, 16), "format": "sharded"}
        one = skeletonize(volume, output=str(folder / "one"), labels=[5], **every)
        return one, skeletonize(volume, output=str(folder / "two"), exclude_labels=[5], **every)

    for job in jobs(tmp_path / "alone"):
        run(job)
    run(daskflow.merge(jobs(tmp_path / "merged")))
    assert_same(files(tmp_path / "merged/one"), files(tmp_path / "alone/one"))
    assert_same(files(tmp_path / "merged/two"), files(tmp_path / "alone/two"))


def test_a_second_run_in_one_process_indexes_its_own_skeletons(layer, tmp_path):
    how = {"dust": 0, "shape": (16, 16, 16), "output": str(tmp_path / "out")}
    run(skeletonize(daskflow.open(layer), min_cable_length=1e9, **how))
    for one in ("out", "out.daskflow"):
        shutil.rmtree(tmp_path / one)
    run(skeletonize(daskflow.open(layer), min_cable_length=0, **how))
    listed = [json.loads(data) for name, data in files(tmp_path / "out").items() if name.endswith(".spatial")]
    assert {label for one in listed for label in one} == {"5", "8", str(LARGEST)}


@pytest.mark.parametrize("form", ["files", "sharded"])
def test_labels_that_were_asked_for_and_are_not_there_are_named(form, layer, caplog):
    asked = {
        "labels": [5, 8, 7777, *range(9000, 9012)],
        "exclude_labels": [9011],
        "format": form,
    }
    report = run(skeletonize(daskflow.open(layer), **asked, **ALL))

    assert report.results["labels_without_skeletons"] == ["7777", *map(str, range(9000, 9009)), "and 2 more"]
    assert "12 of 14 labels that were asked for are not in the volume" in caplog.text
    report = run(skeletonize(daskflow.open(layer), labels=[5, 8], output=f"{layer}/there", **ALL))
    assert "labels_without_skeletons" not in report.results


def test_a_run_that_makes_no_skeleton_names_no_directory(layer):
    run(skeletonize(daskflow.open(layer), labels=[9999], **ALL))
    assert "skeletons" not in json.loads((layer / "info").read_text())


def test_what_differs_between_two_runs_is_named_by_label(tmp_path):
    volume = Volume.from_array(tubes(), voxel_size=(10, 10, 10), layer_type="segmentation")
    for name, scale in (("one", 4), ("other", 2)):
        run(skeletonize(volume, output=str(tmp_path / name), format="sharded", shape=(10, 12, 35), scale=scale, **ALL))
    one, other = (files(tmp_path / name) for name in ("one", "other"))
    assert_same(one, dict(one))
    with pytest.raises(AssertionError, match=rf"shard differs(.|\n)*label {LARGEST}: radius(.|\n)*stored bytes"):
        assert_same(one, other)
