from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.operators.segmentation.evaluate_segmentation.scores import PAIRS, by_segment, by_truth, overlaps
from daskflow.scratch.tables import merged

SHAPES = npst.array_shapes(min_dims=3, max_dims=3, max_side=7)


def labels(shape):
    """Arrays of ids that fit into half of 64 bits, and of any."""
    small, wide = [0, 1, 2, 2**32 - 1], [0, 1, 2**32, 2**64 - 1]
    return st.one_of(npst.arrays(np.uint64, shape, elements=st.sampled_from(names)) for names in (small, wide))


def entries(rows):
    segments, truths, counts = (rows[name].tolist() for name in PAIRS)
    return dict(zip(zip(segments, truths, strict=True), counts, strict=True))


@given(st.data(), SHAPES)
def test_the_table_counts_the_voxels_of_each_pair(data, shape):
    segmentation, truth = data.draw(labels(shape)), data.draw(labels(shape))

    table = overlaps(segmentation, truth)

    assert entries(table) == Counter(zip(segmentation.ravel().tolist(), truth.ravel().tolist(), strict=True))
    assert list(entries(table)) == sorted(entries(table))


@given(st.data(), SHAPES, st.tuples(*[st.integers(1, 5)] * 3))
def test_tables_of_blocks_add_up_to_that_of_the_whole(data, shape, block):
    segmentation, truth = data.draw(labels(shape)), data.draw(labels(shape))
    box = BoundingBox.from_size((0, 0, 0), shape)
    parts = [overlaps(segmentation[b.slices(box)], truth[b.slices(box)]) for b in BlockGrid(box, block)]

    assert entries(merged(PAIRS, parts)) == entries(overlaps(segmentation, truth))


@given(st.data(), SHAPES)
def test_sizes_are_voxels_per_segment(data, shape):
    segmentation, truth = data.draw(labels(shape)), data.draw(labels(shape))

    table = overlaps(segmentation, truth)

    assert by_segment(table)["voxels"].tolist() == np.unique(segmentation, return_counts=True)[1].tolist()
    assert by_truth(table)["voxels"].tolist() == np.unique(truth, return_counts=True)[1].tolist()


def test_foreground_is_what_is_zero_in_neither():
    rows = overlaps(np.array([0, 0, 1, 1, 2, 2]), np.array([0, 3, 0, 3, 4, 4]))

    for by, ids in ((by_segment, [0, 1, 2]), (by_truth, [0, 3, 4])):
        found = by(rows)
        assert found["ids"].tolist() == ids
        assert found["foreground"].tolist() == found["largest"].tolist() == [0, 1, 2]
