"""Meshes as files for other programs: which labels, which names, which surfaces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.operators.objects.download_mesh import download_mesh
from daskflow.operators.objects.download_skeleton import download_skeleton


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize("kind", ["ply", "obj", "stl"])
def test_every_mesh_gets_a_file(layer, tmp_path, kind, objects):
    report = download_mesh(layer, tmp_path / "out", format=kind).run(progress=False)
    assert report.ok
    assert names(tmp_path / "out") == sorted(f"{label}.{kind}" for label in objects.labels)
    for label in objects.labels:
        found = trimesh.load(tmp_path / f"out/{label}.{kind}")
        assert found.is_watertight
        assert found.volume == pytest.approx(100**3)
        assert found.bounds.reshape(-1).tolist() == list(objects.meshes[label].bounds)


def test_only_the_named_labels_are_written(layer, tmp_path, objects):
    download_mesh(layer, tmp_path / "out", labels=[5, 1, 5]).run(progress=False)
    assert names(tmp_path / "out") == ["1.ply", "5.ply"]


def test_other_labels_go_into_the_same_directory_later(layer, tmp_path, objects):
    for label in (5, 1):
        assert download_mesh(layer, tmp_path / "out", labels=[label]).run(progress=False).ok
    assert names(tmp_path / "out") == ["1.ply", "5.ply"]


def test_a_box_takes_what_reaches_into_it(layer, tmp_path, objects):
    download_mesh(layer, tmp_path / "out", start=(14, 0, 0), size=(4, 64, 64)).run(progress=False)
    assert names(tmp_path / "out") == ["5.ply"]


def test_a_label_without_a_mesh_fails_alone(layer, tmp_path, objects):
    report = download_mesh(layer, tmp_path / "out", labels=[5, 99]).run(progress=False, retries=0)
    assert not report.ok
    assert "label 99 has no mesh" in str(report)
    assert names(tmp_path / "out") == ["5.ply"]


def test_the_second_run_writes_nothing(layer, tmp_path, objects):
    download_mesh(layer, tmp_path / "out").run(progress=False)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert download_mesh(layer, tmp_path / "out").run(progress=False).ok
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    "wrong",
    [{"labels": [5], "start": (0, 0, 0), "size": (1, 1, 1)}, {"start": (0, 0, 0)}, {"labels": []}, {"labels": [-1]},
     {"labels": [2**64]}, {"start": (100, 0, 0), "size": (4, 4, 4)}, {"start": (50, 0, 0), "size": (4, 4, 4)}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(layer, tmp_path, wrong, objects):
    with pytest.raises(ParameterError):
        download_mesh(layer, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_a_level_of_detail_that_is_not_there_fails(layer, tmp_path, objects):
    report = download_mesh(layer, tmp_path / "out", labels=[5], lod=3).run(progress=False, retries=0)
    assert "level of detail" in str(report)


def test_a_layer_without_objects_says_so(tmp_path, objects):
    url = objects.bare_layer(f"file://{tmp_path}/bare")
    with pytest.raises(StoreNotFoundError, match="no mesh"):
        download_mesh(url, tmp_path / "out")
    with pytest.raises(StoreNotFoundError, match="no skeletons"):
        download_skeleton(url, tmp_path / "out")


@pytest.mark.parametrize("which", ["layer", "sharded_layer"])
def test_skeletons_are_written_as_swc(which, tmp_path, request, objects):
    url = request.getfixturevalue(which)
    download_skeleton(url, tmp_path / "out").run(progress=False)
    assert names(tmp_path / "out") == sorted(f"{label}.swc" for label in objects.labels)
    for label in objects.labels:
        found = np.loadtxt(tmp_path / f"out/{label}.swc")
        assert (*found[:, 2:5].min(axis=0), *found[:, 2:5].max(axis=0)) == objects.skeletons[label].bounds
        assert found[:, 5].tolist() == [9, 9]


def test_skeletons_in_a_box(sharded_layer, tmp_path, objects):
    download_skeleton(sharded_layer, tmp_path / "out", start=(0, 0, 0), size=(10, 64, 64)).run(progress=False)
    assert names(tmp_path / "out") == ["1.swc"]
