"""Meshes lie where their objects are: at every level of a layer, every offset, and however far from the origin."""

import json

import numpy as np
import pytest

import daskflow
from daskflow.clusters import Threads
from daskflow.errors import ParameterError
from daskflow.operators.objects.mesh import mesh
from daskflow.stores.objects.layer_objects import Meshes
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.volume import Volume

pytest.importorskip("zmesh")
pytest.importorskip("numba")
pytest.importorskip("DracoPy")

SIZE = (40.0, 8.0, 4.0)
LOW, HIGH = np.array([12, 36, 24]), np.array([24, 72, 60])  # whole windows of every level below, so that none is halved


def run(job):
    with Threads(1) as threads:
        report = job.run(threads, progress=False)
    assert report.ok, report


def layer_of(path, offset, voxel_size=SIZE):
    array = np.zeros((36, 84, 72), np.uint8)
    array[tuple(slice(a, b) for a, b in zip(LOW, HIGH, strict=True))] = 3
    volume = Volume.from_array(array, voxel_size=voxel_size, voxel_offset=offset, layer_type="segmentation")
    run(daskflow.save(volume, path, chunk=(32, 32, 32)))
    return path


def corners(mesh):
    """The least and the greatest place of a mesh, nm zyx."""
    return np.array(mesh.bounds).reshape(2, 3)[:, ::-1]


@pytest.mark.parametrize("offset", [(5, -7, 11), (-3, 1001, -1)])
@pytest.mark.parametrize("factor", [(2, 2, 2), (3, 2, 2), (1, 3, 1)])
def test_meshes_of_every_level_lie_where_the_object_is(tmp_path, offset, factor):
    layer = layer_of(tmp_path / "layer", offset)
    run(daskflow.downsample(daskflow.open(layer), levels=2, factor=factor))
    truth = [(np.array(offset) + corner) * SIZE for corner in (LOW, HIGH)]
    for mip in (0, 1, 2):
        if mip == 2 and factor[0] == 3:
            continue  # windows of nine sections would halve the object
        volume = daskflow.open(layer, mip=mip)
        for number, form in enumerate(("sharded", "legacy")):
            name = f"{form}-{mip}"
            target = volume if number else daskflow.astype(volume, dtype="uint16")  # computed ones lie there too
            run(mesh(target, output=f"{layer}/{name}", format=form, max_error=0, shape=(16, 24, 40)))
            found = corners(Meshes(str(layer), directory=name).read(3))
            np.testing.assert_allclose(found, truth, atol=0.05)


@pytest.mark.parametrize("far", [2**24 + 1, 2**31 - 99, -(2**31) + 99])
@pytest.mark.parametrize("form", ["sharded", "multires"])
def test_meshes_far_from_the_origin_lose_nothing(tmp_path, far, form):
    found = []
    for offset in ((0, 0, 0), (far, far + 3, far - 7)):
        layer = layer_of(tmp_path / f"layer{offset[0]}", offset)
        run(mesh(daskflow.open(layer), format=form, shape=(16, 24, 40), min_chunk=(4, 8, 8)))
        found.append(Meshes(str(layer)).read(3))
        index = SpatialIndex(daskflow.open(layer).box, (16, 24, 40), SIZE)
        (box,) = index.query(str(layer / json.loads((layer / "info").read_text())["mesh"])).values()
        np.testing.assert_array_equal(box.reshape(2, 3)[:, ::-1], np.add(offset, (LOW, HIGH)) * SIZE)
    near, moved = found

    assert np.array_equal(near.faces, moved.faces)
    shift = np.array((far - 7, far + 3, far)) * SIZE[::-1]
    np.testing.assert_allclose(moved.vertices - shift, near.vertices, atol=1e-3)


def test_files_of_meshes_far_away_keep_them_or_are_refused(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    layer = layer_of(tmp_path / "layer", (2**31 - 99,) * 3)
    run(mesh(daskflow.open(layer)))
    for form in ("ply", "obj"):
        run(daskflow.download_mesh(str(layer), str(tmp_path / form), format=form))
        bounds = trimesh.load(tmp_path / form / f"3.{form}").bounds
        np.testing.assert_allclose(bounds[:, ::-1], (2**31 - 99 + np.array([LOW, HIGH])) * SIZE, atol=1e-3)

    with Threads(1) as threads:
        report = daskflow.download_mesh(str(layer), str(tmp_path / "stl"), format="stl").run(threads, progress=False)
    assert not report.ok


def test_legacy_meshes_of_layers_of_two_million_voxels_lie_within_an_eighth_of_a_voxel(tmp_path):
    offset = (3, 2**21 - 84, 2**20 + 1)
    layer = layer_of(tmp_path / "layer", offset)

    run(mesh(daskflow.open(layer), format="legacy", max_error=0, shape=(16, 24, 40)))

    truth = [(np.array(offset) + corner) * SIZE for corner in (LOW, HIGH)]
    assert (np.abs(corners(Meshes(str(layer)).read(3)) - truth) <= np.array(SIZE) / 8).all()


def test_legacy_meshes_are_refused_where_float32_is_too_coarse(tmp_path):
    layer = layer_of(tmp_path / "layer", (0, 2**21 - 83, 0))

    with pytest.raises(ParameterError, match="use format='sharded'"):
        mesh(daskflow.open(layer), format="legacy")


@pytest.mark.parametrize("size", [(1e6,) * 3, (1e-7, 3e-7, 1e-6), (1e12, 1e16, 3e16), (0.1, 1 / 3, 2.5)])
@pytest.mark.parametrize("form", ["sharded", "legacy"])
def test_names_are_allowed_whatever_the_voxel_size(tmp_path, size, form):
    layer = layer_of(tmp_path / "layer", (0, 0, 0), voxel_size=size)

    run(mesh(daskflow.open(layer), format=form, shape=(16, 24, 40)))

    found = Meshes(str(layer))
    np.testing.assert_allclose(corners(found.read(3)), [LOW * size, HIGH * size], rtol=1e-5)
    assert len(list((layer / found.directory.rpartition("/")[2]).glob("*.spatial"))) == 3 * 4 * 2
