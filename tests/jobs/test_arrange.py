"""What several steps of a job would evaluate is evaluated once, and each stage comes after what it needs."""

import csv
import shutil
from collections import Counter

import numpy as np
import pytest

import daskflow
from daskflow.clusters import Threads
from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.jobs import merge
from daskflow.volume import Volume

SHAPE = (12, 16, 20)


def cells():
    """Return affinities of blobs."""
    z, y, x = np.indices(SHAPE)
    return (np.sin(z / 2) * np.sin(y / 2.5) * np.sin(x / 3)).astype(np.float32)


class Network:
    """Answers with what it sees, and counts how often it is asked for a voxel."""

    def __init__(self):
        self.passes = np.zeros(SHAPE, int)

    def __call__(self, array, *, box, read_box):
        self.passes[box.slices(BoundingBox((0, 0, 0), SHAPE))] += 1
        return array[box.slices(read_box)] * 2

    def __getstate__(self):
        return None  # so that it is the same to a job whatever it has counted

    def over(self, volume, *, dear=True):
        return volume.map_boxes(self, reads=grown, spec=volume.spec, dear=dear)


def positive(array):
    return (array > 0).astype(np.uint32)


def grown(box):
    return box.grow(1)


def image():
    return Volume.from_array(cells(), voxel_size=(8, 8, 8), layer_type="image").with_block((4, 8, 8))


def run(*jobs):
    job = merge(jobs)
    with Threads(2) as threads:
        report = job.run(threads, progress=False)
    assert report.ok, report
    return job, report


def steps(answer, folder, *, block=None):
    """Return the jobs of a line: save the answer, label it, save the labels and count their voxels."""
    labels = daskflow.connected_components(answer, threshold=0.4)
    return (
        answer.save(folder / "answer", chunk=(4, 4, 4), block=block),
        labels.save(folder / "labels", chunk=(4, 8, 4)),
        daskflow.voxel_counts(labels, output=str(folder / "counts.csv")),
    )


@pytest.mark.parametrize("block", [None, (12, 16, 20), (8, 4, 12)])
def test_a_network_runs_once_whoever_takes_its_answer_and_in_whatever_blocks(tmp_path, block):
    network = Network()
    job, _ = run(*steps(network.over(image()), tmp_path, block=block))
    assert network.passes.min() == network.passes.max() == 1
    kept = any(stage.name == "keep-in-scratch" for stage in job.stages)
    assert kept == (block == (8, 4, 12))
    assert ("kept in scratch data for save-answer, label-components" in str(job.plan())) == kept

    apart = tmp_path / "apart"
    apart.mkdir()
    for one in steps(Network().over(image()), apart, block=block):
        run(one)
    for name in ("answer", "labels"):
        np.testing.assert_array_equal(daskflow.open(tmp_path / name).read(), daskflow.open(apart / name).read())
    assert (tmp_path / "counts.csv").read_text() == (apart / "counts.csv").read_text()


def test_consumers_of_the_same_voxels_take_them_in_one_stage(tmp_path):
    job = merge(steps(Network().over(image()), tmp_path))
    names = [stage.name for stage in job.stages]
    assert names[0] == "save-answer-and-label-components"
    assert "save-labels-and-count-voxels" in names
    assert names.index("number-components") < names.index("save-labels-and-count-voxels")
    for stage in job.stages:
        assert all(names.index(one.name) < names.index(stage.name) for one in stage.after)


def test_what_is_cheap_is_not_kept(tmp_path):
    job = merge(steps(Network().over(image(), dear=False), tmp_path, block=(8, 4, 12)))
    assert not any(stage.name == "keep-in-scratch" for stage in job.stages)


def test_parts_that_do_not_meet_are_not_kept(tmp_path):
    network = Network()
    answer = network.over(image())
    run(
        answer[:4].save(tmp_path / "low", chunk=(4, 4, 4), block=(4, 4, 4)),
        answer[8:].save(tmp_path / "high", chunk=(4, 4, 4), block=(4, 8, 4)),
    )
    assert Counter(network.passes.ravel().tolist()) == {0: 4 * 16 * 20, 1: 8 * 16 * 20}


def test_a_part_and_the_whole_share_what_is_kept(tmp_path):
    network = Network()
    answer = network.over(image())
    job, _ = run(answer.save(tmp_path / "whole", chunk=(4, 4, 4)), answer[2:7].save(tmp_path / "part", chunk=(1, 4, 4)))
    assert network.passes.max() == 1
    assert job.stages[0].name == "keep-in-scratch"
    np.testing.assert_array_equal(daskflow.open(tmp_path / "part").read(), 2 * cells()[2:7])


def test_networks_one_behind_the_other_both_run_once(tmp_path):
    first, second = Network(), Network()
    answer = first.over(image())
    both = second.over(answer)
    run(
        answer.save(tmp_path / "first", chunk=(4, 4, 4)),
        both.save(tmp_path / "both", chunk=(4, 4, 4), block=(8, 4, 12)),
        daskflow.connected_components(both, threshold=1).save(tmp_path / "labels", chunk=(4, 4, 4)),
    )
    assert first.passes.max() == second.passes.max() == 1
    np.testing.assert_array_equal(daskflow.open(tmp_path / "both").read(), 4 * cells())


def test_one_job_that_needs_a_volume_twice_computes_it_once(tmp_path):
    pytest.importorskip("zmesh")
    network = Network()
    labels = network.over(image()).map_blocks(positive, dtype=np.uint32, layer_type="segmentation")
    job = daskflow.mesh(labels, output=str(tmp_path / "mesh"), shape=(12, 16, 20), dust=3)
    with Threads(1) as threads:
        assert job.run(threads, progress=False).ok
    assert network.passes.max() == 1


def test_blocks_that_are_asked_for_otherwise_are_refused(tmp_path):
    volume = image()
    jobs = [volume.save(tmp_path / str(n), chunk=(4, 4, 4), block=(4, 4, 4 * n)) for n in (1, 2)]
    with pytest.raises(ParameterError, match="ask for different blocks"):
        merge(jobs)


def test_an_interrupted_line_goes_on_without_running_the_network_again(tmp_path, monkeypatch):
    from daskflow.operators.segmentation.connected_components.stages import MatchSeams

    def fail(self, box, outputs):
        raise OSError("no luck")

    network = Network()
    job = merge(steps(network.over(image()), tmp_path, block=(8, 4, 12)))
    with Threads(1) as threads:
        with monkeypatch.context() as patched:
            patched.setattr(MatchSeams, "write", fail)
            assert not job.run(threads, progress=False, retries=0).ok
        assert job.run(threads, progress=False, retry_failed=True).ok
    assert network.passes.max() == 1
    with (tmp_path / "counts.csv").open() as file:
        assert sum(int(row["voxels"]) for row in csv.DictReader(file)) == BoundingBox((0, 0, 0), SHAPE).size


def test_what_a_line_writes_is_read_after_it_was_written(tmp_path):
    old, new = image(), image().map_blocks(np.negative)
    daskflow.save(old, tmp_path / "layer", chunk=(4, 8, 8)).run(progress=False)
    shutil.rmtree(tmp_path / "layer.daskflow")
    layer = daskflow.open(tmp_path / "layer")
    run(daskflow.save(new, tmp_path / "layer", overwrite=True), daskflow.save(layer, tmp_path / "copy"))
    np.testing.assert_array_equal(daskflow.open(tmp_path / "copy").compute(), -cells())
    run(
        daskflow.save(daskflow.open(tmp_path / "layer"), tmp_path / "again"),
        daskflow.save(old, tmp_path / "layer", overwrite=True),
    )
    np.testing.assert_array_equal(daskflow.open(tmp_path / "again").compute(), -cells())
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").compute(), cells())


def test_a_file_beside_a_part_that_cuts_chunks_of_a_layer_is_whole(tmp_path):
    part = daskflow.crop(image(), start=(1, 3, 3), stop=SHAPE)
    whole = (0, 0, 0, *SHAPE)
    layer = daskflow.save(part, tmp_path / "layer", bounds=whole, chunk=(2, 4, 4), block=(4, 8, 8), complete=True)
    run(layer, daskflow.save(part, tmp_path / "part.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "part.npy"), cells()[1:, 3:, 3:])


def test_blocks_are_not_joined_where_they_would_take_much_more_memory(tmp_path):
    labels = Volume.from_array(np.zeros((128, 1024, 1024), np.uint8), voxel_size=(8, 8, 8), layer_type="segmentation")
    mesh = daskflow.mesh(labels, output=tmp_path / "mesh")
    line = merge([mesh, daskflow.save(labels, tmp_path / "layer"), daskflow.voxel_counts(labels)])
    alone, joined = (max(stage.block_memory for stage in job.plan().stages) for job in (mesh, line))
    assert joined <= 1.25 * alone
