"""Meshes and skeletons as they are drawn."""

import numpy as np

from daskflow.stores.objects.mesh_files import Mesh
from daskflow.stores.objects.picture import SIDE, drawn
from daskflow.stores.objects.skeleton_files import Skeleton

SQUARE = np.array([[0, 0, 0], [100, 0, 0], [0, 50, 0], [100, 50, 0]], np.float32)
FACES = np.array([[0, 1, 2], [1, 3, 2]], np.uint32)
NO_FACES, NO_EDGES = np.zeros((0, 3), np.uint32), np.zeros((0, 2), np.uint32)


def test_a_square_is_filled_with_what_faces_the_eye():
    pixels = drawn(SQUARE, FACES, NO_EDGES)
    assert abs(pixels.shape[1] - SIDE) <= 2
    assert abs(pixels.shape[0] - SIDE / 2) <= 2
    assert np.unique(pixels[4:-4, 4:-4]).tolist() == [190]


def test_the_nearer_triangle_hides_the_other_in_any_order():
    slope = SQUARE[:, [0, 2, 1]] * (1, 1, 0.6) + (0, 20, -40)
    vertices = np.concatenate([SQUARE, slope + SQUARE * (0, 0.3, 0)]).astype(np.float32)
    faces = np.concatenate([FACES, FACES + 4])
    pixels = drawn(vertices, faces, NO_EDGES)
    assert pixels[pixels.shape[0] // 2, SIDE // 2] < 190
    assert pixels[6, SIDE // 2] == 190
    assert np.array_equal(pixels, drawn(vertices, faces[::-1], NO_EDGES))


def test_lines_are_black_on_white_along_the_longest_side():
    skeleton = SQUARE[:, [1, 2, 0]]
    pixels = drawn(skeleton, NO_FACES, np.array([[0, 3]], np.uint32))
    rows, columns = np.nonzero(pixels < 128)
    assert np.ptp(columns) > SIDE - 6
    assert np.abs(rows - columns / 2).max() < 3
    assert (pixels == 255).mean() > 0.95
    assert "z to the right, x down, 100 nm across" in Skeleton(skeleton, np.array([[0, 3]], np.uint32))._repr_html_()


def test_of_nothing_there_is_no_picture():
    assert "<img" not in Mesh(np.zeros((0, 3), np.float32), NO_FACES)._repr_html_()
    assert "<img" in Mesh(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.uint32))._repr_html_()
