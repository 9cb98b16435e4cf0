from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import CorruptChunkError, GeometryError, ParameterError, StoreAccessError, UnknownFormatError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.base import Layout
from daskflow.stores.opening import open_store, write_file
from daskflow.testing.stores import boxes_in, triples, voxels


@given(
    data=st.data(),
    size=triples(1, 9),
    start=triples(-9, 9),
    channels=st.sampled_from((None, 1, 3)),
    dtype=st.sampled_from(("uint8", "bool", "float16", ">u4", "float64")),
)
def test_what_is_written_is_read_box_by_box(tmp_path_factory, data, size, start, channels, dtype):
    spec = VolumeSpec(BoundingBox.from_size(start, size), np.dtype(dtype), channels=channels)
    array = voxels(spec)
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    write_file(path, spec, lambda box: array[(..., *box.slices(spec.box))])
    axes = None if channels is None else "czyx"
    store = open_store(path, voxel_offset=start, voxel_size=(40, 4, 4), axes=axes)
    assert store.spec == spec.replace(voxel_size=(40, 4, 4), dtype=np.dtype(dtype).newbyteorder("="))
    np.testing.assert_array_equal(np.load(path), array)
    box = data.draw(boxes_in(spec.box))
    found = store.read(box)
    np.testing.assert_array_equal(found, array[(..., *box.slices(spec.box))])
    assert found.flags.c_contiguous
    assert found.flags.writeable


def test_slabs_of_several_channels_end_up_in_their_place(tmp_path):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (200, 2, 3)), np.dtype("uint16"), channels=2)
    array = np.arange(2400, dtype="uint16").reshape(spec.shape)
    asked = []

    def read(box):
        asked.append(box)
        return array[(..., *box.slices(spec.box))]

    write_file(tmp_path / "a.npy", spec, read)
    assert len(asked) > 1
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)


def test_an_array_in_fortran_order_is_read(tmp_path):
    array = np.asfortranarray(np.arange(60, dtype="int32").reshape(3, 4, 5))
    np.save(tmp_path / "a.npy", array)
    store = open_store(tmp_path / "a.npy")
    np.testing.assert_array_equal(store.read(store.spec.box), array)


def test_axes_that_the_caller_names_are_read_as_czyx(tmp_path):
    array = np.arange(120, dtype="int32").reshape(3, 4, 5, 2)
    np.save(tmp_path / "a.npy", array)
    store = open_store(tmp_path / "a.npy", axes="zyxc")
    assert (store.spec.shape, store.sources["axes"]) == ((2, 3, 4, 5), "option --axes")
    box = BoundingBox((1, 0, 2), (3, 2, 5))
    np.testing.assert_array_equal(store.read(box), np.moveaxis(array, -1, 0)[:, 1:3, :2, 2:])
    other = open_store(tmp_path / "a.npy", axes="tzyx", time=1)
    np.testing.assert_array_equal(other.read(other.spec.box), array[1])
    assert other.fingerprint() != open_store(tmp_path / "a.npy", axes="tzyx", time=2).fingerprint()


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 4, 5, 3)])
def test_four_axes_that_nobody_names_are_refused_with_the_option_that_does(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.ones(shape))
    with pytest.raises(GeometryError, match="--axes zyxc"):
        open_store(tmp_path / "a.npy")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 3, 3)))
    spec = VolumeSpec(BoundingBox((0, 0, 0), (200, 2, 3)), np.dtype("uint16"))

    def read(box):
        if box.start[0]:
            raise RuntimeError("lost")
        return np.zeros(box.shape, "uint16")

    with pytest.raises(RuntimeError, match="lost"):
        write_file(tmp_path / "a.npy", spec, read)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert np.load(tmp_path / "a.npy").shape == (3, 3, 3)


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 2, 2), {"a": 1}, object), allow_pickle=True)
    with pytest.raises(UnknownFormatError, match="objects"):
        open_store(tmp_path / "a.npy")


@pytest.mark.parametrize("array", [np.full((2, 2, 2), "text"), np.zeros((2, 2, 2), np.longdouble)])
def test_other_dtypes_than_numbers_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UnknownFormatError, match="not a voxel type"):
        open_store(tmp_path / "a.npy")


@pytest.mark.parametrize("kept", [9, 100, 150])
def test_a_truncated_file_is_refused_by_name(tmp_path, kept):
    np.save(tmp_path / "a.npy", np.ones((3, 4, 5), "uint8"))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:kept])
    with pytest.raises(CorruptChunkError, match=r"a\.npy"):
        open_store(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(4,), (4, 4), (1, 1, 2, 2, 2)])
def test_other_numbers_of_axes_are_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.ones(shape))
    with pytest.raises(GeometryError, match=f"{len(shape)} axes"):
        open_store(tmp_path / "a.npy")


def test_a_file_that_changed_is_noticed_by_the_fingerprint_and_by_reading(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 4, 5)))
    store = open_store(tmp_path / "a.npy")
    before = store.fingerprint()
    assert before == store.fingerprint()
    np.save(tmp_path / "a.npy", np.ones((3, 4, 6)))
    assert store.fingerprint() != before
    with pytest.raises(CorruptChunkError, match="now has shape"):
        store.read(store.spec.box)


def test_what_the_format_has_not_is_refused(tmp_path):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (2, 2, 2)), np.dtype("uint8"))
    with pytest.raises(ParameterError, match="not compressed"):
        write_file(tmp_path / "a.npy", spec, voxels, layout=Layout(compression="gzip"))
    with pytest.raises(ParameterError, match="nothing to write"):
        write_file(tmp_path / "a.npy", spec.replace(box=BoundingBox((0, 0, 0), (0, 2, 2)), chunk_origin=None), voxels)
    with pytest.raises(StoreAccessError, match="local disk"):
        write_file("s3://bucket/a.npy", spec, voxels)
    np.save(tmp_path / "a.npy", voxels(spec))
    with pytest.raises(ParameterError, match="dataset"):
        open_store(tmp_path / "a.npy", dataset="main")
    with pytest.raises(StoreAccessError, match="written whole"):
        open_store(tmp_path / "a.npy").write(spec.box, voxels(spec))
