"""Points, synapses and skeletons that a line passes on: chunkflow's files, and chunkflow 1.2's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import daskflow
from daskflow.cli.app import app
from daskflow.errors import CorruptChunkError, ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox
from daskflow.stores.objects.located import SkeletonSet
from daskflow.stores.objects.skeleton_files import Skeleton
from daskflow.stores.objects.synapses import Synapses, decode_synapses

h5py = pytest.importorskip("h5py")

FILES = Path(__file__).parent / "chunkflow_files"
NUMBERS = ("pre_confidence", "post_confidence", "pre_users", "post_users")


@pytest.fixture(scope="module")
def written():
    """What chunkflow 1.2 has written, as h5py reads it."""
    with h5py.File(FILES / "syn.h5") as file:
        return {name: file[name][...] for name in file}


def type_line(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", ["syn.h5", "syn.json", "sites.json", "dvid.json"])
def test_every_form_of_chunkflows_synapses_is_read(name, written):
    found = daskflow.load_synapses(file_path=str(FILES / name))
    np.testing.assert_array_equal(found.pre, written["pre"])
    order = np.lexsort(found.post.T[::-1]), np.lexsort(written["post"].T[::-1])
    np.testing.assert_array_equal(found.post[order[0]], written["post"][order[1]])
    assert found.voxel_size == ((40, 4, 4) if name in ("syn.h5", "sites.json") else None)
    if name != "sites.json":
        np.testing.assert_array_equal(found.attributes["pre_confidence"], written["pre_confidence"])
    if name == "syn.h5":
        assert found.users == ("ada", "bob")


@pytest.mark.parametrize("name", ["a.h5", "a.json", "dvid.json"])
def test_what_is_saved_is_loaded(name, written, tmp_path):
    saved = daskflow.load_synapses(file_path=str(FILES / "syn.h5"))
    form = "dvid" if name == "dvid.json" else "chunkflow"
    assert daskflow.save_synapses(saved, file_path=str(tmp_path / name), format=form).run(progress=False).ok
    found = daskflow.load_synapses(file_path=str(tmp_path / name), resolution=(40, 4, 4))
    np.testing.assert_array_equal(found.places, saved.places)
    assert found.voxel_size == saved.voxel_size
    assert sorted(found.attributes) == sorted(NUMBERS)
    for side in ("pre", "post"):
        np.testing.assert_allclose(found.attributes[f"{side}_confidence"], written[f"{side}_confidence"], rtol=1e-6)
        assert named(found, side) == named(saved, side)


def named(synapses, side):
    return [synapses.users[number] if number >= 0 else None for number in synapses.attributes[f"{side}_users"]]


def test_hdf5_has_chunkflows_names(written, tmp_path):
    synapses = daskflow.load_synapses(file_path=str(FILES / "syn.h5"))
    daskflow.save_synapses(synapses, file_path=str(tmp_path / "a")).run(progress=False)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["users"] == "ada;bob"
        assert sorted(file) == sorted(written)
        for name, values in written.items():
            np.testing.assert_array_equal(file[name][...], values)
        with h5py.File(tmp_path / "legacy.h5", "w") as legacy:
            legacy["tbars"] = file["pre"][...]
    assert len(daskflow.load_synapses(file_path=str(tmp_path / "legacy.h5")).pre) == len(synapses.pre)


def test_a_box_holds_its_start_and_not_its_stop():
    synapses = Synapses(
        np.array([(1, 2, 3), (8, 8, 8), (4, 4, 4)]), np.array([(0, 1, 1, 1), (1, 2, 2, 2), (2, 5, 5, 5)]),
        None, {"post_confidence": np.array([0.1, 0.2, 0.3])},
    )  # fmt: skip
    kept = synapses.within(BoundingBox((0, 0, 0), (8, 8, 8)))
    assert kept.pre.tolist() == [[1, 2, 3], [4, 4, 4]]
    assert kept.post.tolist() == [[0, 1, 1, 1], [1, 5, 5, 5]]
    assert kept.attributes["post_confidence"].tolist() == [0.1, 0.3]
    fewer = Synapses(synapses.pre, np.array([(0, 9, 9, 9), (2, 5, 5, 5), (1, 7, 7, 7)])).kept(np.arange(3) > 0)
    assert fewer.post.tolist() == [[1, 5, 5, 5], [0, 7, 7, 7]]


def test_a_line_of_tasks_cuts_synapses_so_that_each_is_in_one_file(tmp_path):
    whole = daskflow.load_synapses(file_path=str(FILES / "syn.h5"))
    grid = ["generate-tasks", "-s", 0, 0, 0, "-c", 50, 50, 50, "-g", 2, 2, 2]
    type_line(*grid, "load-synapses", "-f", FILES / "syn.h5", "--remove-outside", "save-synapses", "-f", tmp_path)
    files = sorted(tmp_path.glob("*.h5"))
    assert len(files) == 8
    parts = [daskflow.load_synapses(file_path=str(file)) for file in files]
    assert sorted(np.concatenate([part.pre for part in parts]).tolist()) == sorted(whole.pre.tolist())
    assert sum(len(part.post) for part in parts) == len(whole.post)
    box = BoundingBox.from_string(files[3].stem)
    again = daskflow.load_synapses(file_path=f"{tmp_path}/", start=box.start, stop=box.stop)
    assert again.pre.tolist() == parts[3].pre.tolist()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"pre": [[1, 2, 3]], "post": [[1, 0, 0, 0]]}, "row 1 of pre, which has 1"),
        ({"pre": [[1, 2.5, 3]]}, "whole voxels"),
        ({"pre": [[1, 2, 3]], "pre_confidence": [2.0]}, "from 0 to 1"),
        ({"order": ["y", "x", "z"], "a": {"coord": [0, 0, 0]}}, "known orders: zyx, xyz"),
        ([{"Kind": "PreSyn", "Pos": [1, 2, 3]}] * 2, "at the place of another"),
        ("text", "values have other forms"),
        ({"pre": [[1, 2], [3]]}, "rows of 3 numbers"),
        ({"pre": [[1e30, 2, 3]]}, "below 2"),
        ([{"Pos": [1, 2, 3]}], "lacks 'Kind'; known are"),
    ],
)
def test_damaged_synapses_are_refused(content, words):
    with pytest.raises(CorruptChunkError, match=words):
        decode_synapses(json.dumps(content).encode(), "file.json")


def test_an_empty_file_holds_no_synapses_and_half_a_box_is_refused(tmp_path):
    (tmp_path / "a.h5").touch()
    assert len(daskflow.load_synapses(file_path=str(tmp_path / "a.h5")).pre) == 0
    with pytest.raises(ParameterError, match="generate-tasks"):
        daskflow.load_synapses(file_path=str(tmp_path / "a.h5"), remove_outside=True)
    with pytest.raises(StoreNotFoundError, match=r"0-1_0-1_0-1\.json"):
        daskflow.load_synapses(file_path=f"{tmp_path}/", start=(0, 0, 0), size=(1, 1, 1))


def test_points_come_back_as_chunkflow_wrote_them(tmp_path):
    type_line("load-points", "-f", FILES / "points.h5", "save-points", "-f", tmp_path / "p.h5")
    with h5py.File(FILES / "points.h5") as theirs, h5py.File(tmp_path / "p.h5") as ours:
        assert sorted(ours) == sorted(theirs)
        np.testing.assert_array_equal(ours["points"], theirs["points"])
        np.testing.assert_array_equal(ours["voxel_size"], theirs["voxel_size"])


def test_skeletons_of_a_layer_go_through_swc_and_move(layer, objects, tmp_path):
    type_line("load-skeleton", "-p", layer, "save-swc", "-p", f"{tmp_path}/out/")
    found = daskflow.load_skeleton(path=f"{tmp_path}/out", voxel_offset=(1, 2, 3), voxel_size=(40, 4, 4))
    assert list(found) == list(objects.labels) == list(daskflow.load_skeleton(path=f"{layer}/s"))
    for label, skeleton in found.items():
        np.testing.assert_allclose(skeleton.vertices, objects.skeletons[label].vertices + np.array((12, 8, 40)))
    one = daskflow.load_skeleton(path=f"{tmp_path}/out/5.swc")
    assert one[5].attributes["radius"].tolist() == [9, 9]
    (tmp_path / "out" / "name.swc").touch()
    with pytest.raises(ParameterError, match=r"name\.swc is named by no label"):
        daskflow.load_skeleton(path=f"{tmp_path}/out")


def test_a_line_refuses_objects_of_another_kind(tmp_path):
    words = ["load-synapses", "-f", str(FILES / "syn.h5"), "save-points", "-i", "syns", "-f", str(tmp_path / "a.h5")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code
    assert "takes Points, and 'syns' is <Synapses 7 pre, 12 post" in result.output


def test_the_box_of_objects_is_that_of_their_voxels():
    skeleton = Skeleton(np.array([(0.5, 3, 7), (2, 3.5, 9)]), np.zeros((0, 2), np.uint32))
    assert SkeletonSet({1: skeleton}).box == BoundingBox((7, 3, 0), (10, 4, 3))
    assert Synapses(np.zeros((0, 3))).box.empty
