import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from daskflow.errors import CorruptChunkError
from daskflow.operators.labelling import packing

ARRAYS = npst.arrays(
    st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64, np.int64, np.bool_]),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9),
)


@given(st.dictionaries(st.text("ab0", min_size=1), ARRAYS, max_size=3))
def test_arrays_come_back_as_they_were(arrays):
    back = packing.unpack(packing.pack(arrays), "here")

    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)


def test_an_array_of_many_pieces_comes_back(monkeypatch):
    monkeypatch.setattr(packing, "_PIECE", 100)
    array = np.arange(60, dtype=np.uint32).reshape(3, 4, 5)

    assert np.array_equal(packing.unpack(packing.pack({"a": array}), "here")["a"], array)


def test_damage_is_an_error_that_names_the_place():
    data = packing.pack({"a": np.arange(1000)})
    flipped = bytearray(data)
    flipped[-5] ^= 1

    for damaged in (data[:-1], data[:10], b"", bytes(flipped)):
        with pytest.raises(CorruptChunkError, match="file:///there"):
            packing.unpack(damaged, "file:///there")
