import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from daskflow.geometry import BoundingBox
from daskflow.operators.segmentation.connected_components.blocks import join, join_boxes, within

NONE = np.empty(0, np.int64)


@st.composite
def parts(draw):
    """First voxels in any order, and pairs that are one."""
    count = draw(st.integers(1, 30))
    ends = st.integers(0, count - 1)
    pairs = draw(st.lists(st.tuples(ends, ends), max_size=30))
    return np.array(draw(st.permutations(range(0, 7 * count, 7)))), np.array(pairs, np.int64).reshape(-1, 2)


def joined_by_hand(count, pairs):
    groups = {part: frozenset([part]) for part in range(count)}
    for a, b in pairs.tolist():
        joined = groups[a] | groups[b]
        groups |= dict.fromkeys(joined, joined)
    return groups


@given(parts(), st.integers(0, 4), st.data())
def test_parts_come_as_their_first_voxels_do_and_those_that_stay_inside_are_whole(drawn, dust, data):
    firsts, pairs = drawn
    bits = st.lists(st.booleans(), min_size=len(firsts), max_size=len(firsts))
    border = np.array(data.draw(bits))
    groups = joined_by_hand(len(firsts), pairs)
    begins = [min(int(firsts[one]) for one in groups[part]) for part in range(len(firsts))]
    order = sorted(set(begins))
    sizes = np.ones(len(firsts), np.int64)
    members = {begin: [part for part, other in enumerate(begins) if other == begin] for begin in order}
    is_open = {begin: any(border[part] for part in members[begin]) for begin in order}

    found = join(firsts, pairs, sizes, border, (NONE, NONE), dust)

    assert found.parts["part_of"].tolist() == [order.index(begin) for begin in begins]
    assert found.parts["open"].tolist() == [is_open[begin] for begin in order]
    assert found.whole.tolist() == [one for one in order if not is_open[one] and len(members[one]) >= dust]
    assert found.open["firsts"].tolist() == [begin for begin in order if is_open[begin]]
    if dust:
        assert found.open["sizes"].tolist() == [len(members[begin]) for begin in order if is_open[begin]]
    named = [(int(f), b) for f, b, at_border in zip(firsts, begins, border, strict=True) if at_border and f != b]
    assert sorted(map(tuple, found.open["pairs"].tolist())) == sorted(named)


def test_nothing_has_no_parts():
    found = join(NONE, np.empty((0, 2), np.int64), NONE, np.empty(0, bool), (NONE, NONE), 5)

    assert not any(len(array) for array in (*found.parts.values(), *found.open.values(), found.whole))


def test_a_box_knows_what_touches_it_from_outside_by_the_name_it_has_there():
    """Two boxes of one block of 2 voxels each, along x, of a row of eight; the component goes on through all four."""
    whole, block = BoundingBox((0, 0, 0), (1, 1, 8)), (1, 1, 2)
    pairs = [np.array([[x, x + 2]]) for x in (0, 2, 4)] + [np.empty((0, 2), np.int64)]
    handed = [{"firsts": np.array([2 * n]), "sizes": np.array([2]), "pairs": pairs[n]} for n in range(4)]

    low, high = (
        join_boxes(handed[n : n + 2], BoundingBox((0, 0, 2 * n), (1, 1, 2 * n + 4)), whole, block, 1) for n in (0, 2)
    )
    assert (low.open["pairs"].tolist(), high.open["pairs"].tolist()) == ([[2, 0], [0, 4]], [])
    joined = join_boxes([low.open, high.open], whole, whole, block, 8)

    assert joined.whole.tolist() == [0]
    assert joined.parts["names"].tolist() == [0, 2, 4]


def test_voxels_within_corners():
    whole = BoundingBox((-1, 2, 3), (2, 5, 7))
    box = BoundingBox((0, 2, 4), (2, 4, 6))
    expected = np.zeros(whole.shape, bool)
    expected[box.slices(whole)] = True

    assert np.array_equal(within(np.arange(whole.size), box.start, box.stop, whole), expected.ravel())
