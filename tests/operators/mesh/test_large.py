import numpy as np
import pytest

from daskflow.operators.objects.mesh.large import (
    PACKED_BYTES,
    clipped,
    divide,
    fragments_of,
    join_parts,
    make_part,
    parents,
)
from daskflow.operators.objects.mesh.multires import Detail, manifest_of, z_curve
from daskflow.scratch.pieces import Fragment
from daskflow.stores.objects.mesh_files import MultiresManifest, decode_draco, weld

pytest.importorskip("zmesh")
pytest.importorskip("DracoPy")

BLOCK = (16, 16, 16)
SIZE = (4.0, 4.0, 4.0)
WHOLE = Detail(0, (256, 256, 256), 16, 4.0, SIZE)


def gyroid(size):
    """A surface that winds through all of a cube of blocks: voxels (xyz) and triangles."""
    from daskflow.operators.objects.mesh.surface import surfaces

    z, y, x = np.meshgrid(*[np.arange(size) / 4] * 3, indexing="ij")
    solid = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x) > 0
    ((_, surface),) = surfaces(np.pad(solid.astype(np.uint8), 1), (-1, -1, -1))
    return surface.vertices / 2, surface.faces


def pieces(vertices, faces):
    """What blocks would have left of a surface: fragments, and the triangles of each."""
    places = np.floor(vertices[faces].mean(axis=1) / BLOCK[::-1]).astype(int)
    found = []
    for number, place in enumerate(np.unique(places, axis=0).tolist()):
        own = faces[(places == place).all(axis=1)]
        corners = vertices[own].reshape(-1, 3) * SIZE
        bounds = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
        found.append((Fragment(1, number, 0, len(own) * PACKED_BYTES, bounds), own))
    return found


def level(data, manifest, lod):
    at, vertices, faces, count = sum(manifest.bytes_of_levels[:lod]), [], [], 0
    shape = np.array(manifest.chunk_shape) * 2**lod
    for position, size in zip(manifest.levels[lod].positions, manifest.levels[lod].sizes.tolist(), strict=True):
        points, triangles = decode_draco(data[at : at + size])
        at += size
        vertices.append(np.array(manifest.origin) + shape * (position + points / 65535))
        faces.append(triangles + np.uint32(count))
        count += len(points)
    return weld(np.round(np.concatenate(vertices), 2), np.concatenate(faces))


def is_closed(faces):
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    there, back = np.sort(edges[:, 0] << 32 | edges[:, 1]), np.sort(edges[:, 1] << 32 | edges[:, 0])
    return np.array_equal(there, back)


@pytest.fixture(scope="module")
def made():
    vertices, faces = gyroid(80)
    fragments = pieces(vertices, faces)
    memory = 36 * sum(fragment.size for fragment, _ in fragments) // 5
    division = divide([fragment for fragment, _ in fragments], WHOLE, memory, BLOCK)
    records, most = [], 0
    for position, members in division.parts:
        own = np.concatenate([fragments[fragment.block][1] for fragment in members])
        surface = clipped(vertices, own, position, division)
        most = max(most, len(surface[1]))
        records.append(make_part(*surface, position, division))
    levels = [[one for record in records for one in fragments_of(record, lod)] for lod in range(division.inner + 1)]
    cells = [position for position, _ in division.parts]
    for lod in range(division.inner + 1, division.levels):
        groups = parents(cells)
        records = [join_parts([records[n] for n in members], position, lod, division) for position, members in groups]
        levels.append([one for record in records for one in fragments_of(record, lod)])
        cells = [position for position, _ in groups]
    data = b"".join(one for level in levels for _, one in level)
    raw = manifest_of(division.cells, levels).encode()
    return faces, division, memory, most, data, MultiresManifest.decode(raw)


def test_what_fits_is_not_divided():
    fragments = [fragment for fragment, _ in pieces(*gyroid(20))]

    assert divide(fragments, WHOLE, 72 * sum(f.size for f in fragments), BLOCK) is None


def test_no_part_takes_more_than_the_memory(made):
    faces, division, memory, most, _, _ = made

    assert most * PACKED_BYTES * 36 <= memory
    assert len(division.parts) >= 8
    assert sum(len(members) for _, members in division.parts) >= len(faces) // 8000


def test_every_level_of_a_divided_label_is_closed(made):
    _, division, _, _, data, manifest = made

    assert len(manifest.levels) == division.levels >= 3
    counts = []
    for lod in range(division.levels):
        _, faces = level(data, manifest, lod)
        assert is_closed(faces), lod
        counts.append(len(faces))
    assert counts[1] < counts[0] / 2
    assert counts == sorted(counts, reverse=True)


def test_pieces_come_in_z_curve_order(made):
    manifest = made[-1]

    for one in manifest.levels:
        assert np.all(np.diff(z_curve(one.positions.astype(np.int64))) > 0)


def test_parts_are_not_smaller_than_blocks_whatever_the_memory():
    fragments = [fragment for fragment, _ in pieces(*gyroid(40))]

    division = divide(fragments, WHOLE, 8, BLOCK)

    assert division.part_cells.size.max() > 4
    assert len(division.parts) <= 4**3
