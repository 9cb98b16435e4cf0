import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import JobError
from daskflow.scratch import Table
from daskflow.scratch.tables import merged
from daskflow.volume.stage import Scope, Scopes, run_here

COLUMNS = {"a": "key", "b": "key", "n": "sum", "low": "min", "high": "max", "seen": "first"}
KEYS = np.array([0, 1, 7, 2**40, 2**63 + 5, 2**64 - 1], np.uint64)


def scope_at(path):
    return Scope("some", url=str(path))


def rows(seed, count):
    """Return rows of any keys, each as often as it comes, of which `seen` tells the place."""
    random = np.random.default_rng(seed)
    keys = random.choice(KEYS, (2, count))
    values = random.integers(-9, 9, (3, count))
    starts = random.integers(-9, 9, (count, 3))
    return {"a": keys[0], "b": keys[1], "n": values[0], "low": starts, "high": values[2], "seen": np.arange(count)}


def expected(parts):
    found = {}
    for part in parts:
        for place in range(len(part["a"])):
            row = [part[name][place] for name in COLUMNS]
            key = (int(row[0]), int(row[1]))
            if key not in found:
                found[key] = row[2:]
                continue
            n, low, high, seen = found[key]
            found[key] = [n + row[2], np.minimum(low, row[3]), max(high, row[4]), seen]
    return {key: [np.asarray(value).tolist() for value in found[key]] for key in sorted(found)}


def entries(table):
    keys = zip(table["a"].tolist(), table["b"].tolist(), strict=True)
    return dict(
        zip(keys, map(list, zip(*(table[name].tolist() for name in list(COLUMNS)[2:]), strict=True)), strict=True)
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=20), st.integers(2, 5), st.integers(0, 99))
def test_any_tree_merges_as_one_pass_over_all_rows_does(tmp_path_factory, counts, fan_in, seed):
    directory = str(tmp_path_factory.mktemp("scratch"))
    table = Table("pairs", len(counts), COLUMNS, Scope("pairs", url=directory), fan_in=fan_in)
    parts = [merged(COLUMNS, [rows(seed + index, count)]) for index, count in enumerate(counts)]
    for index, part in enumerate(parts):
        table.write(index, part)
    run_here(table.stages(), Scopes(directory))

    found = list(table.tables())

    assert len(found) == table.ranges
    joined = {name: np.concatenate([one[name] for one in found]) for name in COLUMNS}
    assert entries(joined) == expected(parts)
    assert list(entries(joined)) == sorted(entries(joined))


def test_one_key_with_very_many_partners_is_cut_into_ranges_too(tmp_path):
    table = Table("pairs", 64, {"a": "key", "b": "key", "n": "sum"}, scope_at(tmp_path), fan_in=4)
    for index in range(64):
        partners = np.arange(index, 64_00, 64, np.uint64)
        table.write(index, {"a": partners * np.uint64(0), "b": partners, "n": np.ones(len(partners), int)})
    run_here(table.stages(), Scopes(str(tmp_path)))

    sizes = [len(one["a"]) for one in table.tables()]

    assert sum(sizes) == 6400
    assert max(sizes) <= 2 * 6400 / table.ranges


def test_values_are_found_by_key_in_any_order(tmp_path):
    table = Table("one", 9, {"key": "key", "where": "min"}, scope_at(tmp_path), fan_in=2)
    for index in range(9):
        keys = np.arange(index, 90, 9, np.uint64)
        table.write(index, {"key": keys, "where": np.stack([keys, keys + np.uint64(1)], axis=1)})
    run_here(table.stages(), Scopes(str(tmp_path)))

    assert table.of([80, 3, 2**63, 3])["where"].tolist() == [[80, 81], [3, 4], [0, 0], [3, 4]]
    assert table.of([])["where"].shape == (0, 2)


def test_a_lost_block_is_noticed(tmp_path):
    table = Table("one", 2, {"key": "key"}, scope_at(tmp_path))
    table.write(0, {"key": np.arange(3, dtype=np.uint64)})

    with pytest.raises(JobError, match="records of one in"):
        run_here(table.stages(), Scopes(str(tmp_path)))


def test_results_of_ranges_become_another_table(tmp_path):
    first = Table("one", 9, {"key": "key", "n": "sum"}, scope_at(tmp_path), fan_in=2)
    second = Table("two", first.ranges, {"key": "key", "n": "sum"}, scope_at(tmp_path), fan_in=2)
    first = first.into(halved, second)
    for index in range(9):
        first.write(index, {"key": np.arange(100, dtype=np.uint64), "n": np.ones(100, int)})
    run_here(first.stages(), Scopes(str(tmp_path)))

    assert second.of([0, 49, 50])["n"].tolist() == [18, 18, 0]


def halved(one):
    return merged({"key": "key", "n": "sum"}, [one | {"key": one["key"] // np.uint64(2)}])
