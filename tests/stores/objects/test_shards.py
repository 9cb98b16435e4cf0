"""Shards: the hash, the sizes, the bytes; tensorstore and CloudVolume read what is written."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import CorruptChunkError, ParameterError
from daskflow.stores import kvstore
from daskflow.stores.objects.shards import (
    Shards,
    minishard_numbers,
    murmurhash,
    object_sharding,
    shard_name,
    shard_numbers,
    write_shard,
)

LABELS = st.integers(0, 2**64 - 1)
OBJECTS = st.dictionaries(LABELS, st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=40)


def sharding(minishard=2, shard=2, index="gzip", data="raw", hash_="murmurhash3_x86_128", preshift=0):
    return {
        "@type": "neuroglancer_uint64_sharded_v1", "preshift_bits": preshift, "hash": hash_,
        "minishard_bits": minishard, "shard_bits": shard, "minishard_index_encoding": index, "data_encoding": data,
    }  # fmt: skip


def write_all(directory, spec, objects):
    labels = np.array(sorted(objects), np.uint64)
    numbers = shard_numbers(labels, spec)
    for number in np.unique(numbers).tolist():
        own = labels[numbers == number].tolist()
        assert write_shard(directory, number, spec, {label: objects[label] for label in own}) == len(own)


SPECS = st.builds(
    sharding,
    minishard=st.integers(0, 4),
    shard=st.integers(0, 5),
    index=st.sampled_from(["raw", "gzip"]),
    data=st.sampled_from(["raw", "gzip"]),
    hash_=st.sampled_from(["identity", "murmurhash3_x86_128"]),
    preshift=st.integers(0, 3),
)


@settings(max_examples=60, deadline=None)
@given(SPECS, OBJECTS)
def test_every_object_is_read_back_with_what_lies_before_it(spec, objects):
    directory = f"memory://shards/{uuid.uuid4().hex}"
    write_all(directory, spec, objects)
    shards = Shards(directory, spec)
    assert shards.labels().tolist() == sorted(objects)
    for label, (prefix, value) in objects.items():
        assert shards.read(label) == value
        assert shards.read_before(label, len(prefix), 0) == prefix
    absent = next(label for label in range(41) if label not in objects)
    assert shards.read(absent) is None


@settings(max_examples=20, deadline=None)
@given(SPECS, OBJECTS)
def test_tensorstore_reads_the_objects(spec, objects):
    directory = f"memory://shards/{uuid.uuid4().hex}"
    write_all(directory, spec, objects)
    driver = {"driver": "neuroglancer_uint64_sharded", "metadata": spec, "base": kvstore.kvstore_spec(directory)}
    store = ts.KvStore.open(driver, context=kvstore.context()).result()
    for label, (_, value) in objects.items():
        assert store.read(label.to_bytes(8, "big")).result().value == value


@settings(max_examples=20, deadline=None)
@given(SPECS, st.dictionaries(LABELS, st.binary(min_size=1, max_size=9), min_size=1, max_size=20))
def test_what_tensorstore_writes_is_read(spec, objects):
    directory = f"memory://shards/{uuid.uuid4().hex}"
    driver = {"driver": "neuroglancer_uint64_sharded", "metadata": spec, "base": kvstore.kvstore_spec(directory)}
    store = ts.KvStore.open(driver, context=kvstore.context()).result()
    with ts.Transaction() as transaction:
        for label, value in objects.items():
            store.with_transaction(transaction)[label.to_bytes(8, "big")] = value
    shards = Shards(directory, spec)
    assert {label: shards.read(label) for label in shards.labels().tolist()} == objects


def test_the_hash_is_that_of_cloudvolume():
    from cloudvolume.datasource.precomputed.sharding import ShardingSpecification

    spec = sharding(minishard=5, shard=7)
    labels = np.random.default_rng(0).integers(0, 2**64, 100, np.uint64)
    theirs = [ShardingSpecification.from_dict(spec).compute_shard_location(label) for label in labels]
    assert [int(place.shard_number, 16) for place in theirs] == shard_numbers(labels, spec).tolist()
    assert [int(place.minishard_number) for place in theirs] == minishard_numbers(labels, spec).tolist()


def test_hashes_of_an_array_are_those_of_its_elements():
    labels = np.arange(2**63, 2**63 + 50, dtype=np.uint64)
    assert murmurhash(labels).tolist() == [int(murmurhash(labels[i : i + 1])[0]) for i in range(50)]


@pytest.mark.parametrize(
    ("labels", "bits"),
    [(0, (0, 0)), (1, (0, 0)), (1365, (0, 0)), (1366, (0, 1)), (10**5, (0, 7)), (10**6, (1, 9)), (10**7, (4, 9)),
     (10**8, (8, 9)), (10**9, (11, 9))],
)  # fmt: skip
def test_shards_and_minishards_are_as_many_as_igneous_makes(labels, bits):
    spec = object_sharding(labels)
    assert (spec["shard_bits"], spec["minishard_bits"]) == bits


@pytest.mark.parametrize(("labels", "bits"), [(10**5, 7), (10**6, 10), (10**7, 13), (10**9, 20)])
def test_shards_of_a_thousand_labels_are_as_many_as_igneous_makes(labels, bits):
    spec = object_sharding(labels, max_labels_per_shard=1000)
    assert (spec["shard_bits"], spec["minishard_bits"]) == (bits, 0)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10**12),
    st.none() | st.integers(100, 10**5),
    st.integers(1, 5000),
    st.sampled_from([8192, 2**10, 5000, 2**16]),
    st.sampled_from([32768, 2**12, 50_000]),
)
def test_any_number_of_labels_is_shared_out_as_cloudvolume_does(labels, most, least, index, minishard_index):
    from cloudvolume.datasource.precomputed.sharding import compute_shard_params_for_hashed

    sizes = {"shard_index_bytes": index, "minishard_index_bytes": minishard_index}
    spec = object_sharding(labels, max_labels_per_shard=most, min_shards=least, **sizes)
    wanted = max(least, -(-labels // most) if most else 1, 1)
    shard, minishard, _ = compute_shard_params_for_hashed(labels, min_shards=wanted, **sizes)
    assert (spec["shard_bits"], spec["minishard_bits"]) == (shard, minishard)


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": -1},
        {"min_shards": 0},
        {"max_labels_per_shard": 0},
        {"data_encoding": "zstd"},
        {"minishard_index_encoding": "br"},
        {"shard_index_bytes": 16},
        {"minishard_index_bytes": 24},
    ],
)
def test_shards_that_cannot_be_are_refused(wrong):
    with pytest.raises(ParameterError):
        object_sharding(**{"labels": 5, **wrong})


def test_one_object_costs_three_small_reads_and_the_next_ones_one_each(tmp_path, monkeypatch):
    spec = sharding(minishard=0, shard=0)
    write_shard(str(tmp_path), 0, spec, dict.fromkeys(range(100), b"x" * 1000))
    spans = []
    read_range = kvstore.read_range
    monkeypatch.setattr(
        kvstore, "read_range", lambda url, start, stop: spans.append(stop - start) or read_range(url, start, stop)
    )
    shards = Shards(str(tmp_path), spec)
    shards.read(7)
    assert len(spans) == 3
    assert sum(spans) < 2000
    shards.read(8)
    assert spans[3:] == [1000]


def test_a_stream_of_objects_gives_the_bytes_of_a_dictionary(tmp_path):
    spec = sharding(minishard=3, shard=0)
    objects = {label: (b"f" * (label % 5), b"%d" % label) for label in range(200)}
    write_shard(f"{tmp_path}/a", 0, spec, objects)
    write_shard(f"{tmp_path}/b", 0, spec, iter(sorted(objects.items())))
    write_shard("memory://shards-stream", 0, spec, objects)
    there = (tmp_path / "a/0.shard").read_bytes()
    assert there == (tmp_path / "b/0.shard").read_bytes() == kvstore.read_bytes("memory://shards-stream/0.shard")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["0.shard"]


def test_a_shard_that_fails_half_way_leaves_the_one_before(tmp_path):
    spec = sharding(minishard=0, shard=0)
    write_shard(str(tmp_path), 0, spec, {1: b"before"})

    def failing():
        yield 1, b"after"
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        write_shard(str(tmp_path), 0, spec, failing())
    assert Shards(str(tmp_path), spec).read(1) == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["0.shard"]


def test_a_shard_without_objects_is_absent(tmp_path):
    spec = sharding(minishard=1, shard=0)
    write_shard(str(tmp_path), 0, spec, {1: b"one"})
    assert write_shard(str(tmp_path), 0, spec, {}) == 0
    assert list(tmp_path.iterdir()) == []
    assert Shards(str(tmp_path), spec).labels().tolist() == []


def test_labels_out_of_order_or_of_another_shard_are_refused(tmp_path):
    spec = sharding(shard=3)
    with pytest.raises(ParameterError, match="ascending"):
        write_shard(str(tmp_path), 0, spec, iter([(5, b""), (4, b"")]))
    number = int(shard_numbers([5], spec)[0])
    with pytest.raises(ParameterError, match=f"belongs to shard {number}"):
        write_shard(str(tmp_path), (number + 1) % 8, spec, {5: b""})


def test_a_shard_that_is_cut_off_is_corrupt(tmp_path):
    spec = sharding(minishard=0, shard=0)
    write_shard(str(tmp_path), 0, spec, dict.fromkeys(range(20), b"x" * 50))
    file = tmp_path / "0.shard"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(CorruptChunkError):
        Shards(str(tmp_path), spec).read(3)


@pytest.mark.parametrize(("bits", "number", "name"), [(0, 0, "0.shard"), (4, 11, "b.shard"), (9, 11, "00b.shard")])
def test_names_have_as_many_digits_as_the_shards_need(bits, number, name):
    assert shard_name(number, sharding(shard=bits)) == name
