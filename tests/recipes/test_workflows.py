"""Recipes, run small: each does what its first lines say, and what it writes is what the operators write."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import daskflow
from daskflow.demo.phantom import phantom

RECIPES = Path(__file__).parents[2] / "recipes"


def run(name, folder, **options):
    words = [
        str(word) for key, value in options.items() for word in (f"--{key.replace('_', '-')}", *np.atleast_1d(value))
    ]
    command = [sys.executable, str(RECIPES / f"{name}.py"), *words, "--cluster", "threads"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lines(name, folder, *words):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(RECIPES / f"{name}.sh"), *map(str, words)]
    env = {**os.environ, "PATH": path, "CLUSTER": "threads"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=220, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def scan(tmp_path):
    """Sections of a synthetic image, as files whose names are numbered without zeros."""
    image = phantom(shape=(24, 64, 64), seed=1)[0]
    folder = tmp_path / "scans"
    folder.mkdir()
    for z, section in enumerate(image):
        tifffile.imwrite(folder / f"section_{z + 1}.tif", section)
    return image, folder


def test_sections_become_an_image_with_its_pyramid(scan, tmp_path):
    image, folder = scan
    run("ingest_sections", tmp_path, sections=folder, voxel_size=(40, 4, 4), levels=2, output="image.ome.zarr")
    np.testing.assert_array_equal(daskflow.open(tmp_path / "image.ome.zarr").compute(), image)
    assert daskflow.open(tmp_path / "image.ome.zarr", mip=2).shape == (24, 16, 16)


def test_objects_are_labelled_and_measured(scan, tmp_path):
    image, folder = scan
    threshold = int(np.percentile(image, 80))
    options = {"voxel_size": (40, 4, 4), "threshold": threshold, "dust": 20, "output": "labels"}
    run("label_and_measure", tmp_path, image=folder, **options)
    labels = daskflow.open(tmp_path / "labels").compute()
    rows = (tmp_path / "labels.csv").read_text().splitlines()
    found = {int(row.split(",")[0]): int(row.split(",")[1]) for row in rows[1:]}
    assert found == {int(label): np.count_nonzero(labels == label) for label in np.unique(labels[labels != 0])}
    assert min(found.values()) >= 20


def test_skeletons_are_exported(tmp_path):
    labels = np.zeros((16, 16, 200), np.uint32)
    labels[4:12, 4:12, 4:196] = 7
    volume = daskflow.Volume.from_array(labels, voxel_size=(40, 40, 40), layer_type="segmentation")
    daskflow.save(volume, tmp_path / "segmentation").run(progress=False)
    run("export_skeletons", tmp_path, segmentation="segmentation", output="swc")
    assert [path.name for path in (tmp_path / "swc").iterdir()] == ["7.swc"]
    assert (tmp_path / "swc.csv").read_text().splitlines()[1].startswith("7,")


@pytest.mark.slow
def test_affinities_are_those_of_the_network_on_the_stretched_image(scan, tmp_path):
    _, folder = scan
    run("infer_em", tmp_path, image=folder, voxel_size=(40, 4, 4), output="affinities")
    affinities = daskflow.open(tmp_path / "affinities")
    assert affinities.shape == (3, 24, 64, 64)
    assert affinities.dtype == np.float32
    assert 0 <= affinities.compute().min() < affinities.compute().max() <= 1


@pytest.mark.slow
def test_lines_of_production_run(scan, tmp_path):
    image, _ = scan
    labels = np.zeros((128, 128, 128), np.uint32)
    labels[8:16, 10:120, 30:40], labels[70:90, 10:30, 5:125] = 5, 9
    for name, array, kind in (("image", image, "image"), ("labels", labels, "segmentation")):
        volume = daskflow.Volume.from_array(array, voxel_size=(40, 40, 40), layer_type=kind)
        daskflow.save(volume, tmp_path / name).run(progress=False)
    told = lines("igneous_lines", tmp_path, "image", "labels", "out")
    assert "multi-resolution, sharded" in told
    np.testing.assert_array_equal(daskflow.open(tmp_path / "out" / "seg").compute(), labels)
    lines("chunkflow_lines", tmp_path, tmp_path / "image", tmp_path / "affinities")
    assert daskflow.open(tmp_path / "affinities").shape == (3, 24, 64, 64)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_cluster_files_are_those_of_jobs_with_workers(name, tmp_path):
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    command = [sys.executable, "-m", "daskflow", "clusters", "--show-script", str(RECIPES / "slurm" / f"{name}.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH -t 04:00:00" in done.stdout
    assert ("--gres=gpu:1" in done.stdout) == ("--resources GPU=1" in done.stdout) == (name == "gpu")
