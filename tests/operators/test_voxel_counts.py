import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.clusters import Threads
from daskflow.errors import ParameterError
from daskflow.jobs.evaluate import Tabulate
from daskflow.operators.segmentation.voxel_counts import voxel_counts
from daskflow.operators.stores.open import open as open_volume
from daskflow.scratch.tables import Merge
from daskflow.stores.objects.intmap import read_intmap
from daskflow.volume import Volume


def layer(directory, voxels, offset=(3, 5, 7), **options):
    url = str(directory / "layer")
    volume = Volume.from_array(voxels, voxel_offset=offset, voxel_size=(40, 8, 8), layer_type="segmentation")
    assert volume.save(url, chunk=(8, 8, 8), **options).run(Threads(1), progress=False).ok
    return url


def fifty(shape=(20, 24, 28), seed=0):
    return np.random.default_rng(seed).integers(0, 50, shape).astype(np.uint64)


def counts(url):
    labels, voxels = read_intmap(f"{url}/8_8_40/stats/voxel_counts.im")
    return dict(zip(labels.tolist(), voxels.tolist(), strict=True))


def test_fifty_labels_are_counted_as_numpy_counts_them_with_background(tmp_path):
    voxels = fifty()
    url = layer(tmp_path, voxels)

    report = voxel_counts(open_volume(url)).run(Threads(1), progress=False)

    expected = np.bincount(voxels.ravel().astype(np.int64))
    assert counts(url) == dict(enumerate(expected.tolist()))
    assert report.results["voxel_counts"] == {
        "labels": 49,
        "voxels": voxels.size,
        "background": int(expected[0]),
    }
    first = max(range(1, 50), key=lambda label: (expected[label], -label))
    assert next(iter(report.results["largest_labels"].items())) == (f"label {first}", expected[first])


@settings(max_examples=10, deadline=None)
@given(st.tuples(*[st.integers(3, 20)] * 3), st.integers(0, 2**32 - 1), st.sampled_from([Tabulate, Merge]))
def test_any_blocks_and_any_interruption_give_the_same_file(tmp_path_factory, run_twice, block, seed, broken):
    directory = tmp_path_factory.mktemp("counts")
    voxels = fifty(seed=seed) * np.uint64(2**57)
    url = layer(directory, voxels)
    job = voxel_counts(open_volume(url).with_block(block), output=str(directory / "table.csv"))
    run_twice(job, broken, seed % 3)

    labels, times = np.unique(voxels, return_counts=True)
    assert counts(url) == dict(zip(labels.tolist(), times.tolist(), strict=True))
    rows = np.loadtxt(directory / "table.csv", np.uint64, delimiter=",", skiprows=1)
    assert np.array_equal(rows, np.stack((labels, times.astype(np.uint64)), axis=1))


def test_a_second_run_has_nothing_to_do_and_a_lost_file_is_made_anew(tmp_path):
    url = layer(tmp_path, fifty())
    voxel_counts(open_volume(url)).run(Threads(1), progress=False)
    file = tmp_path / "layer" / "8_8_40" / "stats" / "voxel_counts.im"
    first = file.read_bytes()

    assert voxel_counts(open_volume(url)).run(Threads(1), progress=False).already_done
    file.unlink()
    assert not voxel_counts(open_volume(url)).run(Threads(1), progress=False).already_done
    assert file.read_bytes() == first


def test_background_may_be_left_out(tmp_path):
    url = layer(tmp_path, fifty())

    report = voxel_counts(open_volume(url), background=False).run(Threads(1), progress=False)

    assert 0 not in counts(url)
    assert len(counts(url)) == 49
    assert report.results["voxel_counts"]["background"] > 0


def test_counts_of_a_part_or_of_an_array_go_where_they_are_told(tmp_path):
    voxels = fifty()
    url = layer(tmp_path, voxels, offset=(0, 0, 0))
    part = open_volume(url)[2:9]

    report = voxel_counts(part, output=tmp_path / "part.npy").run(Threads(1), progress=False)
    assert np.load(tmp_path / "part.npy")[:, 1].sum() == report.results["voxel_counts"]["voxels"] == 7 * 24 * 28
    assert not (tmp_path / "layer" / "8_8_40" / "stats").exists()

    report = voxel_counts(Volume.from_array(voxels)).run(Threads(1), progress=False)
    assert report.results["voxel_counts"]["labels"] == 49


def test_labels_of_one_voxel_and_the_largest_number_are_counted(tmp_path):
    voxels = np.zeros((9, 9, 9), np.uint64)
    voxels[0, 0, 0], voxels[8, 8, 8], voxels[4] = 2**64 - 1, 1, 2**63
    url = layer(tmp_path, voxels, offset=(-20, -5, 0), encoding="raw")

    voxel_counts(open_volume(url)).run(Threads(1), progress=False)

    assert counts(url) == {0: 9**3 - 83, 1: 1, 2**63: 81, 2**64 - 1: 1}


def test_counting_does_not_pass_for_a_change_of_the_layer(tmp_path):
    url = layer(tmp_path, fifty())
    before = json.dumps(open_volume(url).node.store.fingerprint())

    voxel_counts(open_volume(url)).run(Threads(1), progress=False)

    assert json.dumps(open_volume(url).node.store.fingerprint()) == before


@pytest.mark.parametrize(
    ("array", "layer_type", "message"),
    [
        (np.zeros((2, 2, 2), np.float32), None, "float32"),
        (np.zeros((2, 2, 2, 2), np.uint8), None, "2"),
        (np.zeros((2, 2, 2), np.uint8), "image", "layer_type='segmentation'"),
    ],
)
def test_what_are_no_labels_is_refused(array, layer_type, message):
    with pytest.raises(ParameterError, match=message):
        voxel_counts(Volume.from_array(array, layer_type=layer_type))
