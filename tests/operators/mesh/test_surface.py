import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.operators.objects.mesh.plan import Frame
from daskflow.operators.objects.mesh.surface import Seen, Surface, filled_labels, select, surfaces

pytest.importorskip("zmesh")

LARGEST = 2**64 - 1
SHAPES = st.tuples(*[st.integers(1, 9)] * 3)
BLOCKS = st.tuples(*[st.integers(1, 10)] * 3)
CORNERS = st.tuples(*[st.integers(-20, 20)] * 3)


def noise(shape, density, seed):
    rng = np.random.default_rng(seed)
    names = np.array([1, 7, LARGEST], np.uint64)
    return np.where(rng.random(shape) < density, names[rng.integers(0, 3, shape)], 0)


LABELS = st.builds(noise, SHAPES, st.floats(0, 1), st.integers(0, 2**32 - 1))


def by_blocks(labels, volume, block, *, closed=True):
    """The surfaces of every block of a volume, by label."""
    found = {}
    for box in BlockGrid(volume, block):
        seen = Seen.of(box, volume, closed=closed)
        inside = labels[seen.read.slices(volume)]
        for label, surface in surfaces(inside, seen.corner(volume.start), seen.around):
            found.setdefault(label, []).append(surface)
    return found


def triangles(surfaces):
    """The triangles of some surfaces by where their corners are, however they are numbered or turned."""
    found = []
    for surface in surfaces:
        for corners in surface.vertices[surface.faces].tolist():
            first = corners.index(min(corners))
            found.append(tuple(map(tuple, corners[first:] + corners[:first])))
    return sorted(found)


def is_closed(faces):
    """Whether every edge is met by as many triangles in one direction as in the other."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    there, back = np.sort(edges[:, 0] << 32 | edges[:, 1]), np.sort(edges[:, 1] << 32 | edges[:, 0])
    return np.array_equal(there, back)


@settings(max_examples=30)
@given(LABELS, BLOCKS, CORNERS)
def test_any_blocks_give_the_triangles_of_the_whole(labels, block, corner):
    volume = BoundingBox.from_size(corner, labels.shape)

    whole = by_blocks(labels, volume, labels.shape)
    parts = by_blocks(labels, volume, block)

    assert parts.keys() == whole.keys() == set(np.unique(labels).tolist()) - {0}
    for label in whole:
        assert triangles(parts[label]) == triangles(whole[label])


@settings(max_examples=20)
@given(LABELS, BLOCKS)
def test_surfaces_of_blocks_are_watertight_together(labels, block):
    volume = BoundingBox((0, 0, 0), labels.shape)

    for pieces in by_blocks(labels, volume, block).values():
        assert is_closed(Surface.joined(pieces).faces)


@settings(max_examples=20)
@given(LABELS, BLOCKS)
def test_no_vertex_at_a_seam_is_missing_on_either_side(labels, block):
    volume = BoundingBox((0, 0, 0), labels.shape)
    pieces = by_blocks(labels, volume, block)

    for label, parts in pieces.items():
        seams = {tuple(v) for part in parts for v in part.vertices.tolist() if at_seam(v, volume, block)}
        there = [{tuple(v) for v in part.vertices.tolist()} for part in parts]
        for vertex in seams:
            assert sum(vertex in part for part in there) >= 2, (label, vertex)


def at_seam(vertex, volume, block):
    planes = [range(2 * b + 1, 2 * n, 2 * b) for b, n in zip(block[::-1], volume.shape[::-1], strict=True)]
    return any(v in plane for v, plane in zip(vertex, planes, strict=True))


def test_one_voxel_is_an_octahedron_around_its_middle():
    labels = np.zeros((3, 4, 5), np.uint64)
    labels[1, 2, 3] = LARGEST

    ((label, surface),) = surfaces(labels, (10, 20, 30))

    assert label == LARGEST
    assert (len(surface.vertices), len(surface.faces)) == (6, 8)
    places = Frame((0, 0, 0), (0, 0, 0), (40, 4, 8), near=True).nm(surface.vertices)
    assert places.min(axis=0).tolist() == [33 * 8, 22 * 4, 11 * 40]
    assert places.max(axis=0).tolist() == [34 * 8, 23 * 4, 12 * 40]


def test_triangles_face_outwards():
    ((_, surface),) = surfaces(np.pad(np.ones((4, 5, 6), np.uint8), 1), (0, 0, 0))

    a, b, c = (surface.vertices[surface.faces[:, n]] for n in range(3))

    assert np.einsum("ij,ij->", a, np.cross(b, c)) / 6 == pytest.approx(8 * 4 * 5 * 6, rel=0.1)


def test_a_volume_full_of_one_label_is_a_box_or_without_closing_nothing():
    labels, volume = np.ones((5, 6, 7), np.uint8), BoundingBox((0, 0, 0), (5, 6, 7))

    closed = Surface.joined(by_blocks(labels, volume, (3, 3, 3))[1])
    assert is_closed(closed.faces)
    assert closed.vertices.min(axis=0).tolist() == [0, 0, 0]
    assert closed.vertices.max(axis=0).tolist() == [14, 12, 10]

    assert by_blocks(labels, volume, (3, 3, 3), closed=False) == {}


def test_labels_are_kept_and_dropped_by_name():
    labels = np.array([[[0, 1, 2, LARGEST]]], np.uint64)

    assert select(labels, [1, LARGEST, 99], []).tolist() == [[[0, 1, 0, LARGEST]]]
    assert select(labels, None, [2, LARGEST]).tolist() == [[[0, 1, 0, 0]]]
    small = np.array([[[1, 2]]], np.uint8)
    assert select(small, [2, 2**40], [2**41]).tolist() == [[[0, 2]]]
    assert labels.tolist() == [[[0, 1, 2, LARGEST]]]


def test_what_one_label_encloses_is_filled_and_kept_by_itself():
    labels = np.full((9, 9, 9), 4, np.uint32)
    labels[3:6, 3:6, 2:5] = 0  # a cavity, with a label in it that has one, too
    labels[4, 3:6, 2:5] = 6
    labels[3:6, 4, 2:5] = 6
    labels[3:6, 3:6, 3] = 6
    labels[4, 4, 3] = 0
    labels[6, 6, 0] = 0  # open to the outside
    labels[:, :, 7] = 5
    labels[3, 3, 6] = 0  # between two labels

    first, second = filled_labels(labels, 1)

    expected = labels.copy()
    expected[3:6, 3:6, 2:5] = 4
    assert np.array_equal(first, expected)
    assert set(np.unique(second)) == {0, 6}
    assert second[4, 4, 3] == 6
    assert np.count_nonzero(second) == np.count_nonzero(labels == 6) + 1


def test_filling_changes_nothing_where_there_is_no_cavity():
    labels = noise((6, 7, 8), 0.0, 0)

    assert np.array_equal(sum(filled_labels(labels, 1), np.zeros_like(labels)), labels)
    assert np.array_equal(sum(filled_labels(labels + np.uint64(1), 1)), labels + np.uint64(1))
