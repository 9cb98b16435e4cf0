from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.base import Layout
from daskflow.stores.opening import create_store
from daskflow.stores.precomputed import PrecomputedStore
from daskflow.stores.precomputed_chunks import missing_chunks, zero_chunks
from daskflow.testing.stores import boxes_in, triples, voxels

BOX = BoundingBox((-3, 4, 5), (6, 14, 17))
URL = "memory://test-precomputed-shards/layer"


@pytest.fixture
def store() -> Iterator[PrecomputedStore]:
    spec = VolumeSpec(box=BOX, dtype="uint8", channels=2)
    created = create_store(URL, spec, layout=Layout(chunk=(4, 4, 4), shard=(16, 16, 16)))
    assert isinstance(created, PrecomputedStore)
    yield created
    kvstore.delete_tree(URL)


@given(data=st.data())
def test_chunks_of_zeros_are_found_in_any_box(data: st.DataObject) -> None:
    spec = VolumeSpec(box=BOX, dtype="float32", channels=data.draw(st.sampled_from([None, 2])), chunk=(4, 4, 4))
    box = data.draw(boxes_in(BOX))
    array = np.zeros(spec.shape_of(box), np.float32)
    for place in data.draw(st.lists(triples(0, 11), max_size=4)) if not box.empty else []:
        array[(-1, *(p % s for p, s in zip(place, box.shape, strict=True)))[-array.ndim :]] = 1e-30
    expected = [
        piece for piece in BlockGrid(box, (4, 4, 4), BOX.start) if np.all(array[(..., *piece.slices(box))] == 0)
    ]
    assert zero_chunks(spec, box, array) == expected


def test_a_shard_written_chunk_by_chunk_is_the_one_the_driver_writes(store: PrecomputedStore) -> None:
    array = voxels(store.spec)
    store.write(BOX, array)
    shards = {name: kvstore.read_bytes(f"{URL}/{name}") for name in kvstore.list_names(URL)}
    kvstore.delete_tree(f"{URL}/1_1_1")
    store.chunks.write(BOX, array)
    assert {name: kvstore.read_bytes(f"{URL}/{name}") for name in kvstore.list_names(URL)} == shards


def test_every_chunk_is_missing_before_a_write_and_none_after(store: PrecomputedStore) -> None:
    chunks = list(BlockGrid(BOX, (4, 4, 4)))
    assert missing_chunks(URL, store._metadata, store.spec, chunks) == chunks
    store.write(BOX, np.zeros(store.spec.shape, np.uint8))
    assert missing_chunks(URL, store._metadata, store.spec, chunks) == []


def test_writing_the_same_voxels_again_gives_the_same_bytes(store: PrecomputedStore) -> None:
    array = voxels(store.spec)
    array[:, :4] = 0
    written = []
    for _ in range(2):
        store.write(BOX, array)
        written.append([kvstore.read_bytes(f"{URL}/{name}") for name in kvstore.list_names(URL)])
    assert written[0] == written[1]
