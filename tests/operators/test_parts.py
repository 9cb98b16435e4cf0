"""Volumes that are a part of the layer they are written into."""

from __future__ import annotations

import json
import tempfile

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import daskflow
from daskflow.cli.app import app
from daskflow.errors import (
    AlignmentError,
    AlreadyStoredError,
    BoundsError,
    MetadataMismatchError,
    MissingChunkError,
    ParameterError,
)
from daskflow.geometry import BoundingBox
from daskflow.volume import Volume

FORMATS = [("layer", None), ("layer", (16, 16, 16)), ("a.zarr", None), ("zarr3://b", (16, 16, 16)), ("zarr2://c", None)]
SIZE = (40, 8, 8)


def voxels(shape, seed=0):
    return np.random.default_rng(seed).integers(1, 2**16, shape, np.uint16)


def volume(array, start):
    return Volume.from_array(array, voxel_offset=start, voxel_size=SIZE, layer_type="image")


def place(directory, name):
    prefix, _, rest = name.rpartition("://")
    return f"{prefix}://{directory}/{rest}" if prefix else f"{directory}/{rest}"


def read(url, box, **options):
    return daskflow.open(url, **options).read(box)


@st.composite
def parts(draw):
    """A level, its chunk, and a box inside."""
    start = draw(st.tuples(*[st.integers(-20, 20)] * 3))
    size = draw(st.tuples(*[st.integers(1, 40)] * 3))
    low = [draw(st.integers(0, n - 1)) for n in size]
    high = [draw(st.integers(a + 1, n)) for a, n in zip(low, size, strict=True)]
    level = BoundingBox.from_size(start, size)
    return level, BoundingBox(low, high).shift(start)


@given(
    boxes=parts(),
    chunk=st.sampled_from([(8, 8, 8), (4, 16, 8)]),
    form=st.sampled_from(FORMATS),
    block=st.sampled_from([None, (16, 16, 16)]),
    before=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_part_goes_to_its_place_and_leaves_the_rest(boxes, chunk, form, block, before):
    level, box = boxes
    name, shard = form
    expected = np.zeros(level.shape, np.uint16)
    array = voxels(box.shape)
    bounds = (*level.start, *level.stop)
    options = {"chunk": (8, 8, 8) if shard else chunk, "shard": shard, "block": block}
    with tempfile.TemporaryDirectory() as directory:
        url = place(directory, name)
        try:
            if before:
                expected[:] = voxels(level.shape, seed=1)
                assert volume(expected, level.start).save(url, **options).run(progress=False).ok
                expected[box.slices(level)] = array
                job = volume(array, box.start).save(url, complete=True, overwrite=True, block=block)
            else:
                expected[box.slices(level)] = array
                job = volume(array, box.start).save(url, bounds=bounds, complete=True, **options)
        except ParameterError as error:
            if "Morton" not in str(error):
                raise
            return
        report = job.run(progress=False)
        assert report.ok, report
        np.testing.assert_array_equal(read(url, level, fill_missing=True), expected)
        assert job.run(progress=False).already_done


@given(boxes=parts(), form=st.sampled_from(FORMATS))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whole_chunks_alone_are_written_unless_others_are_completed(boxes, form):
    level, box = boxes
    name, shard = form
    with tempfile.TemporaryDirectory() as directory:
        url, source = place(directory, name), volume(voxels(level.shape), level.start)
        options = {"bounds": (*level.start, *level.stop), "chunk": (8, 8, 8), "shard": shard}
        try:
            unit = source.save(url, **options).stages[0].task.sinks[0].unit
        except ParameterError as error:
            if "Morton" not in str(error):
                raise
            return
        whole = box.align(unit, level.start).clip(level)
        if whole != box:
            with pytest.raises(AlignmentError, match=f"nearest is {whole}.*--complete"):
                source.crop(box).save(url, **options)
        assert source.crop(whole).save(url, **options).run(progress=False).ok
        np.testing.assert_array_equal(read(url, whole), source.read(whole))


@pytest.mark.parametrize(("name", "shard"), FORMATS)
def test_several_jobs_fill_disjoint_parts_each_with_its_own_record(tmp_path, name, shard):
    array, url = voxels((40, 32, 24)), place(tmp_path, name)
    source = volume(array, (-8, 0, 16))
    halves = [BoundingBox((-8, 0, 16), (24, 32, 40)), BoundingBox((24, 0, 16), (32, 32, 40))]
    first, second = (source.crop(half) for half in halves)
    assert first.save(url, bounds=(-8, 0, 16, 32, 32, 40), chunk=(8, 8, 8), shard=shard).run(progress=False).ok
    with pytest.raises(MissingChunkError):
        read(url, halves[1])
    overlapping = volume(array[16:], (8, 0, 16))
    with pytest.raises(AlreadyStoredError, match=r"written by the job in \S+-8-24_0-32_16-40\.daskflow"):
        overlapping.save(url).run(progress=False)
    assert second.save(url).run(progress=False).ok
    np.testing.assert_array_equal(daskflow.open(url).read(), array)
    assert len(list(tmp_path.glob("*.daskflow"))) == 2
    assert first.save(url).run(progress=False).already_done


def test_what_does_not_fit_the_layer_is_refused(tmp_path):
    array = voxels((16, 16, 16))
    volume(array, (0, 0, 0)).save(tmp_path / "layer", bounds=(0, 0, 0, 32, 32, 32), chunk=(8, 8, 8)).run(progress=False)
    with pytest.raises(MetadataMismatchError, match="data_type"):
        volume(array.astype(np.uint8), (16, 0, 0)).save(tmp_path / "layer").check()
    with pytest.raises(MetadataMismatchError, match="size"):
        volume(array, (24, 0, 0)).save(tmp_path / "layer").check()
    with pytest.raises(BoundsError, match="reaches outside the bounds"):
        volume(array, (24, 0, 0)).save(tmp_path / "other", bounds=(0, 0, 0, 32, 32, 32))
    with pytest.raises(ParameterError, match="are 2 numbers; give start and stop"):
        volume(array, (0, 0, 0)).save(tmp_path / "other", bounds=(0, 0))
    with pytest.raises(ParameterError, match="files are whole"):
        volume(array, (0, 0, 0)).save(tmp_path / "a.npy", bounds="source")


def test_completed_chunks_are_not_replaced_where_they_hold_something(tmp_path):
    array = voxels((8, 8, 12))
    options = {"bounds": (0, 0, 0, 8, 8, 24), "chunk": (8, 8, 8), "complete": True}
    volume(array, (0, 0, 0)).save(tmp_path / "layer", **options).run(progress=False)
    volume(array, (0, 0, 12)).save(tmp_path / "layer", **options).run(progress=False)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read(), np.concatenate([array, array], axis=2))
    with pytest.raises(AlreadyStoredError, match=r"e\.g\. 0-8_0-8_8-16"):
        volume(array[..., :2], (0, 0, 10)).save(tmp_path / "layer", complete=True).check()


@pytest.mark.parametrize("name", ["layer", "a.zarr"])
def test_levels_of_a_part_are_parts_of_the_levels(tmp_path, name):
    array = voxels((32, 64, 64))
    whole = volume(array, (0, 8, 0))
    whole.save(tmp_path / f"whole-{name}", levels=2, chunk=(8, 8, 8)).run(progress=False)
    url = tmp_path / name
    for half in (BoundingBox((0, 8, 0), (16, 72, 64)), BoundingBox((16, 8, 0), (32, 72, 64))):
        options = {"bounds": (0, 8, 0, 32, 72, 64), "levels": 2, "chunk": (8, 8, 8), "memory": "30kB"}
        assert whole.crop(half).save(url, **options).run(progress=False).ok
    for mip in range(3):
        wanted = daskflow.open(tmp_path / f"whole-{name}", mip=mip)
        np.testing.assert_array_equal(daskflow.open(url, mip=mip).read(), wanted.read())
    with pytest.raises(AlignmentError, match="with downsample"):
        whole.crop(BoundingBox((0, 8, 0), (8, 16, 8))).save(tmp_path / "other", bounds=(0, 8, 0, 32, 72, 64), levels=2)


@pytest.mark.parametrize("name", ["layer", "a.zarr"])
def test_a_coarser_level_keeps_its_number_in_a_new_layer(tmp_path, name):
    array = voxels((9, 33, 31))
    volume(array, (3, 7, 5)).save(tmp_path / f"source-{name}", levels=1, chunk=(8, 8, 8)).run(progress=False)
    coarse = daskflow.open(tmp_path / f"source-{name}", mip=1)
    job = coarse.save(tmp_path / name, mip=1)
    job.check()
    assert not (tmp_path / name).exists()
    assert job.run(progress=False).ok
    made, source = (daskflow.open(tmp_path / one, mip=1) for one in (name, f"source-{name}"))
    assert [spec.box for spec in made.mips] == [spec.box for spec in source.mips]
    assert [spec.voxel_size for spec in made.mips] == [spec.voxel_size for spec in source.mips]
    np.testing.assert_array_equal(made.read(), source.read())
    with pytest.raises(MissingChunkError):
        daskflow.open(tmp_path / name).read()
    assert volume(array, (3, 7, 5)).save(tmp_path / name).run(progress=False).ok
    assert volume(array[:, ::2, ::2], (0, 1, 2)).save(tmp_path / f"new-{name}", mip=2).run(progress=False).ok
    scales = [spec.voxel_size for spec in daskflow.open(tmp_path / f"new-{name}", mip=2).mips]
    assert scales == [(40, 2, 2), (40, 4, 4), (40, 8, 8)]


def test_the_command_line_puts_a_crop_into_the_bounds_of_its_source(tmp_path):
    array = voxels((16, 64, 64))
    volume(array, (0, 0, 0)).save(tmp_path / "seg", chunk=(8, 16, 16)).run(progress=False)
    crop = ["--quiet", "open", str(tmp_path / "seg"), "crop", "-s", "0 16 16", "-t", "8 48 48"]
    for bounds in (["source"], ["0", "0", "0", "16", "64", "64"]):
        target = tmp_path / f"full{len(bounds)}"
        result = CliRunner().invoke(app, [*crop, "save", str(target), "--bounds", *bounds])
        assert result.exit_code == 0, result.output
        assert json.loads((target / "info").read_text())["scales"][0]["size"] == [64, 64, 16]
        np.testing.assert_array_equal(read(target, BoundingBox((0, 16, 16), (8, 48, 48))), array[:8, 16:48, 16:48])
        planned = CliRunner().invoke(app, ["--plan", *crop, "save", str(target)])
        assert "is written of the level" in planned.output


def test_a_part_is_written_beside_outputs_whose_chunks_begin_elsewhere(tmp_path):
    array = voxels((20, 40, 40))
    part = volume(array, (0, 0, 0)).crop(BoundingBox((3, 5, 7), (19, 33, 40)))
    jobs = [
        part.save(tmp_path / "full", bounds=(0, 0, 0, 20, 40, 40), chunk=(8, 8, 8), complete=True),
        part.save(tmp_path / "alone", chunk=(8, 8, 8)),
        daskflow.connected_components(daskflow.threshold(part, threshold=2**15)).save(
            tmp_path / "labels", bounds=(0, 0, 0, 20, 40, 40), chunk=(8, 8, 8), complete=True
        ),
    ]
    alone = daskflow.connected_components(daskflow.threshold(part, threshold=2**15)).read()
    assert daskflow.merge(jobs).run(progress=False).ok
    for name, wanted in (("full", part.read()), ("alone", part.read()), ("labels", alone)):
        np.testing.assert_array_equal(read(tmp_path / name, part.box, fill_missing=True), wanted)
