from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import BoundsError, ParameterError, StoreAccessError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import memory
from daskflow.stores.memory import ArrayStore
from daskflow.stores.opening import create_store
from daskflow.testing.stores import boxes_in, triples, voxels


@st.composite
def specs(draw: st.DrawFn) -> VolumeSpec:
    box = BoundingBox.from_size(draw(triples(-20, 20)), draw(triples(1, 12)))
    channels = draw(st.sampled_from([None, 1, 3]))
    return VolumeSpec(box=box, dtype=np.dtype(draw(st.sampled_from(["bool", "uint8", "float64"]))), channels=channels)


@given(data=st.data())
def test_any_box_is_that_part_of_the_array(data: st.DataObject) -> None:
    spec = data.draw(specs())
    array = voxels(spec)
    store = ArrayStore(array, spec)
    box = data.draw(boxes_in(spec.box))
    found = store.read(box)
    np.testing.assert_array_equal(found, array[(..., *box.slices(spec.box))])
    assert found.flags.c_contiguous
    assert not np.shares_memory(found, array)


@given(data=st.data())
def test_any_box_can_be_written(data: st.DataObject) -> None:
    spec = data.draw(specs())
    store, expected = ArrayStore(np.zeros(spec.shape, spec.dtype), spec), np.zeros(spec.shape, spec.dtype)
    box = data.draw(boxes_in(spec.box))
    part = voxels(spec.replace(box=box, chunk_origin=None))
    store.write(box, part)
    expected[(..., *box.slices(spec.box))] = part
    np.testing.assert_array_equal(store.read(spec.box), expected)


SPEC = VolumeSpec(box=BoundingBox((1, 2, 3), (5, 6, 7)), dtype=np.dtype("uint8"))


def test_an_array_that_is_not_what_is_said_is_refused() -> None:
    for array in (np.zeros((4, 4, 5), np.uint8), np.zeros((4, 4, 4), np.uint16), np.zeros((1, 4, 4, 4), np.uint8)):
        with pytest.raises(ParameterError):
            ArrayStore(array, SPEC)


def test_boxes_outside_are_refused() -> None:
    with pytest.raises(BoundsError):
        ArrayStore(np.zeros(SPEC.shape, np.uint8), SPEC).read(SPEC.box.grow(1))


def test_the_fingerprint_follows_voxels_and_place() -> None:
    array = np.zeros(SPEC.shape, np.uint8)
    before = ArrayStore(array, SPEC).fingerprint()
    assert ArrayStore(array.copy(order="F"), SPEC).fingerprint() == before
    moved = SPEC.replace(box=SPEC.box.shift((1, 0, 0)), chunk_origin=None)
    assert ArrayStore(array, moved).fingerprint() != before
    array[0, 0, 0] = 1
    assert ArrayStore(array, SPEC).fingerprint() != before


def test_voxels_are_hashed_once_until_they_are_written(monkeypatch):
    hashed = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(memory.hashlib, "sha256", lambda data: hashed.append(len(data)) or sha256(data))
    store = ArrayStore(voxels(SPEC), SPEC)
    before = store.fingerprint()
    assert store.fingerprint() == before
    assert len(hashed) == 1
    store.write(SPEC.box, np.zeros(SPEC.shape, np.uint8))
    assert store.fingerprint() != before


def test_it_travels_with_its_voxels() -> None:
    store = pickle.loads(pickle.dumps(ArrayStore(voxels(SPEC), SPEC)))
    np.testing.assert_array_equal(store.read(SPEC.box), voxels(SPEC))


def test_a_read_only_array_says_so() -> None:
    array = np.zeros(SPEC.shape, np.uint8)
    ArrayStore(array, SPEC).check_writable()
    array.flags.writeable = False
    with pytest.raises(StoreAccessError, match="read-only"):
        ArrayStore(array, SPEC).check_writable()


def test_a_large_array_travels_as_a_scratch_layer(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (130, 128, 128)).astype(np.uint8)
    spec = VolumeSpec(BoundingBox.from_size((-1, 2, 3), array.shape), array.dtype)
    store = ArrayStore(array, spec).with_scratch(str(tmp_path))
    data = pickle.dumps(store)
    assert len(data) < 10_000
    arrived = pickle.loads(data)
    assert arrived.array is None
    assert arrived.fingerprint() == store.fingerprint()
    again = pickle.loads(pickle.dumps(arrived.with_scratch("memory://elsewhere")))
    np.testing.assert_array_equal(again.read(spec.box), array)
    for refused in (arrived.check_writable, lambda: arrived.write(spec.box, array)):
        with pytest.raises(StoreAccessError, match="another process"):
            refused()
    box = BoundingBox((120, 100, 100), (129, 130, 131))
    np.testing.assert_array_equal(pickle.loads(data).read(box), store.read(box))
    assert pickle.dumps(ArrayStore(array, spec)).count(array.tobytes()) == 1


def test_only_layers_in_memory_are_not_shared_with_other_processes(tmp_path):
    assert ArrayStore(voxels(SPEC), SPEC).shared
    for url, shared in ((f"{tmp_path}/layer", True), ("memory://test-memory-shared/layer", False)):
        assert create_store(url, SPEC).shared is shared
