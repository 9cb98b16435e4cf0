"""What jobs state of their outputs: found by any of them, one writer at a time, links followed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import daskflow
from daskflow.cli.app import app
from daskflow.errors import (
    AlreadyStoredError,
    ChangedJobError,
    JobError,
    LockedJobError,
    MetadataMismatchError,
    ParameterError,
)
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.jobs import status
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.outputs import jobs_of, leased
from daskflow.jobs.status import find_all, own_command
from daskflow.layers.remove import plan_removal
from daskflow.layers.verify import verify, volumes_beside
from daskflow.stores import Layout
from daskflow.stores.opening import create_store
from daskflow.volume import Volume
from daskflow.volume.stage import Output

ONES = np.ones((16, 16, 16), np.uint8)


def volume(value=1):
    return Volume.from_array(ONES * np.uint8(value), voxel_size=(8, 8, 8)).with_block((8, 16, 16))


def save(folder, name, value=1, **how):
    return volume(value).save(f"precomputed://{folder / name}", chunk=(8, 8, 8), **how)


@pytest.fixture
def line(tmp_path, threads):
    """A job of two layers and a file, kept beside the first."""
    jobs = [save(tmp_path, "a", levels=1), save(tmp_path, "b"), volume().save(tmp_path / "c.npy")]
    job = daskflow.merge(jobs, command=("daskflow", "line"))
    assert job.run(threads, progress=False).ok
    return job


def test_a_job_states_its_outputs_in_plain_words(line, tmp_path):
    outputs = json.loads((tmp_path / "a.daskflow" / "job.json").read_text())["outputs"]
    told = {(Path(one["url"]).name, one["kind"], one.get("mip")) for one in outputs}
    assert told == {("a", "level", 0), ("a", "level", 1), ("b", "level", 0), ("c.npy", "file", None)}
    assert all(one["grid"]["box"] == "0-16_0-16_0-16" for one in outputs)


@pytest.mark.parametrize("name", ["a", "b", "c.npy"])
def test_the_job_is_found_by_every_output(line, tmp_path, threads, name):
    assert [home.url for home in find_all(str(tmp_path / name))] == [line.directory]
    assert status(str(tmp_path / name)).command == ("daskflow", "line")
    assert line.directory in str(plan_removal(str(tmp_path / name)))


@pytest.mark.parametrize("operator", ["voxel_counts", "region_properties"])
def test_the_job_of_a_table_is_found_by_it_and_has_no_volumes_to_verify(tmp_path, threads, operator):
    table = str(tmp_path / "table.csv")
    labels = daskflow.open(ONES, layer_type="segmentation")
    assert getattr(daskflow, operator)(labels, output=table).run(threads, progress=False).ok
    assert f"{table} (table)" in str(status(table))
    with pytest.raises(JobError, match=r"made none, but \S+table\.csv"):
        volumes_beside(table)
    saved = save(tmp_path, "beside")
    both = daskflow.merge([saved, getattr(daskflow, operator)(labels, output=tmp_path / "other.csv")])
    assert both.run(threads, progress=False).ok
    assert volumes_beside(str(tmp_path / "other.csv"))[1] == (f"file://{tmp_path}/beside",)


def test_blocks_of_a_second_output_are_set_back(line, tmp_path, threads):
    chunk = next((tmp_path / "b" / "8_8_8").iterdir())
    chunk.unlink()
    report = verify(str(tmp_path / "b"), client=threads, progress=False)
    assert list(report.results["set_back"]) == [line.directory]
    assert line.run(threads, progress=False).ok
    assert chunk.exists()


def test_what_names_a_job_goes_with_it(line, tmp_path):
    plan_removal(str(tmp_path / "b")).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c.npy", "c.npy.provenance.json"]


def test_a_whole_layer_goes_with_all_its_jobs_and_links_are_not_followed(tmp_path, threads):
    save(tmp_path, "a").run(threads, progress=False)
    daskflow.downsample(daskflow.open(tmp_path / "a"), levels=1).run(threads, progress=False)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_text("kept")
    (tmp_path / "a" / "elsewhere").symlink_to(precious)
    (tmp_path / "alias").symlink_to(tmp_path / "a")
    removal = plan_removal(str(tmp_path / "alias"))
    assert "a.daskflow" in str(removal)
    assert "a.mip1-1.daskflow" in str(removal)
    removal.run()
    assert (precious / "data").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alias", "precious"]


def test_what_is_no_volume_and_no_output_is_not_removed(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("kept")
    with pytest.raises(OSError, match="home"):
        plan_removal(str(tmp_path / "home"))


def test_two_jobs_do_not_write_one_layer_at_once(tmp_path, threads):
    save(tmp_path, "shared").run(threads, progress=False)
    other = daskflow.merge([save(tmp_path, "first", 2), save(tmp_path, "shared", 2)])
    held = leased(JobDirectory(f"file://{tmp_path}/shared.daskflow"), save(tmp_path, "shared").outputs)
    with held, pytest.raises(LockedJobError, match=r"shared mip 0 is being written by .*shared\.daskflow"):
        other.run(threads, progress=False)
    with leased(other.home, other.outputs):
        with pytest.raises(LockedJobError, match=r"first\.daskflow"):
            save(tmp_path, "shared").run(threads, progress=False)
        with pytest.raises(LockedJobError, match=r"first\.daskflow"):
            plan_removal(str(tmp_path / "shared"), mips=[0]).run()
    assert not list(tmp_path.glob("*.jobs.daskflow")), "a job that never ran leaves nothing"


def test_a_link_is_no_second_place_for_a_writer(tmp_path, threads):
    job = save(tmp_path, "a")
    job.run(threads, progress=False)
    (tmp_path / "al").symlink_to(tmp_path / "a")
    with leased(job.home, job.outputs), pytest.raises(LockedJobError):
        save(tmp_path, "al").run(threads, progress=False)
    with pytest.raises(ParameterError, match="what the volume is computed from"):
        daskflow.threshold(daskflow.open(tmp_path / "a"), threshold=1).save(tmp_path / "al")


def test_disjoint_parts_of_a_level_have_their_own_writers():
    def part(low, high):
        return Output("file:///a", "level", mip=1, base=0, grid={"box": f"{low}-{high}_0-8_0-8", "block": [8, 8, 8]})

    assert not part(0, 8).clashes(part(8, 16))
    assert part(0, 9).clashes(part(8, 16))
    assert part(0, 8).clashes(Output("file:///a", "layer"))
    assert not part(0, 8).clashes(Output("file:///ab", "layer"))


def test_the_command_of_a_stranger_is_shown_and_not_run(line, tmp_path, monkeypatch):
    assert own_command(line.directory) == ["daskflow", "line"]
    for mode in (0o666, 0o664):
        (tmp_path / "a.daskflow" / "job.json").chmod(mode)
        with pytest.raises(JobError, match="daskflow --retry-failed line"):
            own_command(line.directory)
    (tmp_path / "a.daskflow" / "job.json").chmod(0o644)
    monkeypatch.setattr(os, "getuid", lambda: 1)
    with pytest.raises(JobError, match="type:\n  daskflow --retry-failed line"):
        own_command(str(tmp_path / "b"))


def test_a_job_file_is_for_its_owner_to_write_whatever_the_umask(tmp_path, threads):
    before = os.umask(0)
    try:
        line = save(tmp_path, "open")
        assert line.run(threads, progress=False).ok
    finally:
        os.umask(before)
    assert not (tmp_path / "open.daskflow" / "job.json").stat().st_mode & 0o022


def test_what_a_strangers_files_hold_is_shown_and_not_sent(line, tmp_path):
    path = tmp_path / "a.daskflow" / "job.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "name": "\x1b[2Jgone", "command": ["daskflow", "\x9b31m\u202e"]}))
    told = str(status(line.directory))
    assert r"\x1b[2Jgone" in told
    assert not {"\x1b", "\x9b", "\u202e"} & set(told)
    with pytest.raises(JobError) as error:
        raise JobError("\x1b]0;title\x07")
    assert str(error.value) == r"\x1b]0;title\x07"


def test_a_pointer_to_what_is_no_job_is_passed_over(tmp_path, threads):
    save(tmp_path, "a").run(threads, progress=False)
    pointers = tmp_path / "a.jobs.daskflow"
    pointers.mkdir()
    for number, text in enumerate(["file:///etc", "", "\0", "s3://", f"file://{tmp_path}", "../../x.daskflow"]):
        (pointers / str(number)).write_text(text)
    assert [home.url for home in jobs_of(f"file://{tmp_path}/a")] == [f"file://{tmp_path}/a.daskflow"]


@pytest.mark.parametrize("how", ["resume", "verify"])
def test_what_a_killed_process_left_half_written_is_swept(tmp_path, threads, how):
    job = daskflow.merge([save(tmp_path, "a"), volume().save(tmp_path / "c.npy")])
    job.run(threads, progress=False)
    left = [tmp_path / "a" / "8_8_8" / f".0-8_0-8_0-8.{'0' * 32}", tmp_path / f".c.npy.{'a' * 32}.partial"]
    other = tmp_path / f".d.npy.{'a' * 32}.partial"
    for path in (*left, other):
        path.write_bytes(b"half")
        os.utime(path, (1, 1))
    if how == "resume":
        (tmp_path / "a.daskflow" / "report.json").unlink()
        assert job.run(threads, progress=False).ok
    else:
        assert verify(str(tmp_path / "a"), str(tmp_path / "c.npy"), client=threads, progress=False).ok
    assert not any(path.exists() for path in left)
    assert other.exists()


def test_the_ledger_is_saved_after_what_it_tells_is_on_disk(tmp_path, threads, monkeypatch):
    told = []
    monkeypatch.setattr("daskflow.jobs.ledger.flush", lambda places: told.append(("flush", *sorted(places))))
    monkeypatch.setattr("daskflow.jobs.ledger.Ledger.save", lambda _, url: told.append(("save",)))
    save(tmp_path, "a").run(threads, progress=False)
    assert told[:2] == [("flush", f"file://{tmp_path}/a", f"file://{tmp_path}/a.daskflow"), ("save",)]


def test_a_prefix_of_the_format_and_a_dataset_are_understood(tmp_path, threads):
    save(tmp_path, "a").run(threads, progress=False)
    volume().save(f"{tmp_path / 'c.h5'}:one").run(threads, progress=False)
    with pytest.raises(ParameterError, match="a part of a file"):
        plan_removal(f"{tmp_path / 'c.h5'}:one")
    assert status(f"{tmp_path / 'c.h5'}:one").state == status(f"precomputed://{tmp_path / 'a'}").state == "finished"
    assert plan_removal(f"precomputed://{tmp_path / 'a'}").url == f"file://{tmp_path}/a"
    plan_removal(str(tmp_path / "c.h5")).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.daskflow"]


def test_an_output_that_a_job_makes_no_more_does_not_name_it(line, tmp_path, threads):
    assert (tmp_path / "b.jobs.daskflow").exists()
    jobs = [save(tmp_path, "a", levels=1), save(tmp_path, "d")]
    assert daskflow.merge(jobs).run(threads, progress=False, overwrite=True).ok
    assert [path.name for path in tmp_path.glob("*.jobs.daskflow")] == ["d.jobs.daskflow"]


IMAGE = np.arange(16 * 16 * 16, dtype=np.uint16).reshape(16, 16, 16) + 1


def opened(array=IMAGE):
    return daskflow.open(array, voxel_size=(40, 4, 4))


def quietly(job):
    assert job.run(progress=False).ok


def stored_by_hand(url, format_name, chunk=(8, 8, 8), **layout):
    spec = VolumeSpec(BoundingBox((0, 0, 0), IMAGE.shape), IMAGE.dtype, voxel_size=(40, 4, 4))
    return create_store(url, spec, format=format_name, layout=Layout(chunk=chunk, **layout))


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("precomputed", {}),
        ("precomputed", {"compression": "gzip"}),
        ("precomputed", {"shard": (16, 16, 16)}),
        ("ome-zarr", {}),
        ("zarr3", {"shard": (16, 16, 16)}),
        ("zarr2", {}),
    ],
)
def test_chunks_of_another_program_are_not_replaced_unless_it_is_said(tmp_path, format_name, options):
    url = tmp_path / "theirs"
    store = stored_by_hand(url, format_name, **options)
    theirs = np.full(IMAGE.shape, 7, np.uint16)
    store.write(store.spec.box, theirs)
    job = opened().save(url, format=format_name)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for refused in (job.check, lambda: job.run(progress=False)):
        with pytest.raises(AlreadyStoredError, match=r"mip 0 of \S+theirs has .*e\.g\. 0-.*CloudVolume.*--overwrite"):
            refused()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path in before} == before
    np.testing.assert_array_equal(daskflow.open(url).read(), theirs)
    quietly(opened().save(url, format=format_name, overwrite=True))
    np.testing.assert_array_equal(daskflow.open(url).read(), IMAGE)
    assert opened().save(url, format=format_name).run(progress=False).already_done


@pytest.mark.parametrize("format_name", ["precomputed", "ome-zarr", "zarr3"])
def test_a_layer_that_has_only_its_metadata_is_written_into(tmp_path, format_name):
    stored_by_hand(tmp_path / "empty", format_name)
    quietly(opened().save(tmp_path / "empty", format=format_name))
    np.testing.assert_array_equal(daskflow.open(tmp_path / "empty").read(), IMAGE)


def test_chunks_of_another_job_are_said_to_be_its(tmp_path):
    quietly(opened().save(tmp_path / "layer", levels=2, chunk=(8, 8, 8)))
    finer = daskflow.open(IMAGE[:, ::2, ::2], voxel_size=(40, 8, 8)).save(tmp_path / "layer", mip=1)
    with pytest.raises(AlreadyStoredError, match=r"mip 1 of .* 2 chunks.* the job in \S+/layer\.daskflow"):
        finer.run(progress=False)
    shutil.rmtree(tmp_path / "layer.daskflow")
    with pytest.raises(AlreadyStoredError, match=r"written by daskflow, save-layer, \w+, .* as the provenance says"):
        finer.run(progress=False)


def test_a_job_that_differs_starts_over_when_it_may_overwrite(tmp_path):
    quietly(opened().save(tmp_path / "layer"))
    with pytest.raises(ChangedJobError):
        opened(IMAGE + 1).save(tmp_path / "layer").run(progress=False)
    job = opened(IMAGE + 1).save(tmp_path / "layer", overwrite=True)
    job.check()
    quietly(job)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read(), IMAGE + 1)


def test_jobs_whose_chunks_were_replaced_do_not_go_on(tmp_path):
    whole = opened().save(tmp_path / "layer", chunk=(8, 8, 8))
    quietly(whole)
    part = opened(IMAGE[:8] + 5).save(tmp_path / "layer", overwrite=True)
    quietly(part)
    with pytest.raises(AlreadyStoredError, match=r"by the job in \S+layer\.0-8_0-16_0-16\.daskflow"):
        whole.run(progress=False)
    other = daskflow.open(IMAGE[8:], voxel_size=(40, 4, 4), voxel_offset=(8, 0, 0))
    quietly(other.save(tmp_path / "layer", overwrite=True))
    assert len(list(tmp_path.glob("layer.*daskflow"))) == 2
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read(), np.concatenate([IMAGE[:8] + 5, IMAGE[8:]]))


def test_one_step_of_a_line_that_may_replace_forgets_what_it_replaced(tmp_path):
    part = opened(IMAGE[:8]).save(tmp_path / "layer", bounds=(0, 0, 0, *IMAGE.shape), chunk=(8, 8, 8))
    quietly(part)
    quietly(daskflow.merge([opened(IMAGE + 1).save(tmp_path / "layer", overwrite=True), opened().save(tmp_path / "b")]))
    assert not part.home.outputs


@pytest.mark.parametrize("name", ["a.h5", "a.tif", "a.npy"])
def test_a_job_whose_file_was_replaced_by_another_line_is_not_done(name, tmp_path):
    first = opened().save(tmp_path / name)
    quietly(first)
    quietly(daskflow.merge([opened().save(tmp_path / "b"), opened(IMAGE + 1).save(tmp_path / name, overwrite=True)]))
    assert [job.url.rpartition("/")[2] for job in find_all(str(tmp_path / name))] == ["b.daskflow"]
    with pytest.raises(MetadataMismatchError, match="was not written by this job"):
        first.run(progress=False)


def test_replacing_one_dataset_of_a_file_leaves_the_record_of_the_others(tmp_path):
    line = daskflow.merge([opened().save(tmp_path / "b"), opened().save(f"{tmp_path}/a.h5:raw")])
    quietly(line)
    quietly(opened(IMAGE + 1).save(f"{tmp_path}/a.h5:labels", overwrite=True))
    assert line.run(progress=False).already_done
    np.testing.assert_array_equal(daskflow.open(f"{tmp_path}/a.h5:raw").read(), IMAGE)


def test_what_is_replaced_of_one_output_leaves_the_record_of_the_others_of_its_line(tmp_path):
    line = daskflow.merge([opened().save(tmp_path / "a", chunk=(8, 8, 8)), opened(IMAGE + 2).save(tmp_path / "b")])
    quietly(line)
    part = opened(IMAGE[:8] + 5).save(tmp_path / "a", overwrite=True)
    quietly(part)
    assert [one.url.rpartition("/")[2] for one in line.home.outputs] == ["b"]
    assert find_all(str(tmp_path / "b"))[0].url == line.home.url
    assert [job.url for job in find_all(str(tmp_path / "a"))] == [part.home.url]
    with pytest.raises(AlreadyStoredError, match=r"by the job in \S+a\.0-8_0-16_0-16\.daskflow"):
        line.run(progress=False)


def test_a_line_that_may_replace_writes_again_what_another_job_has_replaced(tmp_path, threads):
    line = daskflow.merge([opened().save(tmp_path / "a"), opened(IMAGE + 2).save(tmp_path / "b", overwrite=True)])
    quietly(line)
    quietly(opened(IMAGE + 5).save(tmp_path / "b", overwrite=True))
    for _ in range(2):
        assert [one.url.rpartition("/")[2] for one in line.home.outputs] == ["a"]
        assert not line.verify(threads, progress=False).ok
    assert not line.run(threads, progress=False).already_done
    np.testing.assert_array_equal(daskflow.open(tmp_path / "b").read(), IMAGE + 2)
    assert line.run(threads, progress=False).already_done


def test_what_is_refused_of_the_second_output_leaves_nothing_of_the_first(tmp_path):
    other = daskflow.open(IMAGE, voxel_size=(8, 8, 8), voxel_offset=(32, 0, 0))
    with pytest.raises(MetadataMismatchError, match="voxel_offset"):
        daskflow.merge([opened().save(tmp_path / "a"), other.save(tmp_path / "a")]).run(progress=False)
    assert not list(tmp_path.iterdir())


def test_disjoint_parts_of_one_layer_are_written_by_one_line(tmp_path):
    bounds = (0, 0, 0, *IMAGE.shape)
    parts = [daskflow.crop(opened(IMAGE), start=(low, 0, 0), size=(8, 16, 16)) for low in (0, 8)]
    jobs = [part.save(tmp_path / "layer", bounds=bounds, chunk=(8, 8, 8)) for part in parts]
    quietly(daskflow.merge(jobs))
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read(), IMAGE)
    again = daskflow.crop(opened(IMAGE + 1), start=(0, 0, 0), size=(16, 16, 8))
    with pytest.raises(ParameterError, match="two results would be written"):
        daskflow.merge([jobs[0], again.save(tmp_path / "layer", bounds=bounds, chunk=(8, 8, 8))])


def test_a_job_behind_a_link_may_replace_what_it_wrote(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    quietly(opened().save(tmp_path / "link" / "layer"))
    quietly(opened(IMAGE + 1).save(tmp_path / "link" / "layer", overwrite=True))
    np.testing.assert_array_equal(daskflow.open(tmp_path / "real" / "layer").read(), IMAGE + 1)


def test_an_interrupted_job_goes_on_among_its_own_chunks(tmp_path):
    job = opened().save(tmp_path / "layer", chunk=(8, 8, 8), block=(8, 8, 8))
    quietly(job)
    (tmp_path / "layer.daskflow" / "report.json").unlink()
    shutil.rmtree(tmp_path / "layer.daskflow" / "ledger")  # as a driver leaves it that was killed at once
    quietly(job)


def test_the_second_output_of_a_line_is_not_replaced_because_the_first_is_its_own(tmp_path):
    quietly(opened().save(tmp_path / "a"))
    quietly(daskflow.open(IMAGE + 3, voxel_size=(40, 4, 4)).save(tmp_path / "b"))
    for array in (IMAGE, IMAGE + 1):
        both = daskflow.merge([opened(array).save(tmp_path / "a", overwrite=True), opened(array).save(tmp_path / "b")])
        with pytest.raises((AlreadyStoredError, ChangedJobError)):
            both.run(progress=False)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "b").read(), IMAGE + 3)


def test_the_flag_is_an_option_of_every_command_that_writes_levels_or_files(tmp_path):
    np.save(tmp_path / "image.npy", IMAGE)
    daskflow.open(IMAGE, voxel_size=(1, 1, 1)).map_blocks(np.negative).save(tmp_path / "layer").run(progress=False)
    shutil.rmtree(tmp_path / "layer.daskflow")
    (tmp_path / "a.h5").write_bytes(b"")
    image = ["open", str(tmp_path / "image.npy")]
    for words in (
        ["save-precomputed", "-v", str(tmp_path / "layer")],
        ["save-h5", "-f", str(tmp_path / "a.h5")],
        ["save-npy", "-f", str(tmp_path / "image2.npy")],
    ):
        (tmp_path / "image2.npy").touch()
        refused = CliRunner().invoke(app, ["--quiet", *image, *words])
        assert refused.exit_code != 0
        assert "--overwrite" in refused.output
        planned = CliRunner().invoke(app, ["--plan", *image, *words])
        assert planned.exit_code != 0, planned.output
        done = CliRunner().invoke(app, ["--quiet", *image, *words, "--overwrite"])
        assert done.exit_code == 0, done.output


def test_chunks_of_a_bucket_are_found_among_very_many(tmp_path):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (64, 64, 64)), IMAGE.dtype, voxel_size=(40, 4, 4))
    store = create_store("memory://taken/layer", spec, layout=Layout(chunk=(4, 4, 4)))
    assert list(store.stored_chunks(spec.box)) == []
    last = BoundingBox((60, 60, 60), (64, 64, 64))
    store.write(last, IMAGE[:4, :4, :4])
    assert list(store.stored_chunks(spec.box)) == [last]
    below = BoundingBox((20, 0, 0), (24, 4, 4))
    store.write(below, IMAGE[:4, :4, :4])
    assert set(store.stored_chunks(spec.box)) == {last, below}


def test_tables_of_others_are_replaced_only_where_that_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, labels in (("a", [1, 1, 2]), ("b", [7, 8, 9])):
        volume = daskflow.open(np.array(labels, np.uint32).reshape(1, 1, 3), layer_type="segmentation")
        daskflow.save(volume, f"{name}.zarr").run(progress=False)
    first, second = (daskflow.voxel_counts(daskflow.open(f"{name}.zarr"), output=f"{name}.csv") for name in "ab")
    Path("a.csv").write_text("of somebody\n")
    for refused in (first.check, lambda: first.run(progress=False)):
        with pytest.raises(AlreadyStoredError, match="exists and was not written by this job"):
            refused()
    assert Path("a.csv").read_text() == "of somebody\n"
    first.run(progress=False, overwrite=True)
    assert first.run(progress=False).already_done
    properties = daskflow.region_properties(daskflow.open("b.zarr"), output="b.csv")
    second.run(progress=False)
    with pytest.raises(ChangedJobError, match="belongs to a job that differs"):
        properties.run(progress=False)
    properties.run(progress=False, overwrite=True)
    assert "centroid" in Path("b.csv").read_text()
