import dataclasses
import json

import numpy as np
import pytest
from blockfiles import job

import daskflow
from daskflow.errors import StoreAccessError
from daskflow.layers.provenance import NoteInSource, WriteProvenance, notes_in_sources, provenance
from daskflow.stores.base import Opened, Opening


def test_provenance_says_who_when_with_what_and_how(tmp_path, threads):
    files, task = job(tmp_path)
    command = ("daskflow", "load", "s3://key:secret@bucket/x", "https://host/y?signature=secret", "z?.tif")
    report = dataclasses.replace(files, command=command).run(threads, progress=False)
    made = provenance(report)
    assert made["version"] == daskflow.__version__
    assert made["packages"]["numpy"]
    assert made["parameters"]["files"]["task"] == task.describe()
    assert made["counts"] == {"missing_chunks": 8}
    assert made["blocks"] == {"files": {"done": 8, "empty": 0}}
    assert made["finished"].endswith("+00:00")
    assert made["command"][:2] == ["daskflow", "load"]
    assert made["command"][-1] == "z?.tif"
    assert "secret" not in json.dumps(made)


def recorded(path):
    return [entry["method"]["job"] for entry in json.loads(path.read_text())["processing"]]


def with_provenance(tmp_path, *more):
    files, _ = job(tmp_path)
    finish = (WriteProvenance(str(tmp_path / "layer/provenance")), *more)
    return dataclasses.replace(files, finish=finish)


def test_run_whose_end_is_repeated_is_recorded_once(tmp_path, threads):
    with pytest.raises(ZeroDivisionError):
        with_provenance(tmp_path, lambda *_: 1 / 0).run(threads, progress=False)
    assert recorded(tmp_path / "layer" / "provenance") == ["files"]
    with_provenance(tmp_path).run(threads, progress=False)
    assert recorded(tmp_path / "layer" / "provenance") == ["files"]


def test_run_that_writes_two_mips_is_recorded_for_each(tmp_path, threads):
    with_provenance(tmp_path, WriteProvenance(str(tmp_path / "layer/provenance"), mip=1)).run(threads, progress=False)
    processing = json.loads((tmp_path / "layer" / "provenance").read_text())["processing"]
    assert [entry["method"]["mip"] for entry in processing] == [0, 1]


def test_every_run_that_began_anew_is_recorded(tmp_path, threads):
    with_provenance(tmp_path).run(threads, progress=False)
    with_provenance(tmp_path).run(threads, progress=False)
    assert recorded(tmp_path / "layer" / "provenance") == ["files"]
    with_provenance(tmp_path).run(threads, progress=False, overwrite=True)
    assert recorded(tmp_path / "layer" / "provenance") == ["files", "files"]


def test_entries_of_others_stay(tmp_path, threads):
    (tmp_path / "layer").mkdir()
    others = [{"method": "by hand", "by": "somebody"}, "a remark", {"method": {"task": "Igneous", "run": None}}]
    path = tmp_path / "layer" / "provenance"
    path.write_text(json.dumps({"owners": ["me"], "processing": others}))
    with_provenance(tmp_path).run(threads, progress=False)
    written = json.loads(path.read_text())
    assert written["owners"] == ["me"]
    assert written["processing"][:-1] == others


@pytest.mark.parametrize("found", [b"made by hand", b"[1, 2]", b"\xff\xfe", b'{"processing": "none"}'])
def test_provenance_of_another_form_is_kept_aside(tmp_path, threads, found):
    (tmp_path / "layer").mkdir()
    path = tmp_path / "layer" / "provenance"
    path.write_bytes(found)
    assert with_provenance(tmp_path).run(threads, progress=False).ok
    assert recorded(path) == ["files"]
    assert (tmp_path / "layer" / "provenance.old").read_bytes() == found


def noted(path):
    return [entry["method"].get("written_to") for entry in json.loads(path.read_text())["processing"]]


def save_with_notes(volume, target, threads):
    job = volume.save(target)
    notes = notes_in_sources(volume, str(target))
    return dataclasses.replace(job, finish=(*job.finish, *notes)).run(threads, progress=False)


@pytest.mark.parametrize("name", ["source", "source.zarr"])
def test_note_in_the_source_says_what_was_made_of_it_and_changes_nothing_for_its_readers(tmp_path, threads, name):
    source = tmp_path / name
    daskflow.open(np.ones((4, 4, 4), np.uint8)).save(source).run(threads, progress=False)
    volume = daskflow.connected_components(daskflow.open(source))
    before = volume.expression.describe()

    save_with_notes(volume, tmp_path / "made", threads)

    file = source / "provenance" if name == "source" else tmp_path / f"{name}.provenance.json"
    assert noted(file) == [None, str(tmp_path / "made")]
    again = daskflow.connected_components(daskflow.open(source))
    assert again.expression.describe() == before
    assert save_with_notes(again, tmp_path / "made", threads).already_done
    assert noted(file) == [None, str(tmp_path / "made")]


def test_source_of_two_outputs_of_one_run_is_told_of_both(tmp_path, threads):
    notes = [NoteInSource(str(tmp_path / "layer/provenance"), target=name) for name in ("a", "b")]
    with_provenance(tmp_path, *notes).run(threads, progress=False)
    assert noted(tmp_path / "layer" / "provenance") == [None, "a", "b"]


def test_volumes_in_memory_have_no_source_to_note_in_and_http_takes_no_notes():
    volume = daskflow.open(np.ones((4, 4, 4), np.uint8))
    assert notes_in_sources(volume, "x") == ()
    volume.node.store.opened = Opened("precomputed", "https://host/layer", Opening())
    with pytest.raises(StoreAccessError, match="read-only"):
        notes_in_sources(volume, "x")
