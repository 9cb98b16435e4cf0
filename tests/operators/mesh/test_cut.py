import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.operators.objects.mesh.multires import Cells, by_cell, cut, z_curve
from daskflow.operators.objects.mesh.surface import surfaces

pytest.importorskip("zmesh")


def random_solid(seed, shape=(4, 5, 6)):
    labels = (np.random.default_rng(seed).random(shape) < 0.5).astype(np.uint8)
    labels[1, 1, 1] = 1
    ((_, surface),) = surfaces(np.pad(labels, 1), (-1, -1, -1))
    return surface.vertices / 2, surface.faces


def area(vertices, faces):
    a, b, c = (vertices[faces[:, n]] for n in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2


def edges(vertices, faces):
    """Directed edges by where they are."""
    corners = vertices[faces]
    return sorted(tuple(row) for n in range(3) for row in np.hstack([corners[:, n], corners[:, n - 1]]).tolist())


GRIDS = st.tuples(st.tuples(*[st.floats(0.3, 5)] * 3), st.tuples(*[st.floats(-2, 0)] * 3))


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), GRIDS)
def test_no_triangle_is_in_two_cells_and_the_surface_stays(seed, grid):
    vertices, faces = random_solid(seed)
    cells = Cells(np.array(grid[1]), np.array(grid[0]), np.full(3, 30))

    points, pieces = cut(vertices, faces, cells)

    low, high = points[pieces].min(axis=1), points[pieces].max(axis=1)
    places = cells.of(points, pieces)
    assert (low >= cells.origin + places * cells.size - 1e-9).all()
    assert (high <= cells.origin + (places + 1) * cells.size + 1e-9).all()
    assert area(points, pieces) == pytest.approx(area(vertices, faces))
    there = edges(points, pieces)
    assert there == sorted((*edge[3:], *edge[:3]) for edge in there)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), GRIDS, st.integers(0, 2**32 - 1))
def test_a_triangle_is_cut_alike_whatever_it_is_cut_with(seed, grid, chosen):
    vertices, faces = random_solid(seed)
    cells = Cells(np.array(grid[1]), np.array(grid[0]), np.full(3, 30))
    some = np.random.default_rng(chosen).permutation(faces)[: len(faces) // 2]

    whole = set(map(tuple, corners(*cut(vertices, faces, cells))))
    part = corners(*cut(vertices, some, cells))

    assert set(map(tuple, part)) <= whole


def corners(vertices, faces):
    return [sorted(map(tuple, triangle)) for triangle in vertices[faces].tolist()]


def test_cells_come_in_z_curve_order():
    cells = np.array([[x, y, z] for z in range(2) for y in range(2) for x in range(3)])
    faces = np.arange(36, dtype=np.uint32).reshape(-1, 3)

    order = [cell for cell, _ in by_cell(cells[::-1].copy(), faces)]

    assert order[:8] == [(x, y, z) for z in range(2) for y in range(2) for x in range(2)]
    assert order[8:] == [(2, y, z) for z in range(2) for y in range(2)]
    assert np.all(np.diff(z_curve(np.array(order))) > 0)


def test_a_surface_within_one_cell_is_not_touched():
    vertices, faces = random_solid(1)

    points, pieces = cut(vertices, faces, Cells(np.full(3, -1.0), np.full(3, 20.0), np.full(3, 2)))

    assert points is vertices
    assert pieces is faces
