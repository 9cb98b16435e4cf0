import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import MissingChunkError, ParameterError
from daskflow.scratch.pieces import Pieces, bucket_count
from daskflow.stores import kvstore
from daskflow.stores.objects.shards import object_sharding, shard_numbers
from daskflow.volume.stage import Scope, Scopes, run_here


@pytest.fixture(scope="module")
def memory():
    return lambda: f"memory://fragments/{uuid.uuid4().hex}"


def written(directory, blocks):
    pieces = Pieces("gather", "parts", len(blocks), 1, Scope("parts", url=directory))
    for index, fragments in enumerate(blocks):
        pieces.write(index, fragments, {label: [label % 97] * 6 for label in fragments})


def gathered(pieces):
    """Return bytes of all fragments by bucket and label, in the order given."""
    found = []
    for bucket in range(pieces.buckets):
        for label, fragments in pieces.labels_of(bucket):
            assert [f.block for f in fragments] == sorted(f.block for f in fragments)
            assert all(f.label == label and f.bounds == (label % 97,) * 6 for f in fragments)
            found.append((bucket, label, pieces.read_all(fragments)))
    return found


LABELS = st.integers(0, 2**64 - 1) | st.integers(1, 20)
BLOCKS = st.lists(st.dictionaries(LABELS, st.binary(max_size=5), max_size=8), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(BLOCKS, st.sampled_from([1, 2, 8, 128]), st.integers(2, 5), st.booleans())
def test_every_fragment_arrives_once_in_the_bucket_of_its_label(memory, blocks, buckets, fan_in, sharded):
    directory = memory()
    written(directory, blocks)
    sharding = {"min_shards": 16, "data_encoding": "gzip"} if sharded else None
    pieces = Pieces("gather", "parts", len(blocks), buckets, Scope("parts", url=directory), sharding, fan_in)
    run_here(pieces.stages(), Scopes(directory))
    found = gathered(pieces)
    expected = {}
    for fragments in blocks:
        for label, data in fragments.items():
            expected.setdefault(label, []).append(data)
    assert len({label for _, label, _ in found}) == len(found)
    assert {label: parts for _, label, parts in found} == expected
    assert pieces.label_count == len(expected)
    if sharded:
        spec = pieces.shards()
        assert spec == object_sharding(len(expected), **sharding)
        numbers = shard_numbers(np.array([label for _, label, _ in found], np.uint64), spec).tolist()
        assert all(number % buckets == bucket for number, (bucket, _, _) in zip(numbers, found, strict=True))
        assert len({n for n, before in zip(numbers, [None, *numbers], strict=False) if n != before}) == len(
            [n for n, before in zip(numbers, [None, *numbers], strict=False) if n != before]
        ), "a shard in two places"
        by_shard = [(n, labels) for b in range(buckets) for n, labels in pieces.shards_of(b)]
        assert [n for n, _ in by_shard] == list(dict.fromkeys(numbers))
        assert [label for _, labels in by_shard for label, _ in labels] == [label for _, label, _ in found]


@settings(max_examples=20, deadline=None)
@given(BLOCKS)
def test_the_lists_do_not_depend_on_how_many_are_merged_at_once(memory, blocks):
    results = []
    for fan_in in (2, 3, 64):
        directory = memory()
        written(directory, blocks)
        pieces = Pieces("gather", "parts", len(blocks), 8, Scope("parts", url=directory), None, fan_in)
        run_here(pieces.stages(), Scopes(directory))
        results.append(gathered(pieces))
    assert results[0] == results[1] == results[2]


def test_running_again_changes_no_byte(tmp_path):
    blocks = [{label: b"x" * (label % 7) for label in range(block, block + 40)} for block in range(9)]
    directory = str(tmp_path)

    def state():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    pieces = Pieces("gather", "parts", 9, 4, Scope("parts", url=directory), {"min_shards": 8}, 3)
    written(directory, blocks)
    run_here(pieces.stages(), Scopes(directory))
    before = state()
    written(directory, blocks)
    run_here(pieces.stages(), Scopes(directory))
    assert state() == before


def test_a_block_that_left_nothing_behind_is_missed(memory):
    directory = memory()
    written(directory, [{1: b"a"}, {2: b"b"}])
    with pytest.raises(MissingChunkError, match="scratch data"):
        run_here(Pieces("gather", "parts", 3, 4, Scope("parts", url=directory)).stages(), Scopes(directory))


def test_a_fragment_is_read_without_the_others(memory, monkeypatch):
    directory = memory()
    written(directory, [{1: b"a" * 1000, 2: b"b" * 10, 3: b"c" * 1000}])
    pieces = Pieces("gather", "parts", 1, 1, Scope("parts", url=directory))
    run_here(pieces.stages(), Scopes(directory))
    fragments = {label: found[0] for label, found in pieces.labels_of(0)}
    spans = []
    read_range = kvstore.read_range
    monkeypatch.setattr(
        kvstore, "read_range", lambda url, start, stop: spans.append(stop - start) or read_range(url, start, stop)
    )
    assert pieces.read(fragments[2]) == b"b" * 10
    assert spans == [10]


def test_tasks_of_a_million_blocks_read_about_as_much_as_64_blocks_list():
    levels = Pieces("gather", "parts", 10**6, bucket_count(10**6), Scope("parts")).levels
    assert [sources for sources, _, _ in levels] == [10**6, 15625, 245, 4]
    share = [10**6 / max(sources / 64, 1) / splits for sources, splits, _ in levels]  # blocks' worth of rows in a task
    assert max(share) < 256


@pytest.mark.parametrize(("blocks", "buckets"), [(1, 16), (128, 16), (136, 32), (10**4, 2048), (10**6, 4096)])
def test_there_is_about_one_bucket_for_eight_blocks(blocks, buckets):
    assert bucket_count(blocks) == buckets


@pytest.mark.parametrize("wrong", [{"blocks": 0}, {"buckets": 3}, {"fan_in": 1}, {"sharding": {"min_shards": 0}}])
def test_a_shuffle_that_cannot_be_is_refused(wrong):
    with pytest.raises(ParameterError):
        Pieces(**{"name": "gather", "source": "parts", "blocks": 2, "buckets": 4, "scope": Scope("parts"), **wrong})
