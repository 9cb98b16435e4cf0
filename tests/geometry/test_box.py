import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import BoundsError, GeometryError
from daskflow.geometry import BoundingBox, as_zyx

triples = st.tuples(*[st.integers(-50, 50)] * 3)
sizes = st.tuples(*[st.integers(0, 30)] * 3)
factors = st.tuples(*[st.integers(1, 7)] * 3)
boxes = st.builds(BoundingBox.from_size, triples, sizes)


@given(boxes)
def test_string_names_the_box_both_ways(box):
    assert BoundingBox.from_string(str(box)) == box
    assert BoundingBox.from_string(f"some/dir/affinity_{box}.h5") == box


def test_string_of_negative_coordinates():
    assert str(BoundingBox((-1, 0, 5), (3, 4, 9))) == "-1-3_0-4_5-9"
    assert BoundingBox.from_string("x_-1-3_0-4_5-9.h5") == BoundingBox((-1, 0, 5), (3, 4, 9))


@pytest.mark.parametrize("text", ["", "1-2_3-4", "a-b_c-d_e-f", "0-1_0-1_0-1.exe"])
def test_string_that_names_no_box_is_refused(text):
    with pytest.raises(GeometryError, match="z0-z1_y0-y1_x0-x1"):
        BoundingBox.from_string(text)


@given(boxes, boxes)
def test_clip_and_union_agree_with_sets_of_voxels(a, b):
    def voxels(box):
        return (
            {(z, y, x) for z, y, x in np.argwhere(np.ones(box.shape)) + np.array(box.start)} if box.size < 400 else None
        )

    if voxels(a) is not None and voxels(b) is not None:
        shared = {tuple(v) for v in voxels(a)} & {tuple(v) for v in voxels(b)}
        assert a.clip(b).size == len(shared)
    assert a in a.union(b)
    assert b in a.union(b)
    assert a.clip(b) in b


@given(boxes, factors)
def test_coarsened_box_covers_and_refining_it_back_is_tight(box, factor):
    coarse = box.coarsen(factor)
    fine = coarse.refine(factor)
    assert box in fine
    assert all(f.bit_length() for f in factor)
    slack_low = np.subtract(box.start, fine.start)
    slack_high = np.subtract(fine.stop, box.stop)
    assert (slack_low < factor).all()
    assert (slack_high < factor).all()
    assert coarse.refine(factor).coarsen(factor) == coarse


@given(boxes, factors, triples)
def test_aligned_box_begins_and_ends_on_the_lattice(box, unit, origin):
    aligned = box.align(unit, origin)
    assert box in aligned
    assert not (np.subtract(aligned.start, origin) % unit).any()
    assert not (np.subtract(aligned.stop, origin) % unit).any()


@given(boxes, sizes)
def test_growing_then_shrinking_gives_the_box_back(box, margin):
    assert box.grow(margin).shrink(margin) == box
    assert box.grow(margin, 0).shape == tuple(np.add(box.shape, margin))


@given(boxes, triples)
def test_shift_keeps_the_shape(box, offset):
    assert box.shift(offset).shape == box.shape
    assert box.shift(offset).shift([-o for o in offset]) == box


@given(boxes, boxes)
def test_slices_cut_the_box_out_of_an_array(inner, outer):
    if inner in outer:
        index = np.moveaxis(np.indices(outer.shape), 0, -1) + np.array(outer.start)
        cut = index[inner.slices(outer)]
        assert cut.shape[:3] == inner.shape
        if inner.size:
            assert tuple(cut[0, 0, 0]) == inner.start
    else:
        with pytest.raises(BoundsError, match="not inside"):
            inner.slices(outer)


def test_inverted_box_is_refused_and_an_empty_one_is_a_value():
    with pytest.raises(GeometryError, match="inverted"):
        BoundingBox((0, 0, 5), (1, 1, 4))
    assert BoundingBox((0, 0, 0), (0, 5, 5)).empty


@pytest.mark.parametrize("value", [(1, 2), (1, 2, 3, 4), (1.5, 2, 3), "abc", (None, 1, 2)])
def test_what_is_no_zyx_is_refused_with_its_name(value):
    with pytest.raises(GeometryError, match="block"):
        as_zyx(value, name="block")


def test_one_integer_stands_for_three_and_numpy_integers_are_integers():
    assert as_zyx(4) == as_zyx((4,)) == (4, 4, 4)
    assert as_zyx(np.array([1, 2, 3])) == (1, 2, 3)
    assert as_zyx((np.int64(1), np.uint8(2), 3)) == (1, 2, 3)


def test_margin_that_leaves_nothing_is_refused():
    with pytest.raises(GeometryError, match="inverted"):
        BoundingBox((0, 0, 0), (4, 4, 4)).shrink(3)
