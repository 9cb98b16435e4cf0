"""Blocks traced by kimimaro, and joined again: one component for each object, wherever blocks cut it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.operators.objects.skeletonize.pieces import components, join_pieces, without_shared_sheets
from daskflow.operators.objects.skeletonize.teasar import Tracing, trace_labels

pytest.importorskip("kimimaro")

TRACING = Tracing((10.0, 10.0, 10.0))


def cutout_of(array, block=None):
    whole = BoundingBox((0, 0, 0), array.shape)
    block = whole if block is None else block
    box = block.grow(0, 1).clip(whole)
    return array[box.slices(whole)], block.start


def traced(array, labels=None, tracing=TRACING, **how):
    labels = np.unique(array[array > 0]) if labels is None else labels
    return dict(trace_labels(*cutout_of(array, **how), np.array(labels, np.uint64), tracing))


def traced_by_blocks(array, shape, tracing=TRACING):
    whole = BoundingBox((0, 0, 0), array.shape)
    parts = {}
    for block in BlockGrid(whole, shape):
        voxels, first = cutout_of(array, block)
        labels = np.unique(voxels[voxels > 0]).astype(np.uint64)
        for label, piece in trace_labels(voxels, first, labels, tracing):
            parts.setdefault(label, []).append(without_shared_sheets(piece, block, whole))
    return {label: join_pieces(pieces) for label, pieces in parts.items()}


@st.composite
def objects(draw):
    """Connected walks, blobs and noise, and what cuts them into blocks."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = tuple(draw(st.integers(1, 22)) for _ in range(3))
    kind = draw(st.sampled_from(["walk", "blobs", "noise", "touching"]))
    if kind == "walk":
        steps = np.cumsum(random.integers(-1, 2, (100, 3)), axis=0) + np.array(size) // 2
        array = np.zeros(size, np.uint8)
        array[tuple(np.clip(steps, 0, np.array(size) - 1).T)] = 1
    elif kind == "noise":
        array = (random.random(size) < 0.12).astype(np.uint8)
    else:
        smooth = ndimage.gaussian_filter(random.random(size), 1.5)
        array = (smooth > 0.51).astype(np.uint8) + (kind == "touching")
    return array, tuple(draw(st.integers(2, 12)) for _ in range(3))


@settings(max_examples=25, deadline=None)
@given(objects(), st.sampled_from([(10.0, 10.0, 10.0), (40.0, 8.0, 5.0)]))
def test_every_connected_object_has_one_component_for_any_blocks(case, voxel_size):
    array, shape = case
    found = traced_by_blocks(array, shape, Tracing(voxel_size))
    assert set(found) == set(np.unique(array[array > 0]).tolist())
    for label, piece in found.items():
        parts, count = ndimage.label(array == label, np.ones((3, 3, 3)))
        inside = parts[tuple(piece.vertices.T[::-1])]
        assert (inside > 0).all()
        pairs = set(zip(components(len(piece.vertices), piece.edges).tolist(), inside.tolist(), strict=True))
        skeletons = np.bincount([part for _, part in pairs], minlength=count + 1)[1:]
        voxels = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        assert (skeletons <= 1).all()
        assert (skeletons[voxels > 1] == 1).all()
        assert len({component for component, _ in pairs}) == len(pairs)


def test_labels_traced_together_or_alone_have_the_same_skeletons():
    smooth = ndimage.gaussian_filter(np.random.default_rng(3).random((20, 24, 28)), 2)
    array = np.digitize(smooth, [0.47, 0.5, 0.53]).astype(np.uint64) * np.uint64(2**62)
    together = traced(array)
    assert len(together) == 3
    for label, piece in together.items():
        (alone,) = traced(array, [label]).values()
        np.testing.assert_array_equal(alone.vertices, piece.vertices)
        np.testing.assert_array_equal(alone.edges, piece.edges)
        np.testing.assert_array_equal(alone.attributes["radius"], piece.attributes["radius"])


def test_a_label_of_one_voxel_has_one_vertex():
    array = np.zeros((4, 5, 6), np.uint64)
    array[1, 2, 3] = 2**64 - 1
    (piece,) = traced(array).values()
    assert piece.vertices.tolist() == [[3, 2, 1]]
    assert len(piece.edges) == 0


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (1, 7, 9), (9, 1, 2), (2, 2, 2)])
def test_a_label_that_fills_a_volume_however_thin_has_a_skeleton(shape):
    (piece,) = traced(np.ones(shape, np.uint8)).values()
    assert len(piece.vertices)
    assert components(len(piece.vertices), piece.edges).max() == 0
    assert (piece.vertices < np.array(shape[::-1])).all()


def test_masks_are_one_label():
    assert set(traced(np.ones((3, 3, 9), bool), [1])) == {1}


def test_labels_that_do_not_occur_are_passed_over():
    assert set(traced(np.full((3, 3, 9), 5, np.uint16), [4, 5, 2**40])) == {5}


def test_vertices_lie_on_the_middle_of_a_bar():
    array = np.zeros((11, 13, 40), np.uint8)
    array[3:8, 4:9, 5:35] = 1
    (piece,) = traced(array).values()
    middle = piece.vertices[(piece.vertices[:, 0] > 10) & (piece.vertices[:, 0] < 30)]
    assert (middle[:, 1] == 6).all()
    assert (middle[:, 2] == 5).all()


def test_holes_are_filled_and_labels_in_them_are_traced_all_the_same():
    array = np.zeros((21, 21, 40), np.uint8)
    array[3:18, 3:18, 5:35] = 7
    array[8:13, 8:13, 10:30] = 0
    array[9:12, 9:12, 12:28] = 3
    hollow, filled = (traced(array, tracing=Tracing((10.0,) * 3, fill_holes=fill)) for fill in (False, True))
    assert set(hollow) == set(filled) == {3, 7}
    np.testing.assert_array_equal(hollow[3].vertices, filled[3].vertices)
    middle = filled[7].vertices[(filled[7].vertices[:, 0] > 15) & (filled[7].vertices[:, 0] < 25)]
    assert (array[tuple(middle.T[::-1])] == 3).all()
    assert (array[tuple(hollow[7].vertices.T[::-1])] == 7).all()


def test_cross_sections_of_a_bar_are_those_of_its_sides():
    array = np.zeros((30, 30, 60), np.uint8)
    array[5:20, 5:20, 5:55] = 1
    (piece,) = traced(array, tracing=Tracing((10.0,) * 3, cross_section=5)).values()
    middle = (piece.vertices[:, 0] > 20) & (piece.vertices[:, 0] < 40)
    np.testing.assert_allclose(piece.attributes["cross_sectional_area"][middle], 150**2, rtol=0.05)


def test_few_paths_are_traced_where_a_limit_is_set():
    random = np.random.default_rng(1)
    array = (ndimage.gaussian_filter(random.random((24, 24, 24)), 1) > 0.5).astype(np.uint8)
    all_paths, few = (traced(array, tracing=Tracing((1.0,) * 3, max_paths=limit))[1] for limit in (None, 3))
    assert 0 < len(few.vertices) < len(all_paths.vertices)


@pytest.mark.parametrize("fix", [False, True])
def test_a_nucleus_becomes_a_part_of_its_soma_where_asked(fix):
    places = np.stack(np.mgrid[:40, :40, :40]) - 20
    distance = np.sqrt((places**2).sum(axis=0))
    array = (distance < 18).astype(np.uint8) + (distance < 10)
    tracing = Tracing((150.0,) * 3, soma_detection=800, soma_acceptance=2000, fix_avocados=fix)
    assert set(traced(array, tracing=tracing)) == ({1} if fix else {1, 2})
