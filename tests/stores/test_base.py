from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from daskflow.errors import (
    AlignmentError,
    BoundsError,
    GeometryError,
    MetadataMismatchError,
    MissingChunkError,
    ParameterError,
    StoreNotFoundError,
)
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.base import Layout
from daskflow.stores.memory import ArrayStore
from daskflow.stores.opening import create_store, open_store
from daskflow.stores.refusals import check_aligned, check_mip, refuse_cast, refuse_mismatch
from daskflow.testing.stores import boxes_in, triples


@st.composite
def chunked(draw: st.DrawFn) -> VolumeSpec:
    box = BoundingBox.from_size(draw(triples(-20, 20)), draw(triples(1, 30)))
    chunk = draw(triples(1, 6))
    factor = draw(st.none() | triples(1, 3))
    shard = factor and tuple(c * f for c, f in zip(chunk, factor, strict=True))
    origin = draw(st.just(box.start) | triples(-30, 0))
    return VolumeSpec(box=box, dtype=np.dtype("uint8"), chunk=chunk, shard=shard, chunk_origin=origin)


@given(data=st.data())
def test_a_box_is_aligned_when_no_unit_lies_partly_outside_it(data: st.DataObject) -> None:
    spec = data.draw(chunked())
    box = data.draw(boxes_in(spec.box))
    assume(not box.empty)
    inside, unit = np.zeros(spec.box.shape, bool), spec.write_unit
    inside[box.slices(spec.box)] = True
    units = np.zeros(spec.box.shape, np.int64)
    for axis in range(3):
        along = (np.arange(spec.box.start[axis], spec.box.stop[axis]) - spec.chunk_origin[axis]) // unit[axis]
        units = 1000 * units + np.expand_dims(along, [i for i in range(3) if i != axis])
    shares = np.intersect1d(units[inside], units[~inside]).size > 0
    try:
        check_aligned(box, spec)
        assert not shares
    except AlignmentError as error:
        assert shares
        nearest = BoundingBox.from_string(str(error))
        check_aligned(nearest, spec)
        assert box in nearest


def test_without_chunks_any_box_is_aligned() -> None:
    spec = VolumeSpec(box=BoundingBox((0, 0, 0), (9, 9, 9)), dtype=np.dtype("uint8"))
    check_aligned(BoundingBox((1, 2, 3), (4, 5, 6)), spec)


def test_an_empty_box_reads_as_an_empty_array_and_is_written_without_effect() -> None:
    spec = VolumeSpec(box=BoundingBox((0, 0, 0), (4, 4, 4)), dtype=np.dtype("uint8"), channels=2)
    store = ArrayStore(np.ones(spec.shape, np.uint8), spec)
    nothing = BoundingBox((1, 1, 1), (1, 3, 3))
    assert store.read(nothing).shape == (2, 0, 2, 2)
    store.write(nothing, np.zeros((2, 0, 2, 2), np.uint8))
    assert store.array.all()


def test_secrets_in_a_url_are_not_shown() -> None:
    spec = VolumeSpec(box=BoundingBox((0, 0, 0), (4, 4, 4)), dtype=np.dtype("uint8"), chunk=(2, 2, 2))
    store = ArrayStore(np.ones(spec.shape, np.uint8), spec)
    store.url = "https://user:secret@host/layer"
    assert "secret" not in repr(store)
    for box in (spec.box.grow(1), BoundingBox((0, 0, 0), (1, 1, 1))):
        with pytest.raises(GeometryError) as caught:
            store.write(box, np.ones(box.shape, np.uint8))
        assert "secret" not in str(caught.value)
    with pytest.raises(BoundsError) as caught_reading:
        store.read(spec.box.grow(1))
    assert "secret" not in str(caught_reading.value)


@pytest.mark.parametrize(
    ("mip", "levels", "error", "said"),
    [
        (-1, 3, ParameterError, "at least 0"),
        (1, 1, StoreNotFoundError, "only mip 0"),
        (3, 3, StoreNotFoundError, "mips 0 to 2"),
        (0, 0, StoreNotFoundError, "no mip"),
    ],
)
def test_a_mip_that_is_not_there_is_refused(mip: int, levels: int, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        check_mip(mip, levels, "url")


@pytest.mark.parametrize(
    ("dtype", "allowed", "cast"),
    [
        ("bool", ["uint8", "float32"], "uint8"),
        ("float64", ["uint8", "float32"], "float32"),
        ("float16", ["uint8", "float32"], "float32"),
        ("int64", ["uint8", "int32", "uint64"], "uint64"),
        ("uint64", ["uint8"], "uint8"),
        ("complex64", ["uint8", "float32"], "uint8"),
    ],
)
def test_a_dtype_that_does_not_fit_is_refused_with_a_cast_that_does(dtype: str, allowed: list[str], cast: str) -> None:
    with pytest.raises(ParameterError, match=rf"cannot hold {dtype}; cast with astype\('{cast}'\)"):
        refuse_cast(np.dtype(dtype), allowed, "the format")
    refuse_cast(np.dtype(allowed[0]), allowed, "the format")


def test_a_mismatch_shows_every_difference_and_nothing_else() -> None:
    stored = {"same": 1, "other": [1, 2], "absent from what is wanted": 3}
    refuse_mismatch("place", stored, {"same": 1})
    with pytest.raises(MetadataMismatchError) as caught:
        refuse_mismatch("place", stored, {"same": 1, "other": [1, 3], "new": "x"})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("place exists and differs")
    assert lines[1:] == ["  other: stored [1, 2], wanted [1, 3]", "  new: stored None, wanted 'x'"]


@pytest.mark.parametrize("chunk", [(1, 2), "abc", (1.5, 1, 1)])
def test_a_layout_takes_three_integers(chunk: object) -> None:
    with pytest.raises(GeometryError, match="chunk"):
        Layout(chunk=chunk)


def test_one_number_stands_for_all_axes_of_a_layout() -> None:
    assert Layout(chunk=64, shard=256) == Layout(chunk=(64, 64, 64), shard=(256, 256, 256))


@pytest.mark.parametrize("value", [0, 9])
@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("plain", {}),
        ("gzip", {"compression": "gzip"}),
        ("shards", {"shard": (8, 16, 16)}),
        ("a.zarr", {}),
        ("b.zarr", {"shard": (8, 16, 16)}),
    ],
)
def test_chunks_that_hold_nothing_but_one_value_are_dropped_and_deleted(tmp_path, name, layout, value):
    box = BoundingBox((-8, 0, 8), (8, 16, 40))
    spec = VolumeSpec(box, np.dtype(np.uint8), layer_type="image")
    store = create_store(tmp_path / name, spec, layout=Layout(chunk=(8, 8, 8), **layout))
    array = np.full(spec.shape, 5, np.uint8)
    store.write(box, array)
    array[8:] = value
    array[8:, :8, :8] = 9 - value
    array[0, 0, 0] = value
    store.write(box, array, drop=value)
    with pytest.raises(MissingChunkError):
        open_store(tmp_path / name).read(box)
    filled = open_store(tmp_path / name, fill_missing=True).read(box)
    dropped = array.copy()
    dropped[8:][array[8:] == value] = 0
    np.testing.assert_array_equal(filled, dropped)
    store.note_background(value)
    np.testing.assert_array_equal(open_store(tmp_path / name).read(box), array)


def test_a_file_drops_no_chunk(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 4, 4), np.uint8))
    store = open_store(tmp_path / "a.npy")
    with pytest.raises(ParameterError, match="keeps every chunk"):
        store.write(store.spec.box, np.zeros((4, 4, 4), np.uint8), drop=0)
