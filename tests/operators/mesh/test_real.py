"""Meshes of real neurites, which touch themselves, as files give them."""

import numpy as np
import pytest

import daskflow
from daskflow.clusters import Threads
from daskflow.operators.objects.mesh import mesh
from daskflow.stores.objects.layer_objects import Meshes
from daskflow.volume import Volume

pytest.importorskip("zmesh")
pytest.importorskip("numba")
pytest.importorskip("DracoPy")

FINE = {"min_chunk": (8, 8, 8), "lods": 3}


@pytest.fixture(scope="module")
def neurites(real_data, tmp_path_factory):
    import h5py

    with h5py.File(real_data / "fib25_labels.h5") as file:
        labels = np.ascontiguousarray(file["main"][:48, :64, :72])
    path = tmp_path_factory.mktemp("neurites") / "layer"
    volume = Volume.from_array(labels, voxel_size=10, layer_type="segmentation")
    with Threads(1) as threads:
        daskflow.save(volume, path).run(threads, progress=False)
    return path


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("legacy", {"shape": (24, 40, 32)}),
        ("multires", FINE),
        ("multires", {"vertex_bits": 10, "shape": (24, 40, 32), **FINE}),
        ("sharded", {"shape": (24, 40, 32), **FINE}),
        ("sharded", {"shape": (32, 32, 32), "memory": 400_000}),
    ],
)
def test_every_level_of_every_neurite_is_watertight(neurites, form, options):
    trimesh = pytest.importorskip("trimesh")
    name = f"{form}-{len(options)}-{options.get('vertex_bits')}"
    with Threads(1) as threads:
        report = mesh(daskflow.open(neurites), format=form, output=f"{neurites}/{name}", **options).run(
            threads, progress=False
        )
    assert report.ok, report
    assert bool(report.counts.get("large_meshes")) == ("memory" in options)
    meshes, levels = Meshes(str(neurites), directory=name), 0

    for label in meshes.labels().tolist():
        many = len(meshes.manifest(label).levels) if meshes.multires else 1
        levels = max(levels, many)
        for lod in range(many):
            found = meshes.read(label, lod=lod)
            corners = np.sort(found.faces, axis=1)
            assert (np.diff(corners, axis=1) > 0).all()
            assert len(np.unique(corners, axis=0)) == len(corners)
            one = trimesh.Trimesh(found.vertices, found.faces, process=False)
            assert one.is_watertight, (label, lod)
            assert one.is_winding_consistent, (label, lod)
    assert levels >= 2 or form == "legacy"
