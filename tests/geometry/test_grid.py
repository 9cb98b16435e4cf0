import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import GeometryError
from daskflow.geometry import BlockGrid, BoundingBox

grids = st.builds(
    BlockGrid,
    st.builds(BoundingBox.from_size, st.tuples(*[st.integers(-20, 20)] * 3), st.tuples(*[st.integers(0, 15)] * 3)),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.none() | st.tuples(*[st.integers(-30, 30)] * 3),
)


@given(grids)
def test_blocks_tile_the_box_without_overlap(grid):
    seen = np.zeros(grid.box.shape, int)
    for block in grid:
        assert not block.empty
        seen[block.slices(grid.box)] += 1
    assert (seen == 1).all()
    assert len(grid) == len(list(grid))


@given(grids)
def test_position_and_index_are_inverse_and_x_runs_fastest(grid):
    positions = [grid.position(index) for index in range(len(grid))]
    assert [grid.index(position) for position in positions] == list(range(len(grid)))
    assert positions == sorted(positions)


@given(grids, st.tuples(*[st.integers(-20, 20)] * 3), st.tuples(*[st.integers(0, 15)] * 3))
def test_touching_finds_the_blocks_that_share_a_voxel(grid, start, size):
    box = BoundingBox.from_size(start, size)
    expected = [
        index for index in range(len(grid)) if not grid[index].clip(box).empty and not box.clip(grid[index]).empty
    ]
    assert list(grid.touching(box)) == expected


@given(grids)
def test_chunks_are_the_sizes_of_the_blocks(grid):
    if not grid.box.empty:
        for index in range(len(grid)):
            z, y, x = grid.position(index)
            assert grid[index].shape == (grid.chunks[0][z], grid.chunks[1][y], grid.chunks[2][x])
    assert tuple(map(sum, grid.chunks)) == grid.box.shape


@given(grids)
def test_blocks_lie_on_the_lattice_of_the_origin(grid):
    for block in grid:
        for low, first, origin, size in zip(block.start, grid.box.start, grid.origin, grid.block, strict=True):
            assert low == first or (low - origin) % size == 0


def test_ten_million_blocks_cost_nothing():
    grid = BlockGrid(BoundingBox((0, 0, 0), (216 * 64, 216 * 64, 216 * 64)), (64, 64, 64))
    began = time.process_time()
    assert len(grid) == 216**3 > 10**7
    assert grid[len(grid) - 1].stop == (13824, 13824, 13824)
    assert grid.index(grid.position(7_654_321)) == 7_654_321
    assert time.process_time() - began < 2  # one by one they take longer


def test_block_without_extent_is_refused():
    with pytest.raises(GeometryError, match="at least 1"):
        BlockGrid(BoundingBox((0, 0, 0), (4, 4, 4)), (0, 4, 4))


def test_index_outside_the_grid_is_refused():
    grid = BlockGrid(BoundingBox((0, 0, 0), (4, 4, 4)), (2, 2, 2))
    with pytest.raises(IndexError):
        grid[8]
    with pytest.raises(IndexError):
        grid.index((0, 2, 0))
