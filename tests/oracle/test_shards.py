"""How objects are spread over shards: the numbers that igneous computes from the number of labels."""

from __future__ import annotations

import pytest

from daskflow.stores.objects.shards import object_sharding

LABELS = (1, 5, 1365, 1366, 9999, 10**5, 123_456, 10**6, 10**7, 10**8, 10**9)


@pytest.mark.parametrize("limits", [{}, {"min_shards": 50}], ids=str)
def test_bits_are_those_of_igneous(igneous, limits):
    for labels in LABELS:
        sharding = object_sharding(labels, **limits)
        bits = [sharding[f"{name}_bits"] for name in ("preshift", "minishard", "shard")]
        assert bits == igneous.ask("hashed", labels=labels, **limits), labels


def test_bits_follow_the_most_labels_per_shard_as_those_of_igneous_follow_the_fewest_shards(igneous):
    for labels in LABELS:
        sharding = object_sharding(labels, max_labels_per_shard=1000)
        bits = [sharding[f"{name}_bits"] for name in ("preshift", "minishard", "shard")]
        assert bits == igneous.ask("hashed", labels=labels, min_shards=-(-labels // 1000)), labels
