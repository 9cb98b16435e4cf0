"""Meshes and skeletons that igneous wrote: read, downloaded and copied as CloudVolume reads them."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import objects

import daskflow
from daskflow.stores.objects.layer_objects import Meshes, Skeletons

LABELS = (5, 2**40 + 7)
MESHING = {
    "legacy": ((), ("merge", "--nlod", 0)),
    "multires": ((), ("merge", "--nlod", 2, "--min-chunk-size", "16,16,16")),
    "sharded": (("--sharded",), ("merge-sharded", "--nlod", 2, "--min-chunk-size", "16,16,16")),
}
TRACING = {"files": ((), "merge"), "shards": (("--sharded",), "merge-sharded")}


def write(igneous, name, offset=(0, 0, 0)):
    """Write a ball and a bar that several blocks share."""
    z, y, x = np.indices((70, 80, 90))
    array = np.zeros(z.shape, np.uint64)
    array[(z - 33) ** 2 + (y - 33) ** 2 + (x - 33) ** 2 < 24**2] = LABELS[0]
    array[60:68, 66:74, 5:85] = LABELS[1]
    return igneous.layer(name, array, kind="segmentation", resolution=(10, 8, 8), chunk=(32, 32, 32), offset=offset)


def mesh(igneous, layer, kind):
    forge, merge = MESHING[kind]
    igneous("mesh", "forge", layer, "--shape", "32,32,32", *forge)
    igneous("mesh", merge[0], layer, *merge[1:])


def skeletonize(igneous, layer, kind):
    forge, merge = TRACING[kind]
    igneous("skeleton", "forge", layer, "--shape", "64,64,64", "--dust-threshold", 10, *forge)
    igneous("skeleton", merge, layer, "--min-cable-length", 0)


def volume(vertices, faces):
    a, b, c = np.moveaxis(vertices.astype(np.float64)[faces.astype(np.int64)], 1, 0)
    return abs(np.einsum("ni,ni->n", a, np.cross(b, c)).sum()) / 6


@pytest.mark.parametrize("kind", MESHING)
def test_meshes_of_igneous_are_read_as_cloudvolume_reads_them(igneous, kind):
    layer = write(igneous, "layer", offset=(3, -20, 7))
    mesh(igneous, layer, kind)
    meshes = Meshes(str(layer))
    assert meshes.labels().tolist() == list(LABELS)
    for label in LABELS:
        found, expected = meshes.read(label), igneous.mesh(layer, label)
        assert len(found.faces) == len(expected["faces"])
        assert volume(found.vertices, found.faces) == pytest.approx(volume(**expected), rel=1e-4)
        assert found.bounds[:3] == pytest.approx(expected["vertices"].min(axis=0), abs=0.01)
        assert found.bounds[3:] == pytest.approx(expected["vertices"].max(axis=0), abs=0.01)


@pytest.mark.parametrize("kind", TRACING)
def test_skeletons_of_igneous_are_read_as_cloudvolume_reads_them(igneous, kind):
    layer = write(igneous, "layer")
    skeletonize(igneous, layer, kind)
    skeletons = Skeletons(str(layer))
    assert skeletons.labels().tolist() == list(LABELS)
    for label in LABELS:
        found, expected = skeletons.read(label), igneous.skeleton(layer, label)
        assert np.array_equal(found.vertices, expected["vertices"])
        assert np.array_equal(found.edges, expected["edges"])
        assert np.array_equal(found.attributes["radius"], expected["radius"])


def test_copies_are_those_that_igneous_makes(igneous, threads):
    """All that ``mesh xfer`` and ``skeleton xfer`` copy, less leftovers, plus the cells of the index that they lose."""
    source = write(igneous, "source")
    mesh(igneous, source, "legacy")
    skeletonize(igneous, source, "files")
    ours, theirs = write(igneous, "ours"), source.with_name("theirs")
    igneous("image", "xfer", source, theirs)
    assert daskflow.copy_objects(str(source), str(ours)).run(threads, progress=False).ok
    igneous("mesh", "xfer", source, theirs)
    igneous("skeleton", "xfer", source, theirs)
    for directory in ("mesh_mip_0_err_40", "skeletons_mip_0"):
        found, copied = objects(ours, directory), objects(theirs, directory)
        leftovers = {name for name in copied if "skeleton" in directory and ":" in name}
        assert copied - leftovers <= found <= objects(source, directory)
        assert not leftovers & found
        assert {name for name in objects(source, directory) if name.endswith(".spatial")} <= found
        assert len(copied) > len(leftovers)
    for label in LABELS:
        assert volume(**igneous.mesh(ours, label)) == pytest.approx(volume(**igneous.mesh(theirs, label)), rel=1e-6)
        assert np.array_equal(igneous.skeleton(ours, label)["vertices"], igneous.skeleton(theirs, label)["vertices"])


def test_copies_into_shards_are_read_by_cloudvolume(igneous, threads):
    source = write(igneous, "source")
    mesh(igneous, source, "legacy")
    skeletonize(igneous, source, "files")
    packed = write(igneous, "packed")
    job = daskflow.copy_objects(str(source), str(packed), format="sharded", min_chunk=(16, 16, 16), lods=1)
    assert job.run(threads, progress=False).ok
    for label in LABELS:
        assert volume(**igneous.mesh(packed, label)) == pytest.approx(volume(**igneous.mesh(source, label)), rel=1e-3)
        assert np.array_equal(igneous.skeleton(packed, label)["vertices"], igneous.skeleton(source, label)["vertices"])
    found = igneous.objects_within(packed, "mesh", (0, 0, 0), (720, 640, 700))
    assert sorted(found) == list(LABELS)


def test_downloaded_skeletons_have_the_points_of_those_that_igneous_converts(igneous, threads, tmp_path):
    layer = write(igneous, "layer")
    skeletonize(igneous, layer, "files")
    assert daskflow.download_skeleton(str(layer), str(tmp_path / "ours")).run(threads, progress=False).ok
    igneous("skeleton", "convert", layer, tmp_path / "theirs", ",".join(map(str, LABELS)))
    for label in LABELS:
        tables = []
        for folder in ("ours", "theirs"):
            (file,) = [path for path in (tmp_path / folder).rglob("*.swc") if path.name.startswith(str(label))]
            rows = [line.split() for line in file.read_text().splitlines() if line and not line.startswith("#")]
            tables.append(np.array(rows, np.float64))
        ours, theirs = (table[np.lexsort(table[:, 2:5].T), 2:6] for table in tables)
        assert np.allclose(ours, theirs, atol=0.01)
