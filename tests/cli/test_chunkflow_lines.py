"""The lines of chunkflow's README and tutorials that need no queue give the right voxels, as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from chunkflow_lines import LINES, words, write_network
from click.testing import CliRunner

import daskflow
from daskflow.cli.app import app
from daskflow.view import Viewer

pytest.importorskip("torch")

PAGE = Path(__file__).parents[2] / "docs/from-chunkflow.md"
PATCHES = {"input_patch_size": (8, 32, 32), "output_patch_overlap": (2, 8, 8), "framework": "pytorch"}


def run(line, code=0):
    result = CliRunner().invoke(app, line, prog_name="daskflow")
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def line(tmp_path, monkeypatch):
    """Run a line in an empty directory; return what it printed."""
    monkeypatch.chdir(tmp_path)
    return lambda name, code=0, **places: run(words(name, TMP=".", PORT=0, **places), code)


@pytest.fixture
def shown(monkeypatch):
    """What lines have shown: for each, the state of Neuroglancer and the volumes."""
    seen, volumes, begin = [], [], Viewer.__init__

    def opened(viewer, layers, **options):
        volumes.append(layers)
        begin(viewer, layers, **options)

    def looked_at(viewer):
        seen.append((viewer.state, volumes[-1]))
        viewer.stop()

    monkeypatch.setattr(Viewer, "__init__", opened)
    monkeypatch.setattr(Viewer, "wait", looked_at)
    return seen


def noise(shape, dtype=np.uint8, top=255):
    return np.random.default_rng(0).integers(1, top, shape).astype(dtype)


def image(line_directory="path/of"):
    """Write the image that a network gets; return its voxels."""
    array = noise((12, 48, 56))
    array[2:9, 10:30, 10:40] = 255
    Path(line_directory).mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(f"{line_directory}/image.tif", array)
    return array


def answer(array, channels, path, weights):
    """What the network answers, of the whole image."""
    options = {"convnet_model": path, "convnet_weight_path": weights, "num_output_channels": channels}
    return daskflow.inference(daskflow.open(array), **PATCHES, **options).read()


def layers(state):
    return {layer["name"]: layer["type"] for layer in state["layers"]}


def test_the_program_alone_lists_its_commands(line):
    assert "connected-components" in line("list", code=2)


def test_help_of_a_command(line):
    assert "--voxel-offset" in line("help")


@pytest.mark.parametrize("name", ["view", "neuroglancer"])
def test_look_at_a_chunk(line, shown, name):
    line(name)
    state, volumes = shown[0]
    assert layers(state) == {"chunk": "image"}
    np.testing.assert_array_equal(volumes["chunk"].compute(), daskflow.create_chunk().compute())


@pytest.mark.parametrize("name", ["002-h5-view", "003-h5-view"])
def test_look_at_an_hdf5_file(line, shown, name):
    with h5py.File("sample_A_20160501.hdf", "w") as file:
        file["volumes/raw"] = noise((4, 8, 8))
    line(name)
    state, _ = shown[0]
    assert layers(state) == {"chunk": "image"}
    assert [scale for scale, _ in state["dimensions"].values()] == [4e-9, 4e-9, 4e-8]


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


@pytest.mark.parametrize("name", ["002-cleft", "003-cleft"])
def test_find_clefts(line, shown, name):
    array = image()
    write_network(1, "model.py", "weight.chkpt")
    line(name)
    np.testing.assert_allclose(
        daskflow.open("cleft.tif").read(), answer(array, 1, "model.py", "weight.chkpt"), atol=1e-6
    )
    assert list(layers(shown[0][0])) == ["image", "cleft"]


@pytest.mark.parametrize("name", ["002-cleft-seg", "003-cleft-seg"])
def test_segment_clefts(line, shown, name):
    image()
    cleft = np.zeros((12, 48, 56), np.float32)
    cleft[2:4, 5:9, 5:9] = cleft[8:9, 5:9, 5:9] = 0.2
    tifffile.imwrite("cleft.tif", cleft)
    line(name)
    state, volumes = shown[0]
    assert layers(state) == {"image": "image", "seg": "segmentation"}
    labels = volumes["seg"].compute()
    assert ((labels > 0) == (cleft > 0.1)).all()
    assert len(np.unique(labels[cleft > 0.1])) == 2


@pytest.mark.parametrize("name", ["002-affs", "003-affs"])
def test_predict_affinities(line, shown, name):
    array = image()
    write_network(3, "path/of/model.py", "path/of/weight.pt")
    line(name)
    right = answer(array, 3, "path/of/model.py", "path/of/weight.pt")
    np.testing.assert_allclose(daskflow.open("affs.h5").read(), right, atol=1e-6)
    assert list(layers(shown[0][0])) == ["image", "affs"]


@pytest.mark.parametrize("name", [name for name, line in LINES.items() if "agglomerate" in line])
def test_lines_that_agglomerate(line, shown, name):
    array = image()
    tifffile.imwrite("image.tif", array)
    write_network(3, "path/of/model.py", "path/of/weight.pt")
    affinities = answer(array, 3, "path/of/model.py", "path/of/weight.pt")
    if "inference" not in LINES[name]:
        daskflow.open(affinities).save("affs.h5").run(progress=False)

    line(name)

    state, volumes = shown[0]
    assert layers(state)["seg"] == "segmentation"
    right = daskflow.agglomerate(daskflow.open(affinities), threshold=1 - 0.7).read()
    np.testing.assert_array_equal(volumes["seg"].compute(), right)
    assert len(np.unique(right)) > 1


@pytest.mark.parametrize("said", ["", "-a threshold=0.7;flip_channel=True;aff_threshold_low=0.001"])
def test_the_plugin_that_agglomerates(tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    affinities = np.random.default_rng(0).random((3, 8, 9, 10)).astype(np.float32)
    daskflow.open(affinities).save("affs.h5").run(progress=False)

    plugin = ["plugin", "-f", "agglomerate", *said.split(), "-i", "a", "-o", "s"]
    run(["load-h5", "-f", "affs.h5", "-o", "a", *plugin, "save-h5", "-i", "s", "-f", "s.h5"])

    right = daskflow.agglomerate(daskflow.open(affinities), threshold=1 - 0.7).read()
    np.testing.assert_array_equal(daskflow.open("s.h5").read(), right)


def test_the_plugin_that_agglomerates_takes_its_options_before_another_plugin_with_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("more.py").write_text("def execute(chunk, by=0):\n    return chunk.array + chunk.array.dtype.type(by)\n")
    affinities = np.random.default_rng(0).random((3, 8, 9, 10)).astype(np.float32)
    daskflow.open(affinities).save("affs.h5").run(progress=False)

    plugins = "plugin -f agglomerate --threshold 0.6 -i a -o s plugin -f more.py -a by=1 -i s -o t"
    run(["load-h5", "-f", "affs.h5", "-o", "a", *plugins.split(), "save-h5", "-i", "t", "-f", "t.h5"])

    right = daskflow.agglomerate(daskflow.open(affinities), threshold=1 - 0.6).read()
    np.testing.assert_array_equal(daskflow.open("t.h5").read(), right + 1)


def test_every_line_is_tried():
    tests = Path(__file__).read_text() + Path(__file__).with_name("test_production_lines.py").read_text()
    assert [name for name, line in LINES.items() if f'"{name}"' not in tests and "agglomerate" not in line] == []


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
