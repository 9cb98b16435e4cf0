import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.operators.segmentation.connected_components.blocks import label_block, later_neighbours, touching_pairs


@pytest.mark.parametrize(("connectivity", "count"), [(6, 3), (18, 9), (26, 13)])
def test_each_pair_of_neighbours_is_looked_at_once(connectivity, count):
    steps = list(later_neighbours(connectivity))

    assert len(steps) == len(set(steps)) == count
    assert not {(-z, -y, -x) for z, y, x in steps} & set(steps)


@given(
    st.sampled_from([6, 18, 26]),
    st.tuples(*[st.integers(1, 4)] * 3),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_pairs_join_the_components_that_the_whole_has(connectivity, block, values, mask, seed):
    """Two blocks' components touch across a seam exactly when some pair of their voxels does."""
    shape = tuple(2 * b for b in block)
    voxels = np.random.default_rng(seed).integers(0, values + 1, shape).astype(np.uint8)
    voxels = voxels > 0 if mask else voxels
    box = BoundingBox.from_size((5, -3, 0), shape)
    grid = BlockGrid(box, block)
    labelled = [label_block(voxels[b.slices(box)], b, box, connectivity) for b in grid]
    numbered = np.zeros(shape, np.int64)
    for index, (labels, _) in enumerate(labelled):
        numbered[grid[index].slices(box)] = np.where(labels, labels + index * 1000, 0)

    found = set()
    for index in range(len(grid)):
        for step in later_neighbours(connectivity):
            place = tuple(p + s for p, s in zip(grid.position(index), step, strict=True))
            if all(0 <= p < n for p, n in zip(place, grid.shape, strict=True)):
                other = grid.index(place)
                pairs = touching_pairs(labelled[index][1], labelled[other][1], step, connectivity)
                found |= {(int(a) + index * 1000, int(b) + other * 1000) for a, b in pairs}

    joined = dict.fromkeys(np.unique(numbered[numbered > 0]).tolist())
    joined = {part: part for part in joined}
    for a, b in found:
        old, new = joined[b], joined[a]
        joined = {part: new if group == old else group for part, group in joined.items()}
    mapped = np.zeros(shape, np.int64)
    for part, group in joined.items():
        mapped[numbered == part] = group
    reference = cc3d.connected_components(voxels.astype(np.uint8), connectivity=connectivity)
    assert len(set(zip(mapped.ravel(), reference.ravel(), strict=True))) == len(np.unique(reference))
    assert len(np.unique(mapped)) == len(np.unique(reference))


def test_slanting_neighbours_join_by_edge_and_corner_only_where_asked():
    for step, least in (((1, 0, 0), 6), ((1, 1, 0), 18), ((1, -1, 1), 26)):
        shape = (3, 3, 3)
        whole = BoundingBox((-3, -3, -3), (6, 6, 6))
        a, b = np.zeros(shape, bool), np.zeros(shape, bool)
        a[tuple(1 if s == 0 else (2 if s > 0 else 0) for s in step)] = True
        b[tuple(1 if s == 0 else (0 if s > 0 else 2) for s in step)] = True
        for connectivity in (6, 18, 26):
            first = label_block(a, BoundingBox((0, 0, 0), (3, 3, 3)), whole, connectivity)[1]
            start = tuple(3 * s for s in step)
            second = label_block(b, BoundingBox.from_size(start, shape), whole, connectivity)[1]
            touching = step in later_neighbours(connectivity) and len(touching_pairs(first, second, step, connectivity))
            assert bool(touching) == (connectivity >= least), (step, connectivity)


def test_pairs_are_distinct():
    shape = (2, 8, 8)
    whole = BoundingBox((0, 0, 0), (4, 8, 8))
    parts = [label_block(np.ones(shape, bool), BoundingBox.from_size((z, 0, 0), shape), whole, 26)[1] for z in (0, 2)]

    assert touching_pairs(*parts, (1, 0, 0), 26).tolist() == [[1, 1]]


def test_every_later_neighbour_comes_later_in_the_grid():
    grid = BlockGrid(BoundingBox((0, 0, 0), (3, 3, 3)), (1, 1, 1))
    middle = (1, 1, 1)
    later = {grid.index(tuple(m + s for m, s in zip(middle, step, strict=True))) for step in later_neighbours(26)}

    assert later == {i for i in range(27) if i > grid.index(middle)}
