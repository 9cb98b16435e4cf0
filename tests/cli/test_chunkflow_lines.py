"""The lines of chunkflow's README and tutorials that need no queue give the right voxels, as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from chunkflow_lines import words
from click.testing import CliRunner

import daskflow
from daskflow.cli.app import app


@pytest.fixture
def line(tmp_path, monkeypatch):
    """Run a line; return what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name, code=0, **places):
        result = CliRunner().invoke(app, words(name, TMP=".", PORT=0, **places), prog_name="daskflow")
        assert result.exit_code == code, result.output
        return result.output

    return run


def noise(shape, dtype=np.uint8, top=255):
    return np.random.default_rng(0).integers(1, top, shape).astype(dtype)


def test_the_program_alone_lists_its_commands(line):
    assert "connected-components" in line("list", code=2)


def test_help_of_a_command(line):
    assert "--voxel-offset" in line("help")


@pytest.mark.parametrize("name", ["002-ingest", "003-ingest"])
def test_ingest_an_hdf5_file(line, name):
    array = noise((4, 40, 40))
    with h5py.File("sample_A_20160501.hdf", "w") as file:
        file["volumes/raw"] = array
    line(name, KEY_PATH="file://layer")
    np.testing.assert_array_equal(daskflow.open("layer").read(), array)


@pytest.mark.parametrize("name", ["002-cutout", "003-cutout"])
def test_cut_a_part_out_of_a_layer(line, name):
    array = noise((20, 70, 70))
    daskflow.open(array, voxel_size=(40, 4, 4)).save("raw").run(progress=False)
    line(name, VOLUME_RAW="raw")
    part = daskflow.open("cutout_chunk.h5")
    np.testing.assert_array_equal(part.read(), array[:16, :64, :64])
    assert part.voxel_size == (40, 4, 4)


@pytest.mark.parametrize("name", ["002-evaluate", "003-evaluate"])
def test_evaluate_a_segmentation(line, name):
    labels = np.ones((1, 4, 8), np.uint32)
    tifffile.imwrite("groundtruth.tif", labels)
    labels[..., 4:] = 2
    tifffile.imwrite("segmentation.tif", labels)
    output = line(name)
    assert re.search(r"^ +rand index +0\.483871$", output, re.MULTILINE)
    assert re.search(r"^ +vi split +1$", output, re.MULTILINE)


def test_a_plugin(line):
    Path("my_plugin.py").write_text("def execute(chunk):\n    return [255 - chunk]\n")
    line("003-plugin")
    right = 255 - daskflow.create_chunk(size=(8, 32, 32)).read()
    np.testing.assert_array_equal(daskflow.open("plugin.h5").read(), right)


def test_a_plugin_of_two_volumes(line):
    Path("my_plugin_two.py").write_text("def execute(chunk1, chunk2):\n    return chunk2, chunk1\n")
    line("003-plugin-two")
    right = daskflow.create_chunk(size=(8, 32, 32)).read()
    np.testing.assert_array_equal(daskflow.open("chunk2.h5").read(), right)
    assert not daskflow.open("chunk1.h5").read().any()


def test_a_plugin_with_arguments(line):
    Path("my_plugin.py").write_text(
        "def execute(chunk, args=None):\n    assert args == 'encoded parameter string', args\n    return [chunk + 1]\n"
    )
    line("003-plugin-args")
    right = daskflow.create_chunk(size=(8, 32, 32)).read() + 1
    np.testing.assert_array_equal(daskflow.open("plugin_args.h5").read(), right)
