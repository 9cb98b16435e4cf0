import numpy as np
import pytest

from daskflow.errors import ParameterError
from daskflow.operators.segmentation.voxel_counts import check_ending, keeping_time, write_table
from daskflow.stores.objects.intmap import read_intmap

TABLES = [
    (np.array([0, 3], np.uint64), np.array([7, 1])),
    (np.empty(0, np.uint64), np.empty(0, np.int64)),
    (np.array([2**64 - 1], np.uint64), np.array([5])),
]


def test_every_kind_of_file_holds_the_same(tmp_path):
    for ending in (".im", ".csv", ".npy"):
        write_table(f"file://{tmp_path}/counts{ending}", 3, iter(TABLES))

    rows = [[0, 7], [3, 1], [2**64 - 1, 5]]
    assert np.load(tmp_path / "counts.npy").tolist() == rows
    assert (tmp_path / "counts.csv").read_text() == "label,voxels\n0,7\n3,1\n18446744073709551615,5\n"
    assert np.stack(read_intmap(str(tmp_path / "counts.im")), axis=1).tolist() == rows


def test_other_endings_are_refused():
    with pytest.raises(ParameterError, match=r"\.csv"):
        check_ending("file:///tmp/counts.txt")


def test_a_directory_for_the_file_leaves_the_time_of_the_chunks_beside_it(tmp_path):
    before = tmp_path.stat().st_mtime_ns
    keeping_time(f"file://{tmp_path}/stats/counts.im")
    assert (tmp_path / "stats").is_dir()
    assert tmp_path.stat().st_mtime_ns == before
