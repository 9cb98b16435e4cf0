import numpy as np
import pytest

from daskflow.clusters import Threads
from daskflow.operators.objects.mesh import mesh
from daskflow.operators.objects.mesh.multires import Cells, Detail, _small, encode_level, fitting_cells, multires
from daskflow.operators.objects.mesh.surface import surfaces
from daskflow.operators.stores.open import open as open_volume
from daskflow.operators.stores.save import save
from daskflow.stores import kvstore
from daskflow.stores.objects.layer_objects import Meshes
from daskflow.stores.objects.mesh_files import MultiresManifest, decode_draco, encode_draco, weld
from daskflow.volume import Volume

pytest.importorskip("zmesh")
pytest.importorskip("DracoPy")


def ball(radius, offset=0.0):
    axis = np.arange(-radius - 1, radius + 2)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    ((_, surface),) = surfaces((z * z + y * y + x * x < radius * radius).astype(np.uint8), (0, 0, 0))
    return surface.vertices / 2 + offset, surface.faces


def detail(**changes):
    known = {"lods": 2, "min_chunk": (16, 16, 16), "bits": 16, "max_error": 1.0, "voxel_size": (1.0, 1.0, 1.0)}
    return Detail(**(known | changes))


def decoded(data, manifest, lod, bits):
    """The mesh of a level, in the units of the manifest, by the formula of the format."""
    at = sum(manifest.bytes_of_levels[:lod])
    vertices, faces, count = [], [], 0
    shape = np.array(manifest.chunk_shape) * 2**lod
    for position, size in zip(manifest.levels[lod].positions, manifest.levels[lod].sizes.tolist(), strict=True):
        points, triangles = decode_draco(data[at : at + size])
        at += size
        vertices.append(np.array(manifest.origin) + shape * (position + points / (2**bits - 1)))
        faces.append(triangles + np.uint32(count))
        count += len(points)
    return np.concatenate(vertices), np.concatenate(faces)


def is_closed(vertices, faces):
    vertices, faces = weld(np.round(vertices, 3), faces)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    there, back = np.sort(edges[:, 0] << 32 | edges[:, 1]), np.sort(edges[:, 1] << 32 | edges[:, 0])
    return np.array_equal(there, back)


def test_a_ball_of_59_voxels_has_two_levels_of_eight_pieces_and_one():
    data, raw = multires(*ball(30, offset=-7), detail())

    manifest = MultiresManifest.decode(raw)

    assert [len(level.sizes) for level in manifest.levels] == [8, 1]
    assert manifest.chunk_shape == (30, 30, 30)
    assert manifest.origin == (-5, -5, -5)
    assert [level.scale for level in manifest.levels] == [1, 2]
    assert len(data) == sum(manifest.bytes_of_levels)


@pytest.mark.parametrize("bits", [10, 16])
def test_every_level_is_closed_across_its_pieces_and_near_the_surface(bits):
    vertices, faces = ball(30, offset=100)
    data, raw = multires(vertices, faces, detail(bits=bits, min_chunk=(8, 8, 8)))
    manifest = MultiresManifest.decode(raw)

    assert len(manifest.levels) == 3
    counts = []
    for lod in range(3):
        points, triangles = decoded(data, manifest, lod, bits)
        assert is_closed(points, triangles)
        distance = np.linalg.norm(points - (31.5 + 100), axis=1)
        assert np.abs(distance - 29.5).max() < 2 * 2**lod
        counts.append(len(triangles))
    assert counts[0] > 2 * counts[1] > 4 * counts[2]


def test_no_triangle_of_a_coarser_level_is_in_two_cells_of_the_one_before():
    data, raw = multires(*ball(30), detail())
    manifest = MultiresManifest.decode(raw)

    points, faces = decode_draco(data[manifest.bytes_of_levels[0] :])

    middle = 2**15
    corners = points[faces]
    assert ((corners <= middle).all(axis=1) | (corners >= middle).all(axis=1)).all()
    assert (corners == middle).any()


def test_levels_are_as_many_as_the_smallest_side_allows():
    box = np.zeros(3), np.array([64.0, 64.0, 40.0])

    assert detail(lods=5).levels(*box) == 2
    assert detail(lods=5, min_chunk=(4, 4, 4)).levels(*box) == 4
    assert detail(lods=0).levels(*box) == 1
    assert detail(lods=5).levels(np.zeros(3), np.full(3, 3.0)) == 1


def test_more_levels_are_made_where_a_piece_would_have_too_many_triangles():
    vertices, faces = ball(30)

    levels, cells = fitting_cells(vertices, faces, detail(lods=0, most_faces=len(faces) // 20))

    counts = np.unique(cells.of(vertices, faces), axis=0, return_counts=True)[1]
    assert counts.max() <= len(faces) // 20
    assert levels == 3


def test_a_label_of_one_voxel_has_its_octahedron():
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[1, 1, 1] = 1
    ((_, surface),) = surfaces(labels, (0, 0, 0))

    data, raw = multires(surface.vertices / 2, surface.faces, detail(min_chunk=(256, 256, 256)))

    points, faces = decoded(data, MultiresManifest.decode(raw), 0, 16)
    assert (len(points), len(faces)) == (6, 8)
    assert sorted(np.round(points, 3).tolist()) == sorted((surface.vertices / 2).tolist())


def test_quantised_vertices_that_fall_together_are_one():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1e-9, 0]], float)
    faces = np.array([[0, 1, 2], [0, 1, 3]], np.uint32)

    ((position, data),) = encode_level(vertices, faces, Cells(np.zeros(3), np.ones(3), np.ones(3, np.int64)), 0, 10)

    points, triangles = decode_draco(data)
    assert position == (0, 0, 0)
    assert (len(points), len(triangles), points.max()) == (3, 1, 1023)


def test_the_same_surface_gives_the_same_bytes():
    assert multires(*ball(12), detail()) == multires(*ball(12), detail())


def test_labels_of_one_shape_are_encoded_once_and_read_together(tmp_path, monkeypatch):
    encoded, read = [], []

    def encode(*arguments, **options):
        encoded.append(1)
        return encode_draco(*arguments, **options)

    def read_range(url, start, stop):
        read.append(url)
        return whole(url, start, stop)

    whole = kvstore.read_range
    monkeypatch.setattr("daskflow.operators.objects.mesh.multires.encode_draco", encode)
    monkeypatch.setattr(kvstore, "read_range", read_range)
    _small.cache_clear()
    labels = np.zeros((20, 20, 20), np.uint32)
    labels[1::2, 1::2, 1::2] = np.arange(1, 1001).reshape(10, 10, 10)
    volume = Volume.from_array(labels, voxel_size=10, voxel_offset=(3, -2, 7), layer_type="segmentation")
    save(volume, tmp_path / "layer").run(progress=False)
    with Threads(1) as threads:
        report = mesh(open_volume(tmp_path / "layer"), max_labels_per_shard=250).run(threads, progress=False)

    assert report.counts["meshes"] == 1000
    assert len(encoded) == 1
    assert len(read) < 250
    found = Meshes(str(tmp_path / "layer"))
    for label in (1, 2, 500, 1000):
        z, y, x = np.argwhere(labels == label)[0] + (3, -2, 7)
        one = found.read(label)
        np.testing.assert_allclose(one.vertices.mean(axis=0), (np.array([x, y, z]) + 0.5) * 10, atol=1e-3)
        assert one.bounds == pytest.approx([10 * v for v in (x, y, z, x + 1, y + 1, z + 1)], abs=1e-3)
