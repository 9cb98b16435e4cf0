import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import CorruptChunkError, JobError
from daskflow.scratch.records import record_url
from daskflow.scratch.tables import read_runs, write_run
from daskflow.stores import kvstore

URL = "memory://runs"


def written(url, count, seed=0):
    """Return the sorted rows that are run 3 at a URL, of keys that come several times."""
    keys = np.sort(np.random.default_rng(seed).integers(0, 2**64, max(1, count // 2), np.uint64))
    rows = {"a": np.sort(np.resize(keys, count)), "n": np.arange(count).reshape(count, 1)}
    write_run(url, "stage", 3, ["a"], rows)
    return rows


@given(st.integers(0, 70_000), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_rows_between_two_keys_are_those_of_the_whole(count, low, high, seed):
    rows = written(URL, count, seed)
    bounds = [np.array([key], np.uint64) for key in sorted((low, high))]
    for first, last in ((None, None), (None, bounds[1]), (bounds[0], None), bounds):
        (found,) = read_runs(URL, "stage", [3], ["a"], first, last)
        kept = np.ones(count, bool)
        kept &= True if first is None else rows["a"] >= first
        kept &= True if last is None else rows["a"] < last
        for name, column in rows.items():
            np.testing.assert_array_equal(found[name], column[kept])
            assert found[name].dtype == column.dtype


def test_few_rows_are_read_without_the_others(tmp_path):
    rows = written(str(tmp_path), 60_000)
    url = record_url(str(tmp_path), "stage", 3)
    data = kvstore.read_bytes(url)
    kvstore.write_bytes(url, data[: len(data) // 2] + b"x" * (len(data) - len(data) // 2))

    (found,) = read_runs(str(tmp_path), "stage", [3], ["a"], None, rows["a"][20_000:20_001])
    assert len(found["a"]) in (20_000, 19_999)
    with pytest.raises(CorruptChunkError, match="is damaged"):
        read_runs(str(tmp_path), "stage", [3], ["a"], rows["a"][50_000:50_001], None)


def test_a_lost_run_is_named(tmp_path):
    with pytest.raises(JobError, match="records of stage in"):
        read_runs(str(tmp_path), "stage", [3], ["a"], None, None)
