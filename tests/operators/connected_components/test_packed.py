import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from daskflow.errors import CorruptChunkError
from daskflow.operators.segmentation.connected_components import packed

ARRAYS = npst.arrays(
    st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64, np.int64, np.bool_]),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9),
)


@given(st.dictionaries(st.text("ab0", min_size=1), ARRAYS, max_size=3))
def test_arrays_come_back_as_they_were(arrays):
    back = packed.unpack(packed.pack(arrays), "here", most=729)

    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)


def test_an_array_of_many_pieces_comes_back(monkeypatch):
    monkeypatch.setattr(packed, "_PIECE", 100)
    array = np.arange(60, dtype=np.uint32).reshape(3, 4, 5)

    assert np.array_equal(packed.unpack(packed.pack({"a": array}), "here", most=729)["a"], array)


def test_damage_is_an_error_that_names_the_place():
    data = packed.pack({"a": np.arange(1000)})
    flipped = bytearray(data)
    flipped[-5] ^= 1

    head = data.replace(b'"a"', b'"b"', 1)

    for damaged in (data[:-1], data[:10], b"", bytes(flipped), head):
        with pytest.raises(CorruptChunkError, match="file:///there"):
            packed.unpack(damaged, "file:///there", most=1000)


def forged(name, dtype, shape, pieces=()):
    """A record whose header says anything, with the right checksum."""
    head = json.dumps([[name, dtype, shape, list(pieces)]]).encode()
    return struct.pack("<II", len(head), zlib.crc32(head)) + head


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("|O", [4]),
        ("<U8", [4]),
        ("|V8", [4]),
        ("nonsense", [4]),
        ("<u4", [2**40]),
        ("<u4", [11, 10, 10]),
        ("<u4", [-1, -4]),
        ("<u4", [2.5]),
        ("<u4", "four"),
        ("<u4", [4]),
    ],
)
def test_a_header_that_announces_what_was_never_packed_is_damage(dtype, shape):
    with pytest.raises(CorruptChunkError, match="damaged"):
        packed.unpack(forged("a", dtype, shape), "here", most=1000)


def test_a_piece_of_another_size_than_announced_is_damage():
    data = packed.pack({"a": np.arange(100, dtype=np.uint8)})
    (length,) = struct.unpack_from("<I", data)
    piece = data[8 + length :]
    record = forged("a", "|u1", [10], [[len(piece), zlib.crc32(piece)]]) + piece

    with pytest.raises(CorruptChunkError, match="damaged"):
        packed.unpack(record, "here", most=1000)
