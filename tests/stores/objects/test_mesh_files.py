"""Meshes: fragments, manifests and Draco cells come back as they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from daskflow.errors import CorruptChunkError, ParameterError
from daskflow.stores.objects.mesh_files import (
    Level,
    Mesh,
    MultiresManifest,
    decode_draco,
    decode_fragment,
    decode_manifest,
    encode_draco,
    encode_fragment,
    encode_manifest,
    legacy_info,
    multires_info,
    transformed,
    weld,
)

TETRAHEDRON = Mesh(
    np.array([[0, 0, 0], [40, 0, 0], [0, 40, 0], [0, 0, 400]], np.float32),
    np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.uint32),
)


@st.composite
def meshes(draw):
    vertices = draw(arrays.arrays(np.float32, (draw(st.integers(3, 20)), 3), elements=st.floats(-1e6, 1e6, width=32)))
    faces = draw(arrays.arrays(np.uint32, (draw(st.integers(0, 20)), 3), elements=st.integers(0, len(vertices) - 1)))
    return Mesh(vertices, faces)


@given(meshes())
def test_a_fragment_comes_back(mesh):
    found = decode_fragment(encode_fragment(mesh))
    assert np.array_equal(found.vertices, mesh.vertices)
    assert np.array_equal(found.faces, mesh.faces)


@given(meshes())
def test_welding_keeps_the_triangles_where_they_are(mesh):
    welded = mesh.welded()
    assert len(np.unique(welded.vertices, axis=0)) == len(welded.vertices)
    corners = [tuple(map(tuple, triangle)) for triangle in (mesh.vertices + 0.0)[mesh.faces].tolist()]
    kept = [triangle for triangle in corners if len(set(triangle)) == 3]
    assert [tuple(map(tuple, t)) for t in welded.vertices[welded.faces].tolist()] == kept


def test_halves_that_share_an_edge_become_one_surface():
    left = Mesh(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32), np.array([[0, 1, 2]], np.uint32))
    right = Mesh(np.array([[1, 1, 0], [0, 1, 0], [1, -0.0, 0]], np.float32), np.array([[0, 1, 2]], np.uint32))
    joined = Mesh.joined([left, right])
    assert len(joined.vertices) == 6
    assert len(joined.welded().vertices) == 4
    assert len(Mesh.joined([]).vertices) == 0


def test_whole_numbers_are_welded_without_loss():
    big = np.array([[2**40 + 1, 0, 0], [2**40, 0, 0], [2**40 + 1, 0, 0]], np.int64)
    vertices, faces = weld(big, np.array([[0, 1, 2]], np.uint32))
    assert vertices[:, 0].tolist() == [2**40, 2**40 + 1]
    assert len(faces) == 0


@pytest.mark.parametrize(
    "data",
    [b"", b"\x05\x00\x00\x00", encode_fragment(TETRAHEDRON)[:-5], b"\x00\x00\x00\x00" + b"\x01\x00\x00\x00" * 3],
)
def test_damaged_fragments_are_refused(data):
    with pytest.raises(CorruptChunkError):
        decode_fragment(data)


def test_manifests_list_fragments_by_name_in_order():
    assert decode_manifest(encode_manifest(["5:0:b", "5:0:a"])) == ["5:0:a", "5:0:b"]
    assert decode_manifest(b'{"fragments": ["5:0:a.gz"]}') == ["5:0:a"]
    for damaged in (b"", b"[]", b"{}", b'{"fragments": 5}'):
        with pytest.raises(CorruptChunkError):
            decode_manifest(damaged)


@st.composite
def manifests(draw):
    triple = st.tuples(*[st.integers(0, 2**20).map(float)] * 3)
    levels = []
    for lod in range(draw(st.integers(1, 3))):
        count = draw(st.integers(0, 5))
        positions = draw(arrays.arrays(np.uint32, (count, 3)))
        levels.append(Level(positions, draw(arrays.arrays(np.uint32, count)), float(2**lod), draw(triple)))
    return MultiresManifest(draw(triple), draw(triple), tuple(levels))


@given(manifests())
def test_a_multires_manifest_comes_back(manifest):
    found = MultiresManifest.decode(manifest.encode())
    assert (found.chunk_shape, found.origin) == (manifest.chunk_shape, manifest.origin)
    assert found.bytes_of_levels == manifest.bytes_of_levels
    for level, before in zip(found.levels, manifest.levels, strict=True):
        assert np.array_equal(level.positions, before.positions)
        assert np.array_equal(level.sizes, before.sizes)
        assert (level.scale, level.offset) == (before.scale, before.offset)


@given(manifests())
def test_a_multires_manifest_that_is_cut_off_is_refused(manifest):
    with pytest.raises(CorruptChunkError):
        MultiresManifest.decode(manifest.encode()[:-1])


@pytest.mark.parametrize("bits", [10, 16])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_quantised_positions_survive_draco_exactly(bits, data):
    most = 2**bits - 1
    rows = data.draw(st.sets(st.tuples(*[st.integers(0, most)] * 3), min_size=3, max_size=12))
    positions = np.array(sorted(rows), np.uint32)
    faces = np.array([(i, i + 1, i + 2) for i in range(len(rows) - 2)], np.uint32)
    found, triangles = decode_draco(encode_draco(positions, faces, bits=bits))

    def corners(vertices, indices):
        return sorted(min(tuple(map(tuple, np.roll(t, i, axis=0))) for i in range(3)) for t in vertices[indices])

    assert corners(found, triangles) == corners(positions.astype(np.int64), faces)


def test_no_triangles_are_no_bytes():
    empty = np.zeros((0, 3), np.uint32)
    assert encode_draco(empty, empty, bits=10) == b""
    assert [len(part) for part in decode_draco(b"")] == [0, 0]


def test_a_damaged_draco_mesh_is_refused():
    data = encode_draco(np.array([[0, 0, 0], [5, 0, 0], [0, 5, 0]]), np.array([[0, 1, 2]]), bits=10)
    with pytest.raises(CorruptChunkError):
        decode_draco(data[:10])


def test_infos_are_as_neuroglancer_wants_them():
    info = multires_info(voxel_size=(4.0, 4.5, 40), bits=16, mip=1)
    assert info["transform"] == [4, 0, 0, 0, 0, 4.5, 0, 0, 0, 0, 40, 0]
    assert info["@type"] == "neuroglancer_multilod_draco"
    assert "sharding" not in info
    assert legacy_info(mip=0, chunk_size=(64, 64, 32)) == {
        "@type": "neuroglancer_legacy_mesh",
        "mip": 0,
        "chunk_size": [64, 64, 32],
    }
    with pytest.raises(ParameterError, match="10 or 16"):
        multires_info(voxel_size=(4, 4, 40), bits=12, mip=0)


def test_a_transform_is_read_row_by_row():
    assert transformed(np.array([[1, 2, 3]]), [0, 2, 0, 5, 1, 0, 0, 0, 0, 0, 1, -1]).tolist() == [[9, 1, 2]]
    assert transformed(np.array([[1, 2, 3]]), None).tolist() == [[1, 2, 3]]


def test_bounds_of_nothing_are_zeros():
    assert TETRAHEDRON.bounds == (0, 0, 0, 40, 40, 400)
    assert Mesh.joined([]).bounds == (0, 0, 0, 0, 0, 0)
