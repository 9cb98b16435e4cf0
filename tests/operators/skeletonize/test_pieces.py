"""Pieces as bytes in scratch data."""

import numpy as np
import pytest

from daskflow.errors import CorruptChunkError
from daskflow.operators.objects.skeletonize.pieces import Piece, pack_piece, unpack_piece

NAMES = ("radius", "cross_sectional_area")


def example(count=5):
    random = np.random.default_rng(count)
    edges = np.array([(n - 1, n) for n in range(1, count)], np.uint32).reshape(-1, 2)
    return Piece(
        random.integers(-(2**31), 2**31, (count, 3)).astype(np.int32),
        edges,
        {name: random.random(count).astype(np.float32) for name in NAMES},
    )


@pytest.mark.parametrize("count", [0, 1, 5])
def test_what_is_packed_comes_back(count):
    piece = example(count)
    found = unpack_piece(pack_piece(piece), NAMES, "here")
    np.testing.assert_array_equal(found.vertices, piece.vertices)
    np.testing.assert_array_equal(found.edges, piece.edges)
    assert found.attributes.keys() == piece.attributes.keys()
    for name in NAMES:
        np.testing.assert_array_equal(found.attributes[name], piece.attributes[name])


def test_the_same_piece_gives_the_same_bytes():
    assert pack_piece(example()) == pack_piece(example())


def test_every_damage_is_noticed():
    data = pack_piece(example())
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(CorruptChunkError, match="at here are damaged"):
            unpack_piece(bytes(damaged), NAMES, "here")
    for length in range(len(data)):
        with pytest.raises(CorruptChunkError):
            unpack_piece(data[:length], NAMES, "here")


def test_other_attributes_are_noticed():
    with pytest.raises(CorruptChunkError):
        unpack_piece(pack_piece(example()), ("radius",), "here")
