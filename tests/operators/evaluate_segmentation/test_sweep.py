import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import adapted_rand_error, variation_of_information

from daskflow.clusters import Threads
from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.operators.segmentation._merge_tree import MergeTree, read_tree
from daskflow.operators.segmentation.agglomerate import agglomerate
from daskflow.operators.segmentation.evaluate_segmentation import evaluate_segmentation
from daskflow.operators.segmentation.remap import remap
from daskflow.volume import Volume

pyarrow = pytest.importorskip("pyarrow.parquet")


def run(job):
    with Threads(1) as threads:
        return job.run(threads, progress=False)


def made(tmp_path):
    rng = np.random.default_rng(0)
    affinities = Volume.from_array(rng.random((3, 6, 7, 8)).astype(np.float32)).with_block(4)
    fragments = Volume.from_array(rng.integers(0, 60, (6, 7, 8)).astype(np.uint64))
    truth = Volume.from_array(rng.integers(0, 4, (6, 7, 8)).astype(np.uint8))
    run(agglomerate(affinities, fragments, threshold=0.1, tree=tmp_path / "tree.parquet").save(tmp_path / "s.zarr"))
    found = agglomerate(affinities, fragments, threshold=[0.1, 0.5, 0.6])
    return fragments, truth, dict(zip([0.1, 0.5, 0.6], found, strict=True))


def test_every_threshold_scores_as_what_is_agglomerated_with_it(tmp_path):
    fragments, truth, found = made(tmp_path)

    report = run(
        evaluate_segmentation(
            fragments.with_block(3),
            truth,
            tree=tmp_path / "tree.parquet",
            thresholds=[0.1, 0.5, 0.6],
            plot=tmp_path / "sweep.svg",
            output=tmp_path / "scores.json",
        )
    )

    swept = json.loads((tmp_path / "scores.json").read_text())["sweep"]
    assert [one["threshold"] for one in swept] == [0.6, 0.5, 0.1]
    for one in swept:
        alone = run(evaluate_segmentation(found[one["threshold"]], truth)).results["scores"]
        assert {name: one[name] for name in alone} == alone
    least = min(one["variation_of_information"] for one in swept)
    assert report.results["scores"]["variation_of_information"] == least
    assert "adapted rand error" in str(report)
    assert (tmp_path / "sweep.svg").read_text().startswith("<svg")


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_errors_are_those_of_scikit_image(seed):
    rng = np.random.default_rng(seed)
    segmentation, truth = rng.integers(0, 4, (2, 3, 4, 5))
    volumes = [Volume.from_array(array.astype(np.uint8)) for array in (segmentation, truth)]

    scores = run(evaluate_segmentation(*volumes)).results["scores"]

    assert scores["adapted_rand_error"] == pytest.approx(adapted_rand_error(truth, segmentation)[0])
    both = (segmentation != 0) & (truth != 0)
    split, merge = variation_of_information(truth[both], segmentation[both])
    assert (scores["vi_split"], scores["vi_merge"]) == (pytest.approx(split), pytest.approx(merge))


def test_a_tree_is_cut_at_any_threshold():
    child, parent = np.array([[1, 2, 5], [2, 9, 9]], np.uint64)
    tree = MergeTree(child, parent, np.array([0.9, 0.4, 0.7]))

    assert [names.tolist() for names in tree.names(0.3)] == [[1, 2, 5], [9, 9, 9]]
    assert [names.tolist() for names in tree.names(0.6)] == [[1, 5], [2, 9]]
    assert [names.tolist() for names in tree.names(0.95)] == [[], []]


def test_what_is_no_tree_is_refused(tmp_path):
    volume = Volume.from_array(np.ones((2, 2, 2), np.uint8))
    (tmp_path / "bad.parquet").write_bytes(b"nothing")

    with pytest.raises(StoreNotFoundError, match="agglomerate writes one"):
        run(evaluate_segmentation(volume, volume, tree=tmp_path / "none.parquet"))
    with pytest.raises(ParameterError, match=r"bad\.parquet is not a merge tree"):
        read_tree(str(tmp_path / "bad.parquet"))
    with pytest.raises(ParameterError, match="from 0 to 1"):
        evaluate_segmentation(volume, volume, tree="t.parquet", thresholds=[2])
    with pytest.raises(ParameterError, match="give the tree"):
        evaluate_segmentation(volume, volume, plot="p.svg")
    with pytest.raises(ParameterError, match=r"must end with \.svg"):
        evaluate_segmentation(volume, volume, tree="t.parquet", plot="p.png")


def test_a_tree_is_not_cut_below_where_it_was_made(tmp_path):
    fragments, truth, _ = made(tmp_path)

    report = run(evaluate_segmentation(fragments, truth, tree=tmp_path / "tree.parquet"))

    assert [one["threshold"] for one in report.results["sweep"]][-3:] == [0.2, 0.15, 0.1]
    with pytest.raises(ParameterError, match=r"down to a mean affinity of 0\.1"):
        run(evaluate_segmentation(fragments, truth, tree=tmp_path / "tree.parquet", thresholds=[0.05, 0.5]))
    with pytest.raises(ParameterError, match=r"down to a mean affinity of 0\.1"):
        remap(fragments, table=tmp_path / "tree.parquet", cut=0.05, unmapped="keep").read()


def test_remapping_by_a_tree_gives_what_is_agglomerated_at_that_threshold(tmp_path):
    fragments, _, found = made(tmp_path)

    for threshold in (0.5, 0.6):
        cut = remap(fragments, table=tmp_path / "tree.parquet", cut=threshold, unmapped="keep")
        np.testing.assert_array_equal(cut.read(), found[threshold].read())
    with pytest.raises(ParameterError, match="cut at a mean affinity"):
        remap(fragments, table=tmp_path / "tree.parquet")
    with pytest.raises(ParameterError, match="cut at a mean affinity"):
        remap(fragments, table={1: 2}, cut=0.5)
