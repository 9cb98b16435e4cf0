import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.clusters import Threads
from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry import BoundingBox
from daskflow.jobs.evaluate import Tabulate
from daskflow.operators.segmentation.connected_components import connected_components
from daskflow.operators.segmentation.evaluate_segmentation import evaluate_segmentation
from daskflow.operators.segmentation.evaluate_segmentation.scores import (
    by_segment,
    by_truth,
    overlaps,
    pair_sums,
    scores_of,
    size_sums,
)
from daskflow.stores.opening import open_store
from daskflow.volume import Volume


@pytest.fixture(autouse=True)
def _own_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def labels(shape, seed, names=6):
    return np.random.default_rng(seed).integers(0, names, shape).astype(np.uint64)


def scores(segmentation, truth):
    rows = overlaps(segmentation, truth)
    return scores_of(pair_sums(rows), size_sums(by_segment(rows)), size_sums(by_truth(rows)))


def run(job):
    with Threads(1) as threads:
        return job.run(threads, progress=False)


@settings(max_examples=25)
@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 9)] * 3), st.integers(0, 2**32 - 1))
def test_any_blocks_give_the_scores_of_the_whole(shape, block, seed):
    segmentation, truth = labels(shape, seed), labels(shape, seed + 1)
    offset = (-3, 4, 0)
    volumes = [Volume.from_array(a, voxel_offset=offset).with_block(block) for a in (segmentation, truth)]

    with tempfile.TemporaryDirectory() as directory:
        report = run(evaluate_segmentation(*volumes, output=f"{directory}/scores.json"))

    found, expected = report.results["scores"], scores(segmentation, truth)
    assert found.pop("edit_distance") == expected.pop("edit_distance")
    assert found == pytest.approx(expected, nan_ok=True)


def test_scores_are_reported_and_written_and_kept(tmp_path):
    volume = Volume.from_array(labels((6, 6, 6), 0)).with_block(3)
    job = evaluate_segmentation(volume, volume, output=str(tmp_path / "scores.json"))

    report = run(job)

    assert report.results["scores"]["rand_index"] == 1
    assert json.loads((tmp_path / "scores.json").read_text()) == report.results["scores"]
    again = run(job)
    assert again.already_done
    assert again.results == report.results


def test_without_output_every_run_counts_anew_and_leaves_nothing(tmp_path):
    voxels = labels((6, 6, 6), 7)
    save = Volume.from_array(voxels).save(tmp_path / "a.zarr", chunk=(3, 3, 3))
    run(save)
    volume = Volume.from_store(open_store(tmp_path / "a.zarr"))
    truth = Volume.from_array(voxels)
    before = set(tmp_path.iterdir())

    job = evaluate_segmentation(volume, truth)
    assert run(job).results["scores"]["rand_index"] == 1

    other = labels((6, 6, 6), 8)
    volume.node.store.write(volume.box, other)
    for again in (job, evaluate_segmentation(volume, truth)):
        again.plan()
        report = run(again)
        assert not report.already_done
        assert report.results["scores"] == scores(other, voxels)
    left = set(tmp_path.iterdir()) - before
    assert all(path.is_dir() and not list(path.iterdir()) for path in left)


def test_counts_in_temporary_files_are_private(tmp_path, monkeypatch):
    voxels = Volume.from_array(labels((2, 2, 2), 9))
    seen = []
    monkeypatch.setattr(
        Tabulate, "check", lambda _: seen.extend(path.stat().st_mode & 0o777 for path in tmp_path.iterdir())
    )

    run(evaluate_segmentation(voxels, voxels))

    assert len(seen) == 1
    assert set(seen) == {0o700}


def test_nothing_of_an_evaluation_without_output_outlives_the_process(tmp_path):
    code = """
import numpy as np, daskflow
from daskflow.operators.segmentation.evaluate_segmentation import evaluate_segmentation
volume = daskflow.open(np.ones((2, 2, 2), np.uint8))
evaluate_segmentation(volume, volume).plan()
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "TMPDIR": str(tmp_path)})

    assert not list(tmp_path.iterdir())


def test_more_blocks_than_one_round_of_adding_takes():
    segmentation, truth = labels((5, 5, 5), 1), labels((5, 5, 5), 2)
    volumes = [Volume.from_array(a).with_block(1) for a in (segmentation, truth)]

    report = run(evaluate_segmentation(*volumes))

    assert [stage.blocks for stage in report.stages if "overlaps" in stage.name] == [125, 2, 1, 2, 1]
    assert report.results["scores"] == scores(segmentation, truth)


def test_components_are_labelled_before_they_are_scored():
    voxels = (labels((8, 8, 8), 3, names=3) > 0).astype(np.uint8)
    volume = Volume.from_array(voxels).with_block(4)
    labelled = connected_components(volume)

    report = run(evaluate_segmentation(labelled, Volume.from_array(labelled.read())))

    assert report.results["scores"]["variation_of_information"] == 0


def test_a_channel_axis_of_one_is_no_obstacle():
    voxels = labels((4, 4, 4), 4)

    report = run(evaluate_segmentation(Volume.from_array(voxels[None]), Volume.from_array(voxels)))

    assert report.results["scores"]["adjusted_rand_index"] == 1


def test_volumes_over_different_boxes_are_refused_by_name():
    a = Volume.from_array(labels((4, 4, 4), 5))
    b = Volume.from_array(labels((4, 4, 4), 5), voxel_offset=(0, 0, 1))

    with pytest.raises(GeometryError, match=r"0-4_0-4_0-4.*0-4_0-4_1-5"):
        evaluate_segmentation(a, b)


def test_voxels_of_different_size_are_refused():
    a = Volume.from_array(labels((4, 4, 4), 5), voxel_size=(1, 1, 1))
    b = Volume.from_array(labels((4, 4, 4), 5), voxel_size=(2, 1, 1))

    with pytest.raises(GeometryError, match="same mip"):
        evaluate_segmentation(a, b)


def test_what_are_no_segments_is_refused():
    good = Volume.from_array(np.zeros((2, 2, 2), np.uint8))

    with pytest.raises(ParameterError, match="groundtruth holds float32"):
        evaluate_segmentation(good, Volume.from_array(np.zeros((2, 2, 2), np.float32)))
    with pytest.raises(ParameterError, match="segmentation has 2 channels"):
        evaluate_segmentation(Volume.from_array(np.zeros((2, 2, 2, 2), np.uint8)), good)


def test_the_oversegmentation_of_real_em_scores_as_published(real_data):
    h5py = pytest.importorskip("h5py")
    with h5py.File(real_data / "fib25_labels.h5") as file:
        segmentation, truth = file["oversegmentation"][:], file["main"][:]
    part = BoundingBox((125, 0, 0), (250, 250, 250))
    volumes = [Volume.from_array(a).with_block(64).crop(part) for a in (segmentation, truth)]

    found = run(evaluate_segmentation(*volumes)).results["scores"]

    assert found["vi_split"] == pytest.approx(1.98, abs=0.005)
    assert found["vi_merge"] == pytest.approx(0.34, abs=0.005)
