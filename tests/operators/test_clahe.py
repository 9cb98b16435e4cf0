import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskflow
from daskflow.errors import ParameterError


def image(shape, dtype="uint8", seed=0):
    scale = 1 if dtype == "uint8" else 200
    return np.clip(np.random.default_rng(seed).normal(120, 40, shape) * scale, 0, 255 * scale).astype(dtype)


def of_opencv(array, clip_limit=40.0, tile_grid=(8, 8)):
    equalizer = cv2.createCLAHE(clip_limit, tuple(tile_grid)[::-1])
    return np.stack([equalizer.apply(section) for section in array])


@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70)),
    st.tuples(st.integers(1, 3), st.integers(16, 70), st.integers(16, 70)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([40.0, 2.0, 0.0, -1.0, 3.7, 1e4]),
    st.integers(0, 99),
)
def test_every_voxel_is_what_opencv_makes_of_the_whole_section_in_any_blocks(shape, block, grid, clip_limit, seed):
    array = image(shape, seed=seed)
    volume = daskflow.open(array, voxel_offset=(-3, 7, 11)).with_block(block)
    result = daskflow.clahe(volume, clip_limit=clip_limit, tile_grid=grid).read()
    np.testing.assert_array_equal(result, of_opencv(array, clip_limit, grid))


@settings(max_examples=6)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 2), st.integers(20, 40), st.integers(20, 40)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from([40.0, 2.0, 0.0]),
)
def test_sixteen_bits_are_equalised_as_by_opencv(shape, block, grid, clip_limit):
    array = image(shape, "uint16")
    volume = daskflow.open(array).with_block(block)
    result = daskflow.clahe(volume, clip_limit=clip_limit, tile_grid=grid).read()
    np.testing.assert_array_equal(result, of_opencv(array, clip_limit, grid))


def test_sections_larger_than_a_block_of_real_em_are_equalised_as_by_opencv(real_data, tmp_path, threads):
    import tifffile

    array = np.tile(tifffile.imread(real_data / "fib25_image.tif")[:3], (1, 2, 2))[:, :450, :470]
    for name in ("layer", "layer.zarr"):
        daskflow.open(array).save(tmp_path / name, chunk=(2, 128, 128)).run(threads, progress=False)
        volume = daskflow.open(tmp_path / name).with_block((2, 128, 128))
        daskflow.clahe(volume).save(tmp_path / f"new-{name}").run(threads, progress=False)
        np.testing.assert_array_equal(daskflow.open(tmp_path / f"new-{name}").read(), of_opencv(array))


@pytest.mark.parametrize("value", [0, 77, 255])
def test_constant_sections_are_taken_as_opencv_takes_them(value):
    array = np.full((1, 20, 30), value, np.uint8)
    np.testing.assert_array_equal(daskflow.clahe(daskflow.open(array)).read(), of_opencv(array))


def test_channel_axis_of_one_stays():
    array = image((2, 20, 20))
    np.testing.assert_array_equal(daskflow.clahe(daskflow.open(array[None])).read(), of_opencv(array)[None])


@pytest.mark.parametrize(
    ("volume", "options", "message"),
    [
        (daskflow.open(np.ones((1, 2, 2), np.uint8), layer_type="segmentation"), {}, "volume is a segmentation"),
        (daskflow.open(np.ones((2, 1, 2, 2), np.uint8)), {}, "has 2; use pick-channels"),
        (daskflow.open(np.ones((1, 2, 2), np.int16)), {}, "is int16; use astype"),
        (daskflow.open(np.ones((1, 2, 2), np.uint8)), {"clip_limit": float("nan")}, "clip limit is nan"),
        (daskflow.open(np.ones((1, 2, 2), np.uint8)), {"tile_grid": (8,)}, "two numbers of tiles"),
        (daskflow.open(np.ones((1, 2, 2), np.uint8)), {"tile_grid": (8, 0)}, "two numbers of tiles"),
        (daskflow.open(np.ones((1, 2, 2), np.uint8)), {"tile_grid": (8, 2.5)}, "two numbers of tiles"),
    ],
)
def test_what_cannot_be_equalised_is_refused(volume, options, message):
    with pytest.raises(ParameterError, match=message):
        daskflow.clahe(volume, **options)


def test_deep_blocks_of_sixteen_bits_are_cut_so_that_tables_fit(tmp_path, threads):
    array = image((8, 16, 16), "uint16")
    volume = daskflow.open(array).with_block((64, 16, 16))
    result = daskflow.clahe(volume)
    assert result.block[0] < 64  # 64 tiles of 65536 grey values in each section
    job = result.save(tmp_path / "new", chunk=(4, 16, 16))
    assert max(stage.block_memory for stage in job.plan().stages) < 500e6
    job.run(threads, progress=False)
    np.testing.assert_array_equal(daskflow.open(tmp_path / "new").read(), of_opencv(array))


def test_tables_of_many_sections_and_of_some_tiles_each_are_the_same(monkeypatch):
    from daskflow.operators.image import clahe

    array = image((12, 40, 30))
    volume = daskflow.open(array, voxel_offset=(5, 0, 0)).with_block((8, 20, 15))
    for held in (2**22, 2**14, 2**10, 1):
        monkeypatch.setattr(clahe, "_COUNTS", held)
        np.testing.assert_array_equal(daskflow.clahe(volume, tile_grid=(4, 3)).read(), of_opencv(array, 40.0, (4, 3)))


@pytest.mark.parametrize("operator", [daskflow.clahe, daskflow.contrast])
def test_part_whose_blocks_begin_within_it_is_a_volume_of_its_own(operator):
    volume = daskflow.open(image((12, 40, 30)), voxel_offset=(-5, 0, 0)).with_block((8, 16, 16))
    part = daskflow.crop(volume, start=(-3, 5, 7), stop=(6, 38, 29))
    assert part.spec.chunk_origin == (-5, 0, 0)
    alone = daskflow.open(part.read())
    np.testing.assert_array_equal(operator(part).read(), operator(alone).read())
    np.testing.assert_array_equal(operator(part).compute(scheduler="synchronous"), operator(alone).read())
