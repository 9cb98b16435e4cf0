import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskflow
from daskflow.errors import CorruptChunkError, ParameterError, StoreNotFoundError

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12))
BLOCKS = st.tuples(*[st.integers(1, 12)] * 3)


def image(shape, dtype="uint8", seed=0):
    scale = 1 if dtype == "uint8" else 200
    grey = np.random.default_rng(seed).normal(120, 30, shape) * scale
    return np.clip(grey, 0, 255 * scale).astype(dtype)


def expected_section(section, low_clip, high_clip, minval=None, maxval=None):
    """The formula, voxel by voxel, from the section itself."""
    most = np.iinfo(section.dtype).max
    counts = np.bincount(section.ravel(), minlength=most + 1)
    counts[0] = 0
    if not counts.any():
        return section
    shares = np.cumsum(counts) / counts.sum()
    lower, upper = np.flatnonzero(shares <= low_clip)[-1], np.flatnonzero(shares <= 1 - high_clip)[-1]
    if lower == upper:
        return section
    stretched = np.round((section.astype(np.float32) - np.float32(lower)) * np.float32(most / (upper - lower)))
    low, high = 0 if minval is None else minval, most if maxval is None else maxval
    return np.clip(stretched, low, high).astype(section.dtype)


def expected(array, *clip, **limits):
    return np.stack([expected_section(section, *clip, **limits) for section in array])


@settings(max_examples=40)
@given(SHAPES, BLOCKS, st.sampled_from(["uint8", "uint16"]), st.floats(0, 0.4), st.floats(0, 0.4), st.data())
def test_sections_are_stretched_by_the_formula_in_any_blocks(shape, block, dtype, low, high, data):
    array = image(shape, dtype, data.draw(st.integers(0, 99)))
    offset = data.draw(st.tuples(*[st.integers(-9, 9)] * 3))
    volume = daskflow.open(array, voxel_offset=offset).with_block(block)
    result = daskflow.contrast(volume, clip_fraction=(low, high)).read()
    np.testing.assert_array_equal(result, expected(array, low, high))


def test_one_fraction_is_cut_off_both_ends():
    array = image((2, 30, 30))
    for fraction in (0.05, [0.05]):
        result = daskflow.contrast(daskflow.open(array), clip_fraction=fraction).read()
        np.testing.assert_array_equal(result, expected(array, 0.05, 0.05))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_no_result_is_below_minval_or_above_maxval(dtype):
    array = image((2, 30, 30), dtype)
    result = daskflow.contrast(daskflow.open(array), minval=20, maxval=200).read()
    np.testing.assert_array_equal(result, expected(array, 0.01, 0.01, minval=20, maxval=200))
    assert (result.min(), result.max()) == (20, 200)


def test_empty_and_constant_sections_stay_as_they_are():
    array = np.stack([np.zeros((5, 6), np.uint8), np.full((5, 6), 77, np.uint8), image((5, 6))])
    result = daskflow.contrast(daskflow.open(array)).read()
    np.testing.assert_array_equal(result[:2], array[:2])
    np.testing.assert_array_equal(result[2], expected_section(array[2], 0.01, 0.01))


def test_section_of_one_voxel_is_taken():
    assert daskflow.contrast(daskflow.open(np.full((1, 1, 1), 9, np.uint8))).read().shape == (1, 1, 1)


def test_channel_axis_of_one_stays():
    array = image((2, 10, 10))
    result = daskflow.contrast(daskflow.open(array[None])).read()
    np.testing.assert_array_equal(result, expected(array, 0.01, 0.01)[None])


@pytest.mark.parametrize(
    ("volume", "options", "message"),
    [
        (daskflow.open(np.ones((1, 2, 2), np.uint8), layer_type="segmentation"), {}, "volume is a segmentation"),
        (daskflow.open(np.ones((2, 1, 2, 2), np.uint8)), {}, "has 2; use pick-channels"),
        (daskflow.open(np.full((1, 2, 2), np.nan, np.float32)), {}, "is float32; use astype"),
        (daskflow.open(np.ones((1, 2, 2), np.uint8)), {"clip_fraction": 0.5}, "leave something between"),
        (daskflow.open(np.ones((1, 2, 2), np.uint8)), {"clip_fraction": (0.1, 0.1, 0.1)}, "one or two shares"),
        (daskflow.open(np.ones((1, 2, 2), np.uint8)), {"clip_fraction": -0.1}, "one or two shares"),
        (daskflow.open(np.ones((1, 2, 2), np.uint8)), {"minval": 9, "maxval": 8}, "ascend between 0 and 255"),
        (daskflow.open(np.ones((1, 2, 2), np.uint8)), {"maxval": 256}, "ascend between 0 and 255"),
        (daskflow.open(np.ones((1, 2, 2), np.uint8)), {"coverage": 0}, "coverage 0"),
        (daskflow.open(np.ones((1, 2, 2), np.uint8)), {"coverage": 1.1}, "coverage 1.1"),
        (daskflow.open(np.ones((1, 2, 2), np.uint8)), {"levels": "source"}, "name a directory"),
    ],
)
def test_what_cannot_be_stretched_is_refused(volume, options, message):
    with pytest.raises(ParameterError, match=message):
        daskflow.contrast(volume, **options)


@pytest.mark.parametrize("name", ["layer", "layer.zarr"])
def test_stretched_layer_is_written_by_one_job_that_reads_each_block_twice(tmp_path, threads, name):
    array = image((8, 40, 48))
    daskflow.open(array, voxel_offset=(3, 0, -5)).save(tmp_path / name, chunk=(4, 8, 8)).run(threads, progress=False)
    volume = daskflow.open(tmp_path / name).with_block((4, 8, 8))
    job = daskflow.contrast(volume, clip_fraction=0.02).save(tmp_path / f"new-{name}", block=(4, 8, 8))
    names = [stage.name for stage in job.stages]
    assert names.pop(1).startswith("merge-levels-")
    assert names == ["count-levels", "find-limits", f"save-new-{name}"]
    plan = job.plan()
    assert plan.stages[0].bytes_read == array.nbytes
    report = job.run(threads, progress=False)
    assert report.ok
    stored = daskflow.open(tmp_path / f"new-{name}")
    assert stored.box == volume.box
    np.testing.assert_array_equal(stored.read(), expected(array, 0.02, 0.02))
    assert job.run(threads, progress=False).already_done


def test_many_blocks_across_a_section_are_merged_in_several_steps(tmp_path, threads):
    array = image((2, 1, 300))
    volume = daskflow.open(array).with_block((1, 1, 1))
    job = daskflow.contrast(volume).save(tmp_path / "new", block=(64, 64, 64))
    assert [len(stage.grid) for stage in job.stages] == [600, 10, 1, 10, 2, 5]
    job.run(threads, progress=False)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "new").read(), expected(array, 0.01, 0.01))


@pytest.mark.parametrize("name", ["layer", "layer.zarr"])
def test_counted_levels_are_used_instead_of_counting(tmp_path, threads, name):
    array = image((6, 20, 20))
    daskflow.open(array).save(tmp_path / name).run(threads, progress=False)
    volume = daskflow.open(tmp_path / name)
    daskflow.contrast_levels(volume).run(threads, progress=False)
    part = daskflow.crop(volume, size=(6, 5, 5))
    result = daskflow.contrast(part, levels="source")
    np.testing.assert_array_equal(result.read(), expected(array, 0.01, 0.01)[:, :5, :5])
    directory = tmp_path / ("layer/levels/0" if name == "layer" else "layer.zarr.levels/0")
    result = daskflow.contrast(part, levels=directory)
    result.save(tmp_path / "new").run(threads, progress=False)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "new").read(), expected(array, 0.01, 0.01)[:, :5, :5])


def test_levels_that_are_missing_damaged_or_of_another_dtype_are_refused_before_anything_is_written(tmp_path, threads):
    volume = daskflow.open(image((2, 5, 5)))
    job = daskflow.contrast(volume, levels=tmp_path / "levels").save(tmp_path / "new")
    with pytest.raises(StoreNotFoundError, match="no levels of section 0"):
        job.run(threads, progress=False)
    (tmp_path / "levels").mkdir()
    for content, error, message in (
        ("not json", CorruptChunkError, "no levels"),
        ("[1]", CorruptChunkError, "no levels"),
        (json.dumps({"levels": [1, 2]}), CorruptChunkError, "must be 256 or 65536"),
        (json.dumps({"levels": [-1] * 256}), CorruptChunkError, "at least 0"),
        (json.dumps({"levels": [1] * 65536}), ParameterError, "the volume has 256"),
    ):
        (tmp_path / "levels" / "0").write_text(content)
        with pytest.raises(error, match=message):
            job.run(threads, progress=False)
    assert not (tmp_path / "new").exists()


def fail_while(array, flag):
    """Return the array, or fail as long as a file is there and the array holds a 251."""
    if flag.exists() and (array == 251).any():
        raise OSError("the disk is gone")
    return array


@pytest.mark.parametrize("operator", [daskflow.contrast, daskflow.clahe])
def test_job_that_failed_half_way_goes_on_and_ends_with_the_same_voxels(tmp_path, threads, operator):
    array = np.minimum(image((4, 40, 48)), 250)
    array[3, 39, 47] = 251
    flag = tmp_path / "flag"
    source = daskflow.open(array).with_block((2, 16, 16))
    flaky = source.map_blocks(fail_while, dtype=np.uint8, flag=flag)
    job = operator(flaky).save(tmp_path / "new", chunk=(2, 16, 16), block=(2, 16, 16))

    flag.touch()
    report = job.run(threads, progress=False, retries=0)
    assert not report.ok
    assert [stage.failed for stage in report.stages][:2] == [1, 0]
    flag.unlink()
    report = job.run(threads, progress=False, retry_failed=True)

    assert report.ok
    assert report.stages[0].skipped == len(job.stages[0].grid) - 1
    np.testing.assert_array_equal(daskflow.open(tmp_path / "new").read(), operator(source).read())
