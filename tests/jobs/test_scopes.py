"""Several uses of one operator in a job: what each leaves in scratch data lies apart, under a plain name."""

import json
import re

import numpy as np
import pytest

import daskflow
from daskflow.clusters import Threads
from daskflow.jobs.job import merge
from daskflow.operators.image.clahe import clahe
from daskflow.operators.image.contrast import contrast
from daskflow.operators.segmentation.connected_components import connected_components
from daskflow.operators.segmentation.evaluate_segmentation import evaluate_segmentation
from daskflow.operators.segmentation.region_properties import region_properties
from daskflow.operators.segmentation.remap import remap
from daskflow.operators.segmentation.threshold import threshold
from daskflow.operators.segmentation.voxel_counts import WriteCounts, voxel_counts
from daskflow.stores.memory import ArrayStore
from daskflow.volume import Expression, Volume
from daskflow.volume.stage import Scope, Scopes


def labels(seed, shape=(8, 8, 8)):
    return np.random.default_rng(seed).integers(0, 5, shape).astype(np.uint32)


def volume(array):
    return Volume.from_array(array).with_block(4)


def ran(job, **how):
    with Threads(2) as pool:
        return job.run(pool, progress=False, **how)


def counted(path):
    names, counts = np.load(path).T
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def expected(array):
    return dict(zip(*(one.tolist() for one in np.unique(array, return_counts=True)), strict=True))


def opened(path):
    return daskflow.open(path).read()


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_two_counts_in_one_job_do_not_mix(tmp_path, order):
    jobs = [voxel_counts(volume(labels(seed)), output=tmp_path / f"{seed}.npy") for seed in order]

    assert ran(merge(jobs)).ok

    assert all(counted(tmp_path / f"{seed}.npy") == expected(labels(seed)) for seed in order)


def test_two_labellings_of_different_thresholds_do_not_mix(tmp_path):
    image = volume(np.random.default_rng(3).random((8, 8, 8), dtype=np.float32))
    uses = {at: connected_components(image, threshold=at) for at in (0.3, 0.7)}

    assert ran(merge([use.save(tmp_path / str(at), chunk=(4, 4, 4)) for at, use in uses.items()])).ok

    for at, use in uses.items():
        assert np.array_equal(opened(tmp_path / str(at)), use.read())


@pytest.mark.parametrize("function", [contrast, clahe])
def test_an_operator_after_itself_has_scratch_data_of_its_own(tmp_path, function):
    image = volume((np.random.default_rng(4).normal(90, 20, (4, 16, 16))).clip(0, 255).astype(np.uint8))
    once = function(image)

    assert ran(function(once).save(tmp_path / "twice", chunk=(4, 4, 4))).ok

    twice = function(volume(once.read())).read()
    assert np.array_equal(opened(tmp_path / "twice"), twice)


def test_tiles_are_counted_once_for_two_limits(tmp_path):
    image = volume((np.random.default_rng(10).normal(90, 20, (4, 16, 16))).clip(0, 255).astype(np.uint8))
    uses = {at: clahe(image, clip_limit=at) for at in (2.0, 40.0)}

    report = ran(merge([use.save(tmp_path / str(at), chunk=(4, 4, 4)) for at, use in uses.items()]))

    assert report.ok
    assert [stage.name for stage in report.stages if "tiles" in stage.name] == ["count-tiles"]
    for at, use in uses.items():
        assert np.array_equal(opened(tmp_path / str(at)), use.read())


def test_a_segmentation_and_what_is_made_of_it_are_scored_both_ways(tmp_path):
    fine = volume(labels(8))
    coarse = remap(fine, table={1: 1, 2: 1, 3: 2, 4: 2})
    uses = {"merged": (coarse, fine), "split": (fine, coarse)}

    assert ran(merge([evaluate_segmentation(*use, output=tmp_path / name) for name, use in uses.items()])).ok

    found = {name: json.loads((tmp_path / name).read_text()) for name in uses}
    assert found["merged"]["vi_split"] == found["split"]["vi_merge"] == 0
    assert found["merged"]["vi_merge"] == found["split"]["vi_split"] > 0


def test_regions_are_measured_with_and_without_the_image_that_they_are_made_of(tmp_path):
    image = volume(labels(9).astype(np.uint8))
    mask = threshold(image, threshold=2)
    urls = [tmp_path / "plain.csv", tmp_path / "bright.csv"]
    jobs = [region_properties(mask, output=urls[0]), region_properties(mask, image, output=urls[1])]

    assert ran(merge(jobs)).ok

    plain, bright = (url.read_text().splitlines() for url in urls)
    assert "intensity_mean" not in plain[0]
    assert "intensity_mean" in bright[0]
    assert bright[1].startswith(plain[1])


def test_files_of_one_name_in_two_directories_do_not_mix(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()

    assert ran(merge([volume(labels(seed)).save(tmp_path / name / "x.npy") for seed, name in enumerate("ab")])).ok

    assert all(np.array_equal(np.load(tmp_path / name / "x.npy"), labels(seed)) for seed, name in enumerate("ab"))


def test_the_same_use_twice_runs_once(tmp_path):
    array = labels(5)
    alone = connected_components(volume(array)).save(tmp_path / "alone", chunk=(4, 4, 4))
    jobs = [connected_components(volume(array)).save(tmp_path / name, chunk=(4, 4, 4)) for name in "ab"]

    both = merge(jobs)

    assert ran(both).ok
    assert [stage.name for stage in both.stages][:-1] == [stage.name for stage in alone.stages][:-1]
    assert np.array_equal(opened(tmp_path / "a"), opened(tmp_path / "b"))
    assert opened(tmp_path / "a").max() > 1


def test_names_are_plain_words_and_numbers(tmp_path):
    image = np.random.default_rng(6).integers(1, 200, (4, 8, 8)).astype(np.uint8)
    jobs = [contrast(volume(image), clip_fraction=at).save(tmp_path / str(at), chunk=(4, 4, 4)) for at in (0.01, 0.2)]
    jobs += [voxel_counts(volume(labels(seed)), output=tmp_path / f"{seed}.npy") for seed in (1, 2)]
    scopes = Scopes(str(tmp_path))

    stages = merge(jobs).stages

    for stage in stages:
        stage.task.bind(scopes)
    names = [scopes.place(one).url.rpartition("/")[2] for one in scopes.met]
    assert names == ["levels", "limits", "limits-2", "counts", "counts-2"]
    assert not [stage.name for stage in stages if re.search(r"[0-9a-f]{8}", stage.name)]


def test_what_is_done_is_found_again_after_a_job_died(tmp_path, monkeypatch):
    def made():
        return merge([voxel_counts(volume(labels(seed)), output=tmp_path / f"{seed}.npy") for seed in (1, 2)])

    with monkeypatch.context() as patched:
        patched.setattr(WriteCounts, "write", lambda *_: 1 / 0)
        assert not ran(made(), retries=0).ok

    report = ran(made(), retry_failed=True)

    assert report.ok
    again = {stage.name for stage in report.stages if stage.skipped < stage.blocks}
    assert again == {"write-counts", "write-counts-2"}
    assert all(counted(tmp_path / f"{seed}.npy") == expected(labels(seed)) for seed in (1, 2))


def test_a_job_that_starts_over_takes_nothing_from_the_run_before(tmp_path):
    for seed in (1, 2):
        job = voxel_counts(volume(labels(seed)), output=tmp_path / "counts.npy")

        assert ran(job, overwrite=True).ok

        assert counted(tmp_path / "counts.npy") == expected(labels(seed))


def test_calling_an_operator_reads_nothing(monkeypatch):
    for name in ("fingerprint", "_read"):
        monkeypatch.setattr(ArrayStore, name, lambda *_: pytest.fail("the volume is read"))

    connected_components(contrast(clahe(volume(np.zeros((4, 8, 8), np.uint8)))))


def test_scopes_are_one_if_they_have_the_same_basis():
    array = labels(7)
    one, same, other = (
        Scope("counts", (Expression([volume(array).node]), block)) for block in ((4, 4, 4), (4, 4, 4), (8, 8, 8))
    )

    assert one == same != other
    assert one != Scope("boxes", one.basis)
    assert one.bind(Scopes("memory://here")) != one.bind(Scopes("memory://here"))
