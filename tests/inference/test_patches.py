import itertools
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import BoundsError, ParameterError
from daskflow.geometry import BoundingBox
from daskflow.inference.patches import PatchAxis, PatchGrid


@st.composite
def axes(draw, greatest=40):
    output = draw(st.integers(1, 9))
    return PatchAxis(
        size=draw(st.integers(1, greatest)),
        input=output + draw(st.integers(0, 6)),
        output=output,
        overlap=draw(st.integers(0, output - 1)),
    )


@st.composite
def grids(draw):
    sides = [draw(axes(greatest=22)) for _ in range(3)]
    start = draw(st.tuples(*[st.integers(-20, 20)] * 3))
    box = BoundingBox.from_size(start, [side.size for side in sides])
    return PatchGrid(box, *(tuple(getattr(side, name) for side in sides) for name in ("input", "output", "overlap")))


@st.composite
def boxes_within(draw, box):
    start = [draw(st.integers(a, b - 1)) for a, b in zip(box.start, box.stop, strict=True)]
    stop = [draw(st.integers(a + 1, b)) for a, b in zip(start, box.stop, strict=True)]
    return BoundingBox(tuple(start), tuple(stop))


def outputs(axis):
    return [(axis.output_start(i), axis.output_start(i) + axis.output) for i in range(len(axis))]


@given(axes())
def test_starts_are_chunkflows_where_the_volume_holds_a_patch_and_margins_are_even(axis):
    if axis.size < axis.input or (axis.input - axis.output) % 2:
        return
    input_overlap = 2 * axis.margin + axis.overlap
    expected = [min(s, axis.size - axis.input) for s in range(0, axis.size - input_overlap, axis.stride)]
    assert [axis.start(i) for i in range(len(axis))] == expected


@given(axes())
def test_outputs_cover_without_a_gap_and_inputs_end_with_the_volume(axis):
    covered = {v for a, b in outputs(axis) for v in range(a, b) if 0 <= v < axis.size}
    assert covered == set(range(*axis.covered))
    if axis.size >= axis.input:
        assert axis.start(0) == 0
        assert axis.start(len(axis) - 1) + axis.input == axis.size
        assert axis.covered == (axis.margin, axis.size - (axis.input - axis.output - axis.margin))
    elif axis.size <= axis.output:
        assert axis.covered == (0, axis.size)


@given(axes(), st.data())
def test_touching_patches_are_those_a_search_finds(axis, data):
    low, high = axis.covered
    start = data.draw(st.integers(low, high - 1))
    stop = data.draw(st.integers(start + 1, high))
    assert list(axis.touching(start, stop)) == [i for i, (a, b) in enumerate(outputs(axis)) if a < stop and b > start]


@given(axes())
def test_neighbours_are_those_a_search_finds(axis):
    ranges = outputs(axis)
    for i, (a, b) in enumerate(ranges):
        assert axis.neighbours(i) == tuple(c - a for c, d in ranges if c < b and d > a)


@given(grids(), st.data())
def test_a_box_reads_what_its_patches_see(grid, data):
    box = data.draw(boxes_within(grid.covered))
    patches = list(grid.patches(box))
    reads = patches[0].input
    for patch in patches:
        reads = reads.union(patch.input)
    assert grid.reads(box) == reads.clip(grid.box)
    whole = list(grid.patches(grid.covered))
    assert len(whole) == len(grid)
    assert patches == [p for p in whole if not p.output.clip(box).empty]


def test_patches_are_ordered_x_fastest_and_placed_in_global_voxels():
    grid = PatchGrid(BoundingBox.from_size((100, -8, 5), (6, 8, 8)), (4, 6, 6), (2, 4, 4), (0, 2, 2))
    corners = [patch.input.start for patch in grid.patches(grid.covered)]
    assert corners == list(itertools.product((100, 102), (-8, -6), (5, 7)))
    assert next(grid.patches(grid.covered)).output.start == (101, -7, 6)
    assert grid.covered == BoundingBox((101, -7, 6), (105, -1, 12))


def test_a_patch_reaches_equally_beyond_both_ends_of_a_smaller_volume():
    grid = PatchGrid(BoundingBox((0, 0, 0), (4, 4, 4)), (8, 4, 4), (8, 4, 4), (0, 0, 0))
    (patch,) = grid.patches(grid.box)
    assert patch.input == BoundingBox((-2, 0, 0), (6, 4, 4))
    assert grid.reads(grid.box) == grid.box


def test_ten_million_patches_cost_nothing():
    grid = PatchGrid(BoundingBox((0, 0, 0), (10**6,) * 3), (20, 256, 256), (20, 256, 256), (4, 64, 64))
    box = BoundingBox.from_size((500_000,) * 3, (64, 512, 512))
    tracemalloc.start()
    start = time.process_time()
    assert len(grid) > 10**7
    assert len(list(grid.patches(box))) == 5 * 4 * 4
    assert grid.reads(box).size < 10**8
    assert time.process_time() - start < 5  # one by one they take longer
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("patches", "match"),
    [
        (((4, 4, 4), (4, 4, 5), (0, 0, 0)), r"\(4, 4, 5\)"),
        (((4, 4, 4), (4, 0, 4), (0, 0, 0)), r"\(4, 0, 4\)"),
        (((4, 4, 4), (4, 4, 4), (4, 0, 0)), r"\(4, 0, 0\)"),
        (((4, 4, 4), (4, 4, 4), (-1, 0, 0)), r"\(-1, 0, 0\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_their_values(patches, match):
    with pytest.raises(ParameterError, match=match):
        PatchGrid(BoundingBox((0, 0, 0), (8, 8, 8)), *patches)


def test_an_empty_volume_is_refused():
    with pytest.raises(ParameterError, match="no voxel"):
        PatchGrid(BoundingBox((0, 0, 0), (0, 8, 8)), (4, 4, 4), (4, 4, 4), (0, 0, 0))


def test_a_box_that_no_patch_answers_for_is_refused():
    grid = PatchGrid(BoundingBox((0, 0, 0), (8, 8, 8)), (4, 4, 4), (2, 2, 2), (0, 0, 0))
    with pytest.raises(BoundsError, match="1-7_1-7_1-7"):
        grid.reads(grid.box)
    with pytest.raises(BoundsError, match="1-7_1-7_1-7"):
        list(grid.patches(grid.box))


def test_an_empty_box_reads_nothing():
    grid = PatchGrid(BoundingBox((0, 0, 0), (8, 8, 8)), (4, 4, 4), (4, 4, 4), (0, 0, 0))
    assert grid.reads(BoundingBox((3, 3, 3), (3, 5, 5))).empty
