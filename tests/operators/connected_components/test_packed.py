import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from daskflow.errors import CorruptChunkError
from daskflow.operators.segmentation.connected_components import scratch
from daskflow.scratch.records import read_record, record_url, write_record
from daskflow.stores import kvstore

ARRAYS = npst.arrays(
    st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64, np.int64, np.bool_]),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9),
)


@given(ARRAYS)
def test_an_array_comes_back_as_it_was(array):
    back = scratch.unpack(scratch.pack(array), array.shape, array.dtype)

    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def test_an_array_of_many_pieces_comes_back(monkeypatch):
    monkeypatch.setattr(scratch, "_PIECE", 100)
    array = np.arange(60, dtype=np.uint32).reshape(3, 4, 5)

    assert np.array_equal(scratch.unpack(scratch.pack(array), array.shape, array.dtype), array)


def test_damage_is_an_error_that_names_the_place(tmp_path):
    write_record(str(tmp_path), "labels", 3, {"int64": scratch.pack(np.arange(1000))})
    url = record_url(str(tmp_path), "labels", 3)
    data = kvstore.read_bytes(url)
    flipped = bytearray(data)
    flipped[-5] ^= 1

    for damaged in (data[:-1], data[:10], b"", bytes(flipped)):
        kvstore.write_bytes(url, damaged)
        with pytest.raises(CorruptChunkError, match="labels/0/3"):
            read_record(str(tmp_path), "labels", 3)
