import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import JobError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.fingerprint import changes, describe_stages, differences, token
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


def test_long_values_are_shown_from_where_they_differ():
    (line,) = changes({"spec": f"{'a' * 300}, size=1"}, {"spec": f"{'a' * 300}, size=2"})
    assert line.endswith('size=1" -> ...aaaaaaaaaaaaa, size=2"')
    assert len(line) < 100


def described(sigma, size=10):
    function = "daskflow.operators.image.gaussian_filter.blur"
    blur = {"function": function, "options": {"sigmas": [sigma]}, "readings": [sigma]}
    source = {"inputs": [], "store": {"url": "file:///image.npy", "size": size}}
    return {"save-out": {"grid": {}, "task": {"expression": [source, blur], "sinks": []}}}


def test_what_differs_is_told_in_words_of_the_operator_and_without_what_follows_from_it():
    assert changes(described(3), described(4, size=11)) == [
        "file:///image.npy has changed",
        "gaussian-filter sigmas: [3] -> [4]",
    ]


def test_what_differs_between_command_lines_is_told_as_it_was_typed():
    def told(old, new, description):
        known = {"command": f"daskflow --quiet {old}".split(), "stages": described(3)}
        return differences(known, description, f"daskflow {new}".split())

    line = "open image.npy gaussian-filter --sigma 0 3 3 save out"
    other = line.replace("3 3", "4 4")
    assert told(line, other, described(4)) == ["gaussian-filter --sigma: 0 3 3 -> 0 4 4"]
    assert told(line, f"{other} --sparse", described(4, size=11)) == [
        "gaussian-filter --sigma: 0 3 3 -> 0 4 4",
        "save --sparse: not given -> given",
        "file:///image.npy has changed",
    ]
    assert told(line, "open image.npy save out", described(4)) == ["commands: open gaussian-filter save -> open save"]
    assert told(line, line, described(4)) == ["gaussian-filter sigmas: [3] -> [4]"]


def test_a_stage_that_one_of_them_has_not_is_one_line():
    same, other = {"task": {"a": 1, "b": 2}, "grid": {"block": [1, 1, 1]}}, {"task": {"a": 3}, "grid": {}}
    assert changes({"one": same, "two": other}, {"one": same, "three": other}) == [
        "two: a stage -> nothing",
        "three: nothing -> a stage",
    ]


def test_many_changes_are_cut_to_a_screen():
    lines = changes({"same": 1}, {"same": 1} | {str(i): i for i in range(100)})
    assert len(lines) == 7
    assert lines[-1] == "and 94 more"


def test_long_values_are_cut():
    (line,) = changes({"a": "x" * 1000}, {"a": "y" * 1000})
    assert len(line) < 200


def test_description_holds_grid_and_task():
    grid = BlockGrid(BoundingBox((0, 0, 0), (8, 8, 8)), (4, 4, 4))
    first = Stage("first", grid, Task({"at": 1}))
    described = describe_stages([first, Stage("second", grid, Task({"at": 1}), after=(first,))])
    blocks = {"box": "0-8_0-8_0-8", "block": [4, 4, 4], "origin": [0, 0, 0]}
    assert described == {
        "first": {"grid": blocks, "task": {"at": 1}},
        "second": {"grid": blocks, "task": {"at": 1}, "after": ["first"]},
    }


def test_task_that_is_not_json_is_refused_by_name():
    grid = BlockGrid(BoundingBox((0, 0, 0), (8, 8, 8)), (4, 4, 4))
    with pytest.raises(JobError, match="stage odd describes itself"):
        describe_stages([Stage("odd", grid, Task({"at": object()}))])
