"""Meshes of whole volumes, as a job: what is written, what is left out, and that nothing else changes it."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from object_jobs import assert_same, files, layer_of, run

import daskflow
from daskflow.clusters import Threads
from daskflow.clusters.workers import Workers
from daskflow.errors import ChangedJobError, JobError, MetadataMismatchError, ParameterError, PlanError
from daskflow.geometry import BoundingBox
from daskflow.jobs import Job
from daskflow.operators.objects.mesh import mesh
from daskflow.stores.objects.layer_objects import Meshes
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.volume import Volume

pytest.importorskip("zmesh")
pytest.importorskip("numba")
pytest.importorskip("DracoPy")

FORMATS = ["sharded", "multires", "legacy"]
LARGEST = 2**64 - 1
SMALL = {"shape": (20, 24, 16), "min_chunk": (8, 8, 8)}


def solids():
    """A bar through most of 24 x 28 x 48 voxels, a block at its corner, and a label of one voxel."""
    array = np.zeros((24, 28, 48), np.uint64)
    array[8:16, 6:20, 2:46] = 5
    array[16:24, 20:28, 30:48] = LARGEST
    array[2, 3, 40] = 8
    return array


def sphere(radius=30):
    """A ball of 59 voxels across, not in the middle of its volume."""
    z, y, x = np.ogrid[:128, :72, :96]
    return (((z - 64) ** 2 + (y - 36) ** 2 + (x - 40) ** 2) < radius**2).astype(np.uint32) * 7


def is_closed(mesh):
    faces = mesh.faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    there, back = np.sort(edges[:, 0] << 32 | edges[:, 1]), np.sort(edges[:, 1] << 32 | edges[:, 0])
    return np.array_equal(there, back)


def volume_of(mesh):
    a, b, c = (mesh.vertices[mesh.faces[:, n]].astype(np.float64) for n in range(3))
    return np.einsum("ij,ij->", a, np.cross(b, c)) / 6


def euler(mesh):
    faces = mesh.faces
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return len(mesh.vertices) - len(np.unique(edges, axis=0)) + len(faces)


@pytest.fixture
def layer(tmp_path):
    return layer_of(tmp_path / "layer", solids())


@pytest.mark.parametrize("form", FORMATS)
def test_meshes_lie_in_the_layer_and_cloudvolume_reads_every_one(layer, form):
    cloudvolume = pytest.importorskip("cloudvolume")
    report = run(mesh(daskflow.open(layer), format=form, **SMALL))

    assert report.results["meshes"]["meshes"] == 3
    assert json.loads((layer / "info").read_text())["mesh"] == "mesh_mip_0_err_10"
    theirs = cloudvolume.CloudVolume(f"file://{layer}", progress=False)
    for label in (5, 8, LARGEST):
        read = theirs.mesh.get(label)
        read = read[label] if isinstance(read, dict) else read
        own = Meshes(str(layer)).read(label)
        assert is_closed(own)
        np.testing.assert_allclose(read.vertices.min(axis=0), own.vertices.min(axis=0), atol=0.02)
        np.testing.assert_allclose(read.vertices.max(axis=0), own.vertices.max(axis=0), atol=0.02)
        assert len(read.faces) == len(own.faces)
    whole = cloudvolume.Bbox((0, 0, 0), (480, 280, 240))
    assert set(theirs.mesh.spatial_index.query(whole)) == {5, 8, LARGEST}
    assert set(theirs.mesh.spatial_index.query(cloudvolume.Bbox((0, 0, 0), (150, 230, 190)))) == {5}


@pytest.mark.parametrize("form", FORMATS)
def test_a_sphere_across_blocks_is_one_closed_ball(tmp_path, form):
    layer = layer_of(tmp_path / "layer", sphere())

    run(mesh(daskflow.open(layer), shape=(64, 64, 64), min_chunk=(16, 16, 16), format=form, max_error=40))

    ball = Meshes(str(layer)).read(7)
    assert is_closed(ball)
    assert euler(ball) == 2
    if form == "legacy":  # as few as igneous has at this error; levels of detail are cut into cells, which adds some
        assert len(ball.faces) <= 3658
    np.testing.assert_allclose(ball.bounds, (110, 70, 350, 700, 660, 940), atol=1.0)
    assert volume_of(ball) == pytest.approx(4 / 3 * np.pi * 295**3, rel=0.05)


def test_multires_files_have_two_levels_of_eight_pieces_and_one(tmp_path):
    layer = layer_of(tmp_path / "layer", sphere())

    run(mesh(daskflow.open(layer), shape=(64, 64, 64), min_chunk=(16, 16, 16), format="multires"))

    meshes = Meshes(str(layer))
    assert meshes.info["@type"] == "neuroglancer_multilod_draco"
    assert meshes.info["transform"] == [10, 0, 0, 0, 0, 10, 0, 0, 0, 0, 10, 0]
    assert meshes.info["spatial_index"] == {"resolution": [10, 10, 10], "chunk_size": [640, 640, 640]}
    manifest = meshes.manifest(7) if hasattr(meshes, "manifest") else None
    assert manifest is None or [len(level.sizes) for level in manifest.levels] == [8, 1]
    assert {"7", "7.index", "info"} < files(layer / "mesh_mip_0_err_10").keys()


def test_legacy_files_have_the_names_that_igneous_gives_them(layer):
    run(mesh(daskflow.open(layer), format="legacy", **SMALL))

    directory = layer / "mesh_mip_0_err_10"
    names = files(directory).keys()
    assert {"8:0", "8:0:32-48_0-24_0-20", "0-160_0-240_0-200.spatial", "320-480_240-280_200-240.spatial"} < names
    listed = json.loads((directory / "5:0").read_text())["fragments"]
    assert listed == sorted(name for name in names if name.startswith("5:0:"))
    assert json.loads((directory / "info").read_text()) == {
        "@type": "neuroglancer_legacy_mesh",
        "mip": 0,
        "chunk_size": [16, 24, 20],
        "spatial_index": {"resolution": [10, 10, 10], "chunk_size": [160, 240, 200]},
    }


def test_every_cell_of_the_spatial_index_is_there_also_where_nothing_is(layer):
    run(mesh(daskflow.open(layer), **SMALL))

    index = SpatialIndex(BoundingBox((0, 0, 0), (24, 28, 48)), (20, 24, 16), (10.0, 10.0, 10.0))
    directory = str(layer / "mesh_mip_0_err_10")
    found = [set(index.read(directory, cell)) for cell in index.cells()]
    assert len(found) == 2 * 2 * 3
    assert set() in found
    assert index.query(directory)[8].tolist() == [400, 30, 20, 410, 40, 30]


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.tuples(*[st.integers(7, 50)] * 3), form=st.sampled_from(FORMATS))
def test_without_simplification_any_blocks_give_the_same_surface(tmp_path_factory, shape, form):
    volume = Volume.from_array(solids(), voxel_size=(30, 4, 5), voxel_offset=(-5, 7, -300), layer_type="segmentation")
    found = []
    for blocks in ((24, 28, 48), shape):
        folder = tmp_path_factory.mktemp("meshes") / "out"
        run(mesh(volume, output=str(folder), shape=blocks, max_error=0, lods=0, format=form))
        meshes = Meshes(str(folder.parent), directory=folder.name)
        found.append({label: meshes.read(label) for label in (5, 8, LARGEST)})
    for label, whole in found[0].items():
        parts = found[1][label]
        assert is_closed(parts)
        assert np.array_equal(np.unique(whole.vertices, axis=0), np.unique(parts.vertices, axis=0))
        assert len(whole.faces) == len(parts.faces)
        assert volume_of(whole) == pytest.approx(volume_of(parts))


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*[st.integers(7, 50)] * 3),
    block=st.sampled_from([(16, 16, 16), (32, 32, 32)]),
    form=st.sampled_from(FORMATS),
    threads=st.integers(1, 3),
)
def test_any_work_on_the_same_blocks_gives_the_same_bytes(tmp_path_factory, shape, block, form, threads):
    volume = Volume.from_array(solids(), voxel_size=(10, 10, 10), layer_type="segmentation")
    found = []
    for work, pool in ((volume, 1), (volume.with_block(block), threads)):
        folder = tmp_path_factory.mktemp("meshes") / "out"
        job = mesh(work, output=str(folder), shape=shape, min_chunk=(8, 8, 8), format=form)
        run(job, threads=pool)
        found.append(files(folder))
    assert_same(*found)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("stage", ["extract-surfaces", "gather-meshes-1", "cut-large-meshes", "write-meshes"])
def test_a_run_that_stopped_anywhere_goes_on_to_the_same_bytes(tmp_path, monkeypatch, stage, form):
    if (stage, form) == ("cut-large-meshes", "legacy"):
        pytest.skip("legacy meshes are not cut")
    volume = Volume.from_array(solids(), voxel_size=(10, 10, 10), layer_type="segmentation")
    how = {**SMALL, "format": form, "memory": 250_000}
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    run(mesh(volume, output=str(whole), **how))
    job = mesh(volume, output=str(halted), **how)
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
    run(mesh(volume, output=str(halted), **how), retry_failed=True)
    assert_same(files(halted), files(whole))


def test_a_second_run_does_nothing(layer):
    run(mesh(daskflow.open(layer), **SMALL))
    before = files(layer)

    assert run(mesh(daskflow.open(layer), **SMALL)).already_done
    assert_same(files(layer), before)


def test_meshes_that_were_deleted_are_made_again(layer):
    run(mesh(daskflow.open(layer), **SMALL))
    before = files(layer / "mesh_mip_0_err_10")
    for path in (layer / "mesh_mip_0_err_10").iterdir():
        path.unlink()

    run(mesh(daskflow.open(layer), **SMALL))

    assert_same(files(layer / "mesh_mip_0_err_10"), before)


def test_other_parameters_are_refused_and_so_are_meshes_of_others(layer, tmp_path):
    run(mesh(daskflow.open(layer), **SMALL))
    for does in (Job.check, run):
        with pytest.raises(ChangedJobError, match="lods"):
            does(mesh(daskflow.open(layer), lods=1, **SMALL))
        with pytest.raises(ChangedJobError, match=r"grid.block: \[20, 24, 16\] -> \[20, 24, 32\]"):
            does(mesh(daskflow.open(layer), **{**SMALL, "shape": (20, 24, 32)}))

    other = tmp_path / "other"
    other.mkdir()
    (other / "info").write_text("{}")
    for does in (Job.check, run):
        with pytest.raises(MetadataMismatchError, match="has not made"):
            does(mesh(daskflow.open(layer), output=str(other), **SMALL))


def test_blocks_fit_the_workers_of_batch_systems_and_the_plan_says_so(tmp_path):
    volume = Volume.from_array(np.broadcast_to(np.uint64(0), (1000, 1000, 1000)), voxel_size=(10, 10, 10))
    plan = mesh(volume, output=str(tmp_path)).plan(Workers(4, 4, 1, 4 * 10**9))
    plan.check()
    assert any("blocks of 320 320 320 zyx, for which workers of 4 GB have memory" in note for note in plan.notes)
    chosen = mesh(volume, output=str(tmp_path), shape=(320, 320, 320)).plan()
    assert [stage.grid for stage in chosen.stages] == [stage.grid for stage in plan.stages]
    assert chosen.notes == ()
    whole = mesh(volume, output=str(tmp_path), fill_holes=True)
    assert any(len(stage.grid) == 1 and stage.grid.box == volume.box for stage in whole.stages)


def test_unknown_words_of_the_info_stay(layer):
    info = json.loads((layer / "info").read_text())
    (layer / "info").write_text(json.dumps({**info, "mesh": "old", "somebody": [1]}))

    run(mesh(daskflow.open(layer), **SMALL))

    assert json.loads((layer / "info").read_text()) == {**info, "mesh": "mesh_mip_0_err_10", "somebody": [1]}


def test_dust_is_counted_over_the_whole_volume_unless_asked_by_block(tmp_path):
    array = np.zeros((16, 16, 32), np.uint32)
    array[4:6, 4:6, 2:30] = 3  # 112 voxels, of which no block of 8 has more than 32
    array[12, 12, 2:10] = 4
    volume = Volume.from_array(array, layer_type="segmentation")
    found = {}
    for within in ("volume", "block"):
        folder = tmp_path / within
        run(mesh(volume, output=str(folder), shape=(16, 16, 8), dust=40, dust_within=within, format="multires"))
        found[within] = Meshes(str(tmp_path), directory=within).labels().tolist()

    assert found == {"volume": [3], "block": []}


def test_only_some_labels(layer):
    run(mesh(daskflow.open(layer), labels=[5, LARGEST, 77], exclude_labels=[5], **SMALL))

    assert Meshes(str(layer)).labels().tolist() == [LARGEST]


def test_a_cavity_is_filled_when_asked(tmp_path):
    array = np.ones((12, 12, 12), np.uint8)
    array[4:8, 4:8, 4:8] = 0
    volume = Volume.from_array(array, layer_type="segmentation")
    for fill in (False, True):
        run(mesh(volume, output=str(tmp_path / str(fill)), fill_holes=fill, max_error=0, format="legacy"))
    hollow, full = (volume_of(Meshes(str(tmp_path), directory=str(fill)).read(1)) for fill in (False, True))

    assert full - hollow == pytest.approx(64, rel=0.2)


def test_a_cavity_with_another_label_is_filled_and_that_label_meshed(tmp_path):
    array = np.full((14, 14, 14), 3, np.uint8)
    array[2:12, 2:12, 2:12] = 0
    array[4:9, 4:9, 4:9] = 9
    volume = Volume.from_array(array, layer_type="segmentation")
    run(mesh(volume, output=str(tmp_path / "out"), fill_holes=True, max_error=0, format="legacy"))
    cell, nucleus = (volume_of(Meshes(str(tmp_path), directory="out").read(label)) for label in (3, 9))

    assert cell == pytest.approx(14**3, rel=0.05)
    assert nucleus == pytest.approx(5**3, rel=0.2)


def test_filling_holes_takes_the_volume_as_one_block(tmp_path):
    volume = Volume.from_array(np.ones((12, 12, 12), np.uint8), layer_type="segmentation")
    with pytest.raises(ParameterError, match="shape 12 12 12"):
        mesh(volume, output=str(tmp_path / "out"), fill_holes=True, shape=(8, 8, 8))


def test_surfaces_are_closed_where_the_volume_ends_unless_asked(tmp_path):
    volume = Volume.from_array(np.ones((10, 10, 10), np.uint8), voxel_offset=(5, -5, 0), layer_type="segmentation")

    run(mesh(volume, output=str(tmp_path / "closed"), shape=(6, 6, 6), max_error=0, format="multires"))
    box = Meshes(str(tmp_path), directory="closed").read(1)
    assert is_closed(box)
    np.testing.assert_allclose(box.bounds, (0, -5, 5, 10, 5, 15), atol=1e-3)

    report = run(mesh(volume, output=str(tmp_path / "open"), open_edge=True, format="multires"))
    assert report.results["meshes"]["meshes"] == 0


@pytest.mark.parametrize("form", FORMATS)
def test_a_volume_without_labels_has_no_meshes(tmp_path, form):
    layer = layer_of(tmp_path / "layer", np.zeros((20, 20, 20), np.uint32))

    report = run(mesh(daskflow.open(layer, fill_missing=True), format=form, shape=(10, 20, 20)))

    assert report.results["meshes"]["meshes"] == 0
    assert Meshes(str(layer)).labels().tolist() == []
    assert len(list((layer / "mesh_mip_0_err_10").glob("*.spatial"))) == 2


def test_a_label_that_does_not_fit_in_memory_is_made_in_parts(tmp_path):
    layer = layer_of(tmp_path / "layer", sphere())
    how = {"shape": (16, 16, 16), "max_error": 4, "min_chunk": (16, 16, 16), "format": "multires"}

    report = run(mesh(daskflow.open(layer), memory=1_400_000, **how))

    assert report.counts["large_meshes"] == 1
    assert report.counts["mesh_parts"] > 4
    meshes = Meshes(str(layer))
    sizes = []
    for lod in range(3):
        ball = meshes.read(7, lod=lod)
        assert is_closed(ball)
        assert volume_of(ball) == pytest.approx(4 / 3 * np.pi * 295**3, rel=0.06)
        sizes.append(len(ball.faces))
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_part_of_a_layer_has_the_meshes_of_that_part(layer):
    run(mesh(daskflow.open(layer)[16:24, :, :], max_error=0, **SMALL))

    assert Meshes(str(layer)).labels().tolist() == [LARGEST]


def test_pieces_that_get_lost_fail_the_job(layer, monkeypatch):
    from daskflow.scratch.pieces import Pieces

    shards_of = Pieces.shards_of

    def lossy(self, bucket):
        for number, labels in shards_of(self, bucket):
            yield number, labels[1:]

    monkeypatch.setattr(Pieces, "shards_of", lossy)
    with pytest.raises(JobError, match="pieces of meshes"):
        run(mesh(daskflow.open(layer), **SMALL))
    assert "mesh" not in json.loads((layer / "info").read_text())


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros((2, 2, 2), np.float32), {}, "mesh takes labels"),
        (np.zeros((2, 3, 4, 5), np.uint8), {}, "one channel"),
        (np.zeros((2, 3, 4), np.uint8), {"output": None}, "give output="),
        (np.zeros((2, 3, 4), np.uint8), {"labels": [0]}, "0 is not a label"),
        (np.zeros((2, 3, 4), np.uint8), {"max_error": -1}, "max_error is -1"),
        (np.zeros((2, 3, 4), np.uint8), {"max_error": float("nan")}, "max_error is nan"),
        (np.zeros((2, 3, 4), np.uint8), {"lods": -1}, "lods is -1"),
        (np.zeros((2, 3, 4), np.uint8), {"min_chunk": 0}, "min_chunk"),
        (np.zeros((2, 3, 4), np.uint8), {"max_labels_per_shard": 0}, "max_labels_per_shard"),
    ],
)
def test_what_makes_no_sense_is_refused(array, options, message):
    with pytest.raises(ParameterError, match=message):
        mesh(Volume.from_array(array), **({"output": "meshes"} | options))


def test_an_image_is_refused():
    with pytest.raises(ParameterError, match="image"):
        mesh(Volume.from_array(np.zeros((2, 3, 4), np.uint8), layer_type="image"), output="meshes")


def test_the_job_asks_for_processes_where_it_takes_long(tmp_path):
    volume = Volume.from_function(np.zeros, Volume.from_array(np.zeros((1, 1, 1), np.uint8)).spec)

    job = mesh(volume, output=str(tmp_path / "out"))

    (extracting,) = (stage for stage in job.stages if stage.name == "extract-surfaces")
    assert extracting.task.estimate(volume.box).locked_seconds


@pytest.mark.parametrize("form", FORMATS)
def test_labels_that_were_asked_for_and_are_not_there_are_named(form, layer, caplog):
    asked = {"labels": [5, 8, 7777, *range(9000, 9012)], "exclude_labels": [9011], "format": form}
    report = run(mesh(daskflow.open(layer), **asked, **SMALL))

    assert report.results["labels_without_meshes"] == ["7777", *map(str, range(9000, 9009)), "and 2 more"]
    assert "12 of 14 labels that were asked for are not in the volume" in caplog.text
    report = run(mesh(daskflow.open(layer), labels=[5, 8], output=f"{layer}/there", **SMALL))
    assert "labels_without_meshes" not in report.results


def test_meshes_of_chosen_labels_do_not_take_the_place_of_all(layer):
    run(mesh(daskflow.open(layer), labels=[5], output=f"{layer}/first", **SMALL))
    assert json.loads((layer / "info").read_text())["mesh"] == "first"
    run(mesh(daskflow.open(layer), output=f"{layer}/all", **SMALL))
    for options in ({"labels": [8]}, {"exclude_labels": [5]}):
        run(mesh(daskflow.open(layer), output=f"{layer}/{next(iter(options))}", **options, **SMALL))
        assert json.loads((layer / "info").read_text())["mesh"] == "all"


def test_a_run_that_makes_no_mesh_names_no_directory(layer):
    run(mesh(daskflow.open(layer), labels=[9999], **SMALL))
    assert "mesh" not in json.loads((layer / "info").read_text())
    run(mesh(daskflow.open(layer), output=f"{layer}/all", **SMALL))
    run(mesh(daskflow.open(layer), labels=[9999], output=f"{layer}/none", **SMALL))
    assert json.loads((layer / "info").read_text())["mesh"] == "all"


def test_memory_that_workers_lack_is_refused_with_the_option_that_sets_it(layer):
    with Threads(2, memory=10**9) as pool:
        with pytest.raises(PlanError, match=r"needs 4 GB per worker .* say mesh --memory 500MB or less"):
            mesh(daskflow.open(layer), memory="2GB").plan(pool).check()
        mesh(daskflow.open(layer), memory="500MB").plan(pool).check()
