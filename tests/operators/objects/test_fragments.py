"""Meshes and skeletons as chunkflow makes them: fragments by tasks, which others join."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

import daskflow
from daskflow.cli.app import app
from daskflow.errors import ParameterError
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.layer_objects import Meshes, Skeletons
from daskflow.stores.objects.skeleton_files import Skeleton, encode_skeleton, skeleton_info

VOXEL = (40, 4, 4)


def type_line(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def segmentation(tmp_path):
    pytest.importorskip("zmesh")
    labels = np.zeros((20, 24, 28), np.uint32)
    labels[3:15, 3:20, 4:25] = 3
    labels[16:18, 5:11, 4:18] = 12
    labels[1:2, 1:23, 1:27] = 7
    path = tmp_path / "seg"
    daskflow.Volume.from_array(labels, voxel_size=VOXEL, layer_type="segmentation").save(path).run(progress=False)
    return path


def volume_of(mesh):
    """Return the volume inside a closed surface in nm3, after asserting that it is closed."""
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)[1]
    assert (counts == 2).all(), "the surface has a gap"
    a, b, c = (mesh.vertices[mesh.faces[:, corner]].astype(np.float64) for corner in range(3))
    return np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6


@pytest.mark.parametrize("chunk", [(20, 24, 28), (10, 12, 14), (7, 24, 9)])
def test_fragments_of_any_tasks_meet_and_are_one_closed_mesh(segmentation, chunk):
    tasks = ["generate-tasks", "-v", segmentation, "-c", *chunk, "load-precomputed", "-v", segmentation]
    type_line(*tasks, "mesh", "--voxel-size", *VOXEL, "-o", segmentation, "-e", 0, "-s", "12")
    type_line("mesh-manifest", "-v", segmentation, "--digits", 2)
    meshes = Meshes(str(segmentation))
    assert meshes.labels().tolist() == [3, 7]
    whole = 12 * 17 * 21 * np.prod(VOXEL)
    mesh = meshes.read(3)
    assert volume_of(mesh) == pytest.approx(whole, rel=0.03)
    assert np.ptp(mesh.vertices, axis=0).tolist() == [21 * 4, 17 * 4, 12 * 40]


def test_a_fragment_has_chunkflows_name_and_extent(tmp_path):
    pytest.importorskip("zmesh")
    labels = np.zeros((6, 12, 20), np.uint32)
    labels[2:4, 3:9, 4:18] = 5
    np.save(tmp_path / "labels.npy", labels)
    line = ["create-bbox", "-s", 0, 0, 0, "-z", 6, 12, 19, "load-npy", "-f", tmp_path / "labels.npy", "-s", 40, 4, 4]
    type_line(*line, "mesh", "-t", "precomputed", "-o", tmp_path / "mesh", "-e", 0, "--manifest")
    assert json.loads((tmp_path / "mesh" / "5:0").read_bytes()) == {"fragments": ["5:0:0-19_0-12_0-6"]}
    files = Meshes(str(tmp_path), directory="mesh")
    assert np.ptp(files.read(5).vertices, axis=0).tolist() == [56, 24, 80]


def test_files_hold_whole_meshes_in_nm_and_are_not_for_tasks(segmentation, tmp_path):
    type_line("open", segmentation, "mesh", "-t", "obj", "-o", tmp_path / "obj", "--max-simplification-error", 0)
    assert sorted(path.name for path in (tmp_path / "obj").glob("*.obj")) == ["12.obj", "3.obj", "7.obj"]
    lines = (tmp_path / "obj" / "12.obj").read_text().splitlines()
    vertices = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    np.testing.assert_allclose([vertices.min(0), vertices.max(0)], [(16, 20, 640), (72, 44, 720)])
    words = ["generate-tasks", "-v", segmentation, "-c", 10, 12, 14, "load-precomputed", "-v", segmentation]
    result = CliRunner().invoke(app, [str(word) for word in (*words, "mesh", "-t", "ply", "-o", tmp_path / "ply")])
    assert "tasks cut objects" in result.output
    with pytest.raises(ParameterError, match="give output="):
        daskflow.mesh(daskflow.open(segmentation), format="ply")


def test_meshes_are_downloaded_by_list_file_and_rank(segmentation, tmp_path):
    type_line("open", segmentation, "mesh", "-f", "legacy")
    (tmp_path / "labels.txt").write_text("3, 12")
    type_line("download-mesh", "-v", segmentation, "-i", "3,12", "-o", tmp_path / "a" / "m_")
    type_line("download-mesh", "-v", segmentation, "-i", tmp_path / "labels.txt", "-o", f"{tmp_path}/b/")
    ranked = ["open", segmentation, "download-mesh", "-v", segmentation, "-i", "chunk"]
    type_line(*ranked, "--start-rank", 1, "--stop-rank", 3, "--out-pre", f"{tmp_path}/c/", "-f", "obj")
    found = {name: sorted(path.name for path in (tmp_path / name).glob("*.*[yj]")) for name in "abc"}
    assert found == {"a": ["m_12.ply", "m_3.ply"], "b": ["12.ply", "3.ply"], "c": ["12.obj", "7.obj"]}
    with pytest.raises(ParameterError, match="neither labels"):
        daskflow.download_meshes(volume_path=str(segmentation), input="nothing.txt")


def test_skeleton_fragments_are_joined_and_pruned(tmp_path):
    fragments = f"file://{tmp_path}/layer/s"
    write_file(fragments, "info", json.dumps(skeleton_info()).encode())
    line = np.array([(x, 0.0, 0.0) for x in range(0, 4001, 500)], np.float32)
    edges = np.array([(n, n + 1) for n in range(8)], np.uint32)
    tick = np.array([(4000, 0, 0), (4000, 300, 0)], np.float32)
    parts = {"7:a": (line, edges), "7:b": (line + np.float32([4000, 0, 0]), edges), "70:b": (line, edges)}
    parts |= {"7:c": (tick, edges[:1]), "8:a": (tick, edges[:1])}
    for name, (vertices, pairs) in parts.items():
        skeleton = Skeleton(vertices, pairs, {"radius": np.ones(len(vertices), np.float32)})
        write_file(fragments, name, encode_skeleton(skeleton), compression="gzip")
    daskflow.aggregate_skeleton_fragments(fragments_path=fragments, prefix="7").run(progress=False)
    found = Skeletons(f"file://{tmp_path}/layer", directory="s")
    assert found.labels().tolist() == [7, 70]
    assert found.read(7).cable_length == 8000
