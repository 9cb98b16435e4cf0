import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import JobError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.fingerprint import changes, describe_stages, token
from daskflow.volume.stage import Stage

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


class Task:
    def __init__(self, values):
        self.values = values

    def describe(self):
        return self.values


@given(values)
def test_what_is_equal_has_no_changes(value):
    assert changes(value, json.loads(json.dumps(value))) == []
    assert token(value) == token(json.loads(json.dumps(value)))


@given(values, values)
def test_what_differs_has_changes_and_another_token(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (token(one) == token(other)) == same
    assert bool(changes({"a": one}, {"a": other})) == (not same)


def test_changes_name_the_key_and_both_values():
    old = {"threshold": {"at": 0.5, "on": [1, 2]}, "old": 1}
    new = {"threshold": {"at": 0.6, "on": [1, 3]}, "new": None}
    assert changes(old, new) == [
        "new: nothing -> null",
        "old: 1 -> nothing",
        "threshold.at: 0.5 -> 0.6",
        "threshold.on: [1, 2] -> [1, 3]",
    ]


def test_a_stage_that_one_of_them_has_not_is_one_line():
    same, other = {"task": {"a": 1, "b": 2}, "grid": {"block": [1, 1, 1]}}, {"task": {"a": 3}, "grid": {}}
    assert changes({"one": same, "two": other}, {"one": same, "three": other}) == [
        "two: a stage -> nothing",
        "three: nothing -> a stage",
    ]


def test_many_changes_are_cut_to_a_screen():
    lines = changes({"same": 1}, {"same": 1} | {str(i): i for i in range(100)})
    assert len(lines) == 21
    assert lines[-1] == "and 80 more"


def test_long_values_are_cut():
    (line,) = changes({"a": "x" * 1000}, {"a": "y" * 1000})
    assert len(line) < 200


def test_description_holds_grid_and_task():
    grid = BlockGrid(BoundingBox((0, 0, 0), (8, 8, 8)), (4, 4, 4))
    described = describe_stages([Stage("first", grid, Task({"at": 1}))])
    assert described == {
        "first": {"grid": {"box": "0-8_0-8_0-8", "block": [4, 4, 4], "origin": [0, 0, 0]}, "task": {"at": 1}}
    }


def test_task_that_is_not_json_is_refused_by_name():
    grid = BlockGrid(BoundingBox((0, 0, 0), (8, 8, 8)), (4, 4, 4))
    with pytest.raises(JobError, match="stage odd describes itself"):
        describe_stages([Stage("odd", grid, Task({"at": object()}))])
