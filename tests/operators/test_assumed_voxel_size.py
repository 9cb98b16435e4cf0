import dataclasses
import importlib.util
import json
import logging

import numpy as np
import pytest
from click.testing import CliRunner

import daskflow
from daskflow.cli.app import app
from daskflow.jobs.report import Report
from daskflow.jobs.shapes import from_json

LINES = {
    "precomputed": (["save", "{out}"], "{out}/provenance"),
    "OME-Zarr": (["save", "{out}.zarr"], "{out}.zarr.provenance.json"),
    "levels": (["save", "{out}", "--levels", "1"], "{out}/provenance"),
    "components": (["connected-components", "save", "{out}"], "{out}/provenance"),
    "meshes": (["mesh", "-o", "{out}"], "{out}/provenance"),
    "skeletons": (["skeletonize", "-o", "{out}", "--dust", "0"], "{out}/provenance"),
    "two outputs": (["save", "{out}.zarr", "mesh", "-o", "{out}"], "{out}/provenance"),
}
LEFT_OPEN = {"NPY": "out.npy", "HDF5": "out.h5", "TIFF": "out.tif", "zarr": "zarr3://{out}"}
NEEDS = {"meshes": "zmesh", "skeletons": "kimimaro", "two outputs": "zmesh"}


@pytest.fixture
def labels(tmp_path):
    array = np.zeros((16, 16, 16), np.uint32)
    array[2:14, 4:12, 4:12] = 3
    np.save(tmp_path / "labels.npy", array)
    return str(tmp_path / "labels.npy")


def ran(words, caplog):
    with caplog.at_level(logging.WARNING):
        result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "1 nm" not in result.output
    return [record.getMessage() for record in caplog.records if "1 nm" in record.getMessage()]


@pytest.mark.parametrize("what", LINES)
def test_voxel_taken_as_1_nm_is_told_once_on_terminal_report_and_provenance(what, labels, tmp_path, caplog):
    if what in NEEDS and importlib.util.find_spec(NEEDS[what]) is None:
        pytest.skip(f"needs {NEEDS[what]}")
    words, provenance = LINES[what]
    out = str(tmp_path / "out")
    line = ["open", labels, "--layer-type", "segmentation", *(word.format(out=out) for word in words)]
    said = ran(line, caplog)
    assert len(said) == 1
    assert "--voxel-size" in said[0]
    assert labels in said[0]
    (stored,) = {tuple(json.loads(file.read_text())["warnings"]) for file in tmp_path.glob("*.daskflow/report.json")}
    assert len(stored) == 1
    assert said[0].endswith(stored[0])
    made = json.loads((tmp_path / provenance.format(out=out)).read_text())
    made = made["processing"][0]["method"] if "processing" in made else made
    assert made["warnings"] == list(stored)


@pytest.mark.parametrize("what", ["precomputed", "OME-Zarr"])
def test_nothing_is_told_when_the_voxel_size_is_given_and_1_nm_is_what_comes_back(what, labels, tmp_path, caplog):
    out = str(tmp_path / "out")
    words = [word.format(out=out) for word in LINES[what][0]]
    assert ran(["open", labels, "--voxel-size", "40", "8", "8", *words], caplog) == []
    assert daskflow.open(words[1]).voxel_size == (40, 8, 8)
    other = str(tmp_path / "other.zarr")
    daskflow.save(daskflow.open(labels), other).run(progress=False)
    assert daskflow.open(other).voxel_size == (1, 1, 1)


@pytest.mark.parametrize("what", LEFT_OPEN)
def test_formats_that_can_leave_the_voxel_size_open_do_so_without_a_word(what, labels, tmp_path, caplog):
    if what == "HDF5":
        pytest.importorskip("h5py")
    out = LEFT_OPEN[what].format(out=tmp_path / "out") if "{" in LEFT_OPEN[what] else str(tmp_path / LEFT_OPEN[what])
    assert ran(["open", labels, "save", out], caplog) == []
    assert daskflow.open(out).voxel_size is None


def test_report_of_python_has_the_warning_and_prints_it_once(tmp_path, caplog):
    volume = daskflow.Volume.from_array(np.ones((8, 8, 8), np.uint8))
    report = daskflow.save(volume, tmp_path / "layer").run(progress=False)
    assert len(report.warnings) == 1
    assert str(report).count("1 nm") == report._repr_html_().count("1 nm") == 1
    assert from_json(Report, json.loads(json.dumps(dataclasses.asdict(report)))).warnings == report.warnings
    assert [record.levelname for record in caplog.records if "1 nm" in record.getMessage()] == ["WARNING"]
