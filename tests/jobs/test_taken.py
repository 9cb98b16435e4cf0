"""What a job has not written is not replaced, unless that is said."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import daskflow
from daskflow.cli.app import app
from daskflow.errors import AlreadyStoredError, ChangedJobError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import Layout
from daskflow.stores.opening import create_store

IMAGE = np.arange(16 * 16 * 16, dtype=np.uint16).reshape(16, 16, 16) + 1


def volume(array=IMAGE):
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
    job = volume().save(url, format=format_name)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for refused in (job.check, lambda: job.run(progress=False)):
        with pytest.raises(AlreadyStoredError, match=r"mip 0 of \S+theirs has .*e\.g\. 0-.*CloudVolume.*--overwrite"):
            refused()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path in before} == before
    np.testing.assert_array_equal(daskflow.open(url).read(), theirs)
    quietly(volume().save(url, format=format_name, overwrite=True))
    np.testing.assert_array_equal(daskflow.open(url).read(), IMAGE)
    assert volume().save(url, format=format_name).run(progress=False).already_done


@pytest.mark.parametrize("format_name", ["precomputed", "ome-zarr", "zarr3"])
def test_a_layer_that_has_only_its_metadata_is_written_into(tmp_path, format_name):
    stored_by_hand(tmp_path / "empty", format_name)
    quietly(volume().save(tmp_path / "empty", format=format_name))
    np.testing.assert_array_equal(daskflow.open(tmp_path / "empty").read(), IMAGE)


def test_chunks_of_another_job_are_said_to_be_its(tmp_path):
    quietly(volume().save(tmp_path / "layer", levels=2, chunk=(8, 8, 8)))
    finer = daskflow.open(IMAGE[:, ::2, ::2], voxel_size=(40, 8, 8)).save(tmp_path / "layer", mip=1)
    with pytest.raises(AlreadyStoredError, match=r"mip 1 of .* 2 chunks.* the job in \S+/layer\.daskflow"):
        finer.run(progress=False)
    shutil.rmtree(tmp_path / "layer.daskflow")
    with pytest.raises(AlreadyStoredError, match=r"written by daskflow, save-layer, \w+, .* as the provenance says"):
        finer.run(progress=False)


def test_a_job_that_differs_starts_over_when_it_may_overwrite(tmp_path):
    quietly(volume().save(tmp_path / "layer"))
    with pytest.raises(ChangedJobError):
        volume(IMAGE + 1).save(tmp_path / "layer").run(progress=False)
    job = volume(IMAGE + 1).save(tmp_path / "layer", overwrite=True)
    job.check()
    quietly(job)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read(), IMAGE + 1)


def test_jobs_whose_chunks_were_replaced_do_not_go_on(tmp_path):
    whole = volume().save(tmp_path / "layer", chunk=(8, 8, 8))
    quietly(whole)
    part = volume(IMAGE[:8] + 5).save(tmp_path / "layer", overwrite=True)
    quietly(part)
    with pytest.raises(AlreadyStoredError, match=r"by the job in \S+layer\.0-8_0-16_0-16\.daskflow"):
        whole.run(progress=False)
    other = daskflow.open(IMAGE[8:], voxel_size=(40, 4, 4), voxel_offset=(8, 0, 0))
    quietly(other.save(tmp_path / "layer", overwrite=True))
    assert len(list(tmp_path.glob("layer.*daskflow"))) == 2
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read(), np.concatenate([IMAGE[:8] + 5, IMAGE[8:]]))


def test_one_step_of_a_line_that_may_replace_forgets_what_it_replaced(tmp_path):
    part = volume(IMAGE[:8]).save(tmp_path / "layer", bounds=(0, 0, 0, *IMAGE.shape), chunk=(8, 8, 8))
    quietly(part)
    quietly(daskflow.merge([volume(IMAGE + 1).save(tmp_path / "layer", overwrite=True), volume().save(tmp_path / "b")]))
    assert not part.home.outputs


def test_a_job_behind_a_link_may_replace_what_it_wrote(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    quietly(volume().save(tmp_path / "link" / "layer"))
    quietly(volume(IMAGE + 1).save(tmp_path / "link" / "layer", overwrite=True))
    np.testing.assert_array_equal(daskflow.open(tmp_path / "real" / "layer").read(), IMAGE + 1)


def test_an_interrupted_job_goes_on_among_its_own_chunks(tmp_path):
    job = volume().save(tmp_path / "layer", chunk=(8, 8, 8), block=(8, 8, 8))
    quietly(job)
    (tmp_path / "layer.daskflow" / "report.json").unlink()
    shutil.rmtree(tmp_path / "layer.daskflow" / "ledger")  # as a driver leaves it that was killed at once
    quietly(job)


def test_the_second_output_of_a_line_is_not_replaced_because_the_first_is_its_own(tmp_path):
    quietly(volume().save(tmp_path / "a"))
    quietly(daskflow.open(IMAGE + 3, voxel_size=(40, 4, 4)).save(tmp_path / "b"))
    for array in (IMAGE, IMAGE + 1):
        both = daskflow.merge([volume(array).save(tmp_path / "a", overwrite=True), volume(array).save(tmp_path / "b")])
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
