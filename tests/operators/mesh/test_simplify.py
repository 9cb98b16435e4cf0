import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from daskflow.operators.objects.mesh.simplify import finest_error, sealed, simplify
from daskflow.operators.objects.mesh.surface import surfaces

pytest.importorskip("zmesh")
pytest.importorskip("numba")


def ball(radius, *, holes=0):
    axis = np.arange(-radius - 2, radius + 3)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    inside = (z * z + y * y + x * x < radius * radius).astype(np.uint8)
    if holes:
        inside[radius + 2, radius + 2, radius + 2] = 0
    return inside


def surface_of(labels):
    ((_, surface),) = surfaces(labels, (0, 0, 0))
    return surface


def border(vertices, faces):
    """The edges of only one triangle, by where they are."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    there, back = edges[:, 0] << 32 | edges[:, 1], edges[:, 1] << 32 | edges[:, 0]
    alone = edges[~np.isin(there, back)]
    return sorted(map(tuple, np.hstack([vertices[alone[:, 0]], vertices[alone[:, 1]]]).tolist()))


def sampled(vertices, faces, count, seed=0):
    rng = np.random.default_rng(seed)
    corners = vertices[faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = corners[rng.choice(len(faces), count, p=areas / areas.sum())]
    u, v = np.sort(rng.random((2, count, 1)), axis=0)
    return chosen[:, 0] * u + chosen[:, 1] * (v - u) + chosen[:, 2] * (1 - v)


def distances(one, other):
    """How far points of each of two surfaces are from the other, to about 0.1 voxels."""
    a, b = sampled(*one, 200_000), sampled(*other, 200_000, seed=1)
    return np.concatenate([cKDTree(b).query(a[:5000])[0], cKDTree(a).query(b[:5000])[0]])


@pytest.mark.parametrize("error", [1.0, 2.0, 4.0])
def test_a_surface_keeps_within_the_error_of_far_fewer_triangles(error):
    surface = surface_of(ball(20))
    voxels = surface.vertices / 2

    vertices, faces = simplify(voxels, surface.faces, error, (1.0, 1.0, 1.0))

    assert len(faces) < len(surface.faces) / 8
    far = distances((voxels, surface.faces), (vertices, faces))
    assert np.quantile(far, 0.999) < error
    assert far.max() < 1.6 * error


def test_a_larger_error_leaves_fewer_triangles_and_none_leaves_all():
    surface = surface_of(ball(12))
    counts = [len(simplify(surface.vertices, surface.faces, e, (5.0, 5.0, 5.0))[1]) for e in (0, 5, 10, 20)]

    assert counts[0] == len(surface.faces)
    assert counts == sorted(counts, reverse=True)
    assert counts[3] < counts[1] / 2


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.8), st.floats(0.5, 30))
def test_the_border_of_an_open_surface_stays(seed, density, error):
    labels = (np.random.default_rng(seed).random((7, 8, 9)) < density).astype(np.uint8)
    labels[3, 4, 5] = 1
    surface = surface_of(labels)

    vertices, faces = simplify(surface.vertices, surface.faces, error, (2.0, 3.0, 20.0))

    assert border(vertices, faces) == border(surface.vertices, surface.faces)
    assert len(faces) <= len(surface.faces)


def test_what_is_simplified_has_the_topology_that_it_had():
    trimesh = pytest.importorskip("trimesh")
    inside = np.pad(gaussian_filter(np.random.default_rng(0).random((30, 30, 30)), 2) > 0.5, 1)
    surface = surface_of(inside.astype(np.uint8))
    before = trimesh.Trimesh(surface.vertices, surface.faces)

    after = trimesh.Trimesh(*simplify(surface.vertices, surface.faces, 1.0, (1.0, 1.0, 1.0), unit=0.5))

    assert before.euler_number < -10
    assert after.euler_number == before.euler_number
    assert after.body_count == before.body_count
    assert len(after.faces) < len(before.faces) / 3


def test_no_piece_vanishes_however_small():
    labels = np.zeros((40, 40, 60), np.uint8)
    labels[2:34, 2:34, 2:34] = ball(14)[:32, :32, :32]
    labels[5, 5, 50] = labels[20, 20, 45] = 1
    labels[30, 10, 40:58] = 1
    surface = surface_of(labels)

    vertices, faces = simplify(surface.vertices, surface.faces, 400.0, (5.0, 5.0, 5.0))

    for low, high in (((99, 9, 9), (103, 13, 13)), ((89, 39, 39), (93, 43, 43)), ((79, 19, 59), (119, 23, 63))):
        inside = ((vertices >= low) & (vertices <= high)).all(axis=1)
        assert np.count_nonzero(inside[faces].all(axis=1)) >= 4


def test_the_same_surface_gives_the_same_bytes():
    surface = surface_of(ball(9))

    one, other = (simplify(surface.vertices, surface.faces, 10.0, (5.0, 5.0, 5.0)) for _ in range(2))

    assert one[0].tobytes() == other[0].tobytes()
    assert one[1].tobytes() == other[1].tobytes()


def test_surfaces_far_from_the_origin_lose_nothing():
    surface = surface_of(ball(9))
    far = 2.0**27

    near = simplify(surface.vertices, surface.faces, 10.0, (5.0, 5.0, 5.0))
    moved = simplify(surface.vertices + far, surface.faces, 10.0, (5.0, 5.0, 5.0))

    assert np.array_equal(near[1], moved[1])
    assert np.abs(moved[0] - far - near[0]).max() < 1e-6


@pytest.mark.parametrize("error", [1.0, 2.0, 4.0])
def test_simplified_surfaces_are_watertight_and_keep_their_volume(error):
    trimesh = pytest.importorskip("trimesh")
    rng = np.random.default_rng(3)
    inside = gaussian_filter(rng.random((40, 40, 40)), 3) > 0.5
    surface = surface_of(np.pad(inside, 1).astype(np.uint8))
    whole = trimesh.Trimesh(surface.vertices, surface.faces)
    assert whole.is_watertight

    left = trimesh.Trimesh(
        *simplify(surface.vertices, surface.faces, finest_error(error, (1.0,) * 3), (1.0,) * 3, unit=0.5)
    )

    assert left.is_watertight
    assert left.is_winding_consistent
    assert left.nondegenerate_faces().all()
    assert len(np.unique(np.sort(left.faces, axis=1), axis=0)) == len(left.faces) < len(whole.faces) / 4
    assert left.volume == pytest.approx(whole.volume, rel=0.02)


def test_sheets_that_touch_along_an_edge_are_parted_where_they_are():
    trimesh = pytest.importorskip("trimesh")
    points = np.array([(0, 0, 0), (0, 0, 3), (2, 0, 0), (0, 2, 0), (-2, 0, 0), (0, -2, 0)], float)
    one, other = [(0, 3, 2), (0, 1, 3), (0, 2, 1), (1, 2, 3)], [(0, 5, 4), (0, 1, 5), (0, 4, 1), (1, 4, 5)]
    faces = np.array(one + other, np.uint32)
    before = trimesh.Trimesh(points, faces)
    assert not before.is_watertight

    after = trimesh.Trimesh(*sealed(points, faces))

    assert after.is_watertight
    assert after.volume == pytest.approx(before.volume)
