import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from daskflow.errors import ParameterError
from daskflow.operators.stores.downsample.levels import memory_for, shape_within

GB35 = 3_500_000_000


@pytest.mark.parametrize(
    ("voxel_bytes", "chunk", "factor", "expected"),
    [
        (1, (64, 64, 64), (1, 2, 2), (64, 2048, 2048)),
        (8, (64, 128, 128), (1, 2, 2), (64, 2048, 2048)),
        (1, (64, 128, 128), (2, 2, 2), (512, 2048, 2048)),
        (8, (64, 64, 64), (2, 2, 2), (512, 512, 512)),
        (1, (1, 1024, 1024), (1, 2, 2), (1, 32768, 32768)),
        (1, (64, 128, 128), (1, 1, 1), (64, 7296, 7296)),
    ],
)
def test_shapes_are_those_that_igneous_chooses(voxel_bytes, chunk, factor, expected):
    assert shape_within(GB35, chunk, voxel_bytes, factor) == expected


CHUNKS = st.tuples(*[st.sampled_from([1, 8, 32, 64, 128, 1024])] * 3)
FACTORS = st.sampled_from([(1, 2, 2), (2, 2, 2), (1, 1, 1), (1, 3, 3)])


@given(st.integers(1, 10**10), CHUNKS, st.sampled_from([1, 2, 4, 8]), FACTORS, st.integers(0, 8))
def test_shapes_are_whole_chunks_within_the_memory(memory, chunk, voxel_bytes, factor, levels):
    try:
        shape = shape_within(memory, chunk, voxel_bytes, factor, levels=levels)
    except ParameterError:
        assume(False)
    assert all(s % c == 0 for s, c in zip(shape, chunk, strict=True))
    assert memory_for(shape, voxel_bytes, factor) <= memory * 1.001 + 8
    if factor != (1, 1, 1):
        assert all(s <= c * f**levels for s, c, f in zip(shape, chunk, factor, strict=True))


@pytest.mark.parametrize(("factor", "part"), [((1, 2, 2), 4 / 3), ((2, 2, 2), 8 / 7), ((1, 1, 1), 1)])
def test_levels_add_their_part(factor, part):
    assert memory_for((64, 512, 512), 8, factor) == math.ceil(64 * 512 * 512 * 8 * part)


def test_too_little_memory_is_refused_with_what_a_chunk_takes():
    with pytest.raises(ParameterError, match="349,526"):
        shape_within(1000, (64, 64, 64), 1, (1, 2, 2))
    with pytest.raises(ParameterError, match="at least 1"):
        memory_for((0, 1, 1), 1, (1, 2, 2))
