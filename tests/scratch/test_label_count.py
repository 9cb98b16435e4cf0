import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.scratch.pieces import join_labels, label_count, label_record


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=30), min_size=1, max_size=6))
def test_few_labels_are_counted_exactly(sets):
    joined = join_labels([label_record(np.array(labels, np.uint64)) for labels in sets])
    assert label_count(joined) == len(set().union(*sets))


@pytest.mark.parametrize("count", [65_537, 100_000, 1_000_000])
def test_many_labels_are_counted_within_three_per_cent_from_a_small_record(count):
    record = label_record(np.arange(count, dtype=np.uint64) * np.uint64(7919))
    assert sum(array.nbytes for array in record.values()) < 20_000
    assert abs(label_count(record) / count - 1) < 0.03


def test_the_record_does_not_depend_on_what_is_joined_first():
    labels = np.random.default_rng(0).integers(0, 2**63, 200_000, np.uint64)
    parts = [label_record(part) for part in np.array_split(labels, 7)]
    whole = label_record(labels)
    left = parts[0]
    for part in parts[1:]:
        left = join_labels([left, part])
    tree = join_labels([join_labels(parts[:3]), join_labels(parts[3:])])
    for record in (left, tree, join_labels(parts)):
        assert record.keys() == whole.keys() == {"registers"}
        assert (record["registers"] == whole["registers"]).all()
