"""The commands that show what a line has made."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from daskflow import view
from daskflow.cli.app import app


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Return a function that runs a line and gives the state of the viewer in which it ends."""
    monkeypatch.chdir(tmp_path)
    states = []
    monkeypatch.setattr(view.Viewer, "wait", lambda viewer: (states.append((viewer.url, viewer.state)), viewer.stop()))

    def run(words):
        result = CliRunner().invoke(app, words.split(), prog_name="daskflow")
        assert result.exit_code == 0, result.output
        ((url, state),) = states
        states.clear()
        assert url in result.output
        assert url.startswith("http://127.0.0.1:")
        return state

    return run


def names(state):
    return [layer["name"] for layer in state["layers"]]


def refused(words):
    result = CliRunner().invoke(app, words.split(), prog_name="daskflow")
    assert result.exit_code == 1, result.output
    return result.output


def test_layers_have_options_in_brackets(shown):
    state = shown(
        "create-chunk -o image threshold -i image -t 128 -o seg"
        " neuroglancer -c image[color=red,visible=no],seg[opacity=0.3] -v 30 6 6"
    )
    image, labels = state["layers"]
    assert (image["type"], image["visible"]) == ("image", False)
    assert (labels["type"], labels["selectedAlpha"]) == ("segmentation", 0.3)
    assert [state["dimensions"][axis][0] for axis in "zyx"] == pytest.approx([30e-9, 6e-9, 6e-9])


def test_labels_are_shown_over_an_image_also_where_nothing_says_that_they_are_labels(shown):
    np.save("labels.npy", np.ones((4, 4, 4), np.uint8))
    state = shown("create-chunk open labels.npy -o seg view --segmentation-chunk-name seg")
    assert state["layout"] == "xy"
    assert [(layer["name"], layer["type"]) for layer in state["layers"]] == [
        ("chunk", "image"),
        ("seg", "segmentation"),
    ]


def test_points_and_synapses_of_files_are_shown(shown):
    with h5py.File("points.h5", "w") as file:
        file["points"] = np.array([(1, 2, 3)])
    Path("syns.json").write_text(json.dumps({"pre": [[1, 2, 3]], "post": [[0, 4, 5, 6]], "resolution": [8, 8, 8]}))
    state = shown("load-points -f points.h5 load-synapses -f syns.json neuroglancer -i point_cloud,syns -v 40 4 4")
    assert names(state) == ["point_cloud", "syns", "syns_pre"]
    assert state["dimensions"]["z"][0] == pytest.approx(40e-9)


def test_napari_gets_the_volumes_of_the_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = {}
    monkeypatch.setattr("daskflow.view.napari.show", seen.update)
    result = CliRunner().invoke(app, ["create-chunk", "-o", "em", "napari", "-i", "em", "-v", "40,4,4"])
    assert result.exit_code == 0, result.output
    assert seen["em"].voxel_size == (40, 4, 4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("neuroglancer -i chunk[colour=red]", "unknown option 'colour'"),
        ("neuroglancer -i chunk,seg", "there is no volume 'seg'"),
        ("neuroglancer -i chunk[size=3]", "only an annotation has a size"),
        ("neuroglancer -v 0 4 4", "voxel size"),
        ("view -i other", "there is no volume 'other'"),
        ("neuroglancer --bind 192.0.2.1", "cannot listen"),
    ],
)
def test_what_cannot_be_shown_is_refused(words, said):
    assert said in refused(f"create-chunk -s 4 4 4 {words}")
