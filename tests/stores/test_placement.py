from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daskflow.stores.placement import is_whole, whole_voxels


@given(offset=st.integers(-(10**9), 10**9), size=st.floats(0.01, 1e5))
def test_a_physical_position_of_a_whole_voxel_is_that_voxel(offset, size):
    position = offset * size / size
    assert is_whole(position)
    assert whole_voxels((position, 0.0, 0.0), "here") == (offset, 0, 0)


def test_half_a_voxel_goes_up():
    assert whole_voxels((0.5, -0.5, 1.4), "here") == (1, 0, 1)
