"""PLY, OBJ and STL files as trimesh reads them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import trimesh

from daskflow.errors import ParameterError
from daskflow.stores.objects.mesh_files import Mesh, encode_surface

BOX = trimesh.creation.box((400, 30, 5))
MESH = Mesh(np.asarray(BOX.vertices + np.array([1e6, 0, -7]), np.float32), np.asarray(BOX.faces, np.uint32))


@pytest.mark.parametrize("kind", ["ply", "obj", "stl"])
def test_another_program_reads_the_same_closed_surface(kind):
    found = trimesh.load(io.BytesIO(encode_surface(MESH, kind)), file_type=kind)
    assert found.is_watertight
    assert found.volume == pytest.approx(BOX.volume, rel=1e-3)
    assert np.allclose(found.bounds.reshape(-1), MESH.bounds)


@pytest.mark.parametrize("kind", ["ply", "obj"])
def test_vertices_and_faces_keep_their_order(kind):
    found = trimesh.load(io.BytesIO(encode_surface(MESH, kind)), file_type=kind, process=False, maintain_order=True)
    assert np.array_equal(found.faces, MESH.faces)
    assert np.allclose(found.vertices, MESH.vertices, rtol=1e-7)


@pytest.mark.parametrize("kind", ["ply", "obj", "stl"])
def test_nothing_is_written_as_nothing(kind):
    assert encode_surface(Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint32)), kind)


def test_other_formats_are_refused():
    with pytest.raises(ParameterError, match="ply, obj, stl"):
        encode_surface(MESH, "off")
