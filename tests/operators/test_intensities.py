"""Intensities as chunkflow has them; what one block or box gives is tested for every operator."""

import json

import numpy as np
import pytest

import daskflow
from daskflow.errors import GeometryError, ParameterError, StoreNotFoundError

RAMP = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
STRETCHED = {0: 1, 1: 1, 2: 1, 3: 1, 4: 2, 10: 8, 128: 129, 252: 255, 255: 255}


def noise(shape=(6, 11, 13), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_contrast_of_sections_is_normalised_once():
    image = np.concatenate([RAMP, np.full_like(RAMP, 100), np.zeros_like(RAMP)])
    for name in (daskflow.normalize_contrast, daskflow.normalize_contrast_nkem):
        result = name(daskflow.open(image)).read()
        assert {v: result[0].ravel()[v] for v in STRETCHED} == STRETCHED
        np.testing.assert_array_equal(result[1:], image[1:])


@pytest.mark.parametrize("block", [(1, 4, 16), (2, 16, 5), (6, 11, 13)])
def test_contrast_of_the_whole_has_one_pair_of_limits_in_any_blocks(block):
    image = noise()
    image[3:] //= 4
    flat = daskflow.normalize_contrast(daskflow.open(image.reshape(1, -1, 13))).read().reshape(image.shape)
    result = daskflow.normalize_contrast(daskflow.open(image).with_block(block), per_section=False)
    np.testing.assert_array_equal(result.read(), flat)
    np.testing.assert_array_equal(result.data.compute(scheduler="synchronous"), flat)
    assert (daskflow.normalize_contrast(daskflow.open(image)).read() != flat).any()


def test_contrast_by_levels_of_files_equals_that_of_the_whole(tmp_path):
    image = noise((3, 40, 40))
    for z, section in enumerate(image):
        levels = np.bincount(section.ravel(), minlength=256).tolist()
        (tmp_path / str(z + 7)).write_text(json.dumps({"levels": levels}))
    options = {"lower_clip_fraction": 0.0023, "upper_clip_fraction": 0.05, "minval": 3, "maxval": 200}
    volume = daskflow.open(image, voxel_offset=(7, 0, 0))
    whole = daskflow.normalize_contrast(volume, **options).read()
    part = daskflow.crop(volume, start=(7, 5, 5), size=(2, 9, 9))
    result = daskflow.normalize_section_contrast(part, levels_path=tmp_path, **options)
    np.testing.assert_array_equal(result.read(), whole[:2, 5:14, 5:14])
    empty = np.zeros((1, 40, 40), np.uint8)  # which has no levels
    beyond = daskflow.open(np.concatenate([empty, image[:1]]), voxel_offset=(6, 0, 0))
    result = daskflow.normalize_section_contrast(beyond, levels_path=tmp_path, **options)
    np.testing.assert_array_equal(result.read(), np.concatenate([empty, whole[:1]]))
    with pytest.raises(StoreNotFoundError, match="section 6"):
        result.save(tmp_path / "out").check()
    (tmp_path / "9").unlink()
    with pytest.raises(StoreNotFoundError, match="section 9"):
        daskflow.normalize_section_contrast(volume, levels_path=tmp_path).read()
    with pytest.raises(ParameterError, match="per_section"):
        daskflow.normalize_contrast(volume, levels=tmp_path, per_section=False)


def test_extremes_of_sections_become_the_nominal_values():
    section = np.arange(16, dtype=np.float32).reshape(4, 4)
    image = np.stack([section, np.full((4, 4), 7, np.float32), section // 8, section * 3])
    volume = daskflow.open(image).with_block((3, 1, 3))
    result = daskflow.normalize_section_shang(volume, nominalmin=-1, nominalmax=1, clipvalues=True).read()
    expected = np.clip((np.arange(16) - 1) * 2 / 13 - 1, -1, 1).reshape(4, 4)
    np.testing.assert_allclose(result[[0, 3]], [expected, expected], atol=1e-6)
    np.testing.assert_array_equal(result[1:3], image[1:3])
    free = daskflow.normalize_section_shang(daskflow.open(RAMP)).read()
    np.testing.assert_allclose(free.ravel()[[1, 254]], [0, 255], atol=1e-4)
    assert free.dtype == np.float32
    assert free.min() < 0


def test_the_first_of_the_strongest_channels_wins():
    array = np.random.default_rng(1).integers(0, 3, (5, 2, 3, 4)).astype(np.float32)
    result = daskflow.channel_voting(daskflow.open(array))
    assert (result.dtype, result.layer_type) == (np.uint8, "segmentation")
    np.testing.assert_array_equal(result.read(), array.argmax(axis=0) + 1)
    with pytest.raises(ParameterError, match="1 to 255"):
        daskflow.channel_voting(daskflow.open(np.zeros((256, 1, 1, 1), np.float32)))


def test_affinities_are_averaged_in_the_plane_or_taken_across_it():
    affinities = daskflow.open(np.float32([0.2, 0.6, 1]).reshape(3, 1, 1, 1))
    assert [daskflow.quantize(affinities, mode=mode).read().item() for mode in (None, "xy", "z")] == [102, 102, 255]
    assert daskflow.quantize(affinities, channel=0).read().item() == 51
    assert daskflow.quantize(daskflow.open(np.float32([[[0.999]]]))).read().item() == 254
    with pytest.raises(ParameterError, match="both a mode"):
        daskflow.quantize(affinities, mode="z", channel=0)


def test_products_follow_numpy():
    image, factor = noise((2, 3, 4)), noise((3, 2, 3, 4), seed=1)
    result = daskflow.multiply(daskflow.open(image), daskflow.open(factor))
    np.testing.assert_array_equal(result.read(), image * factor)
    assert daskflow.multiply(daskflow.open(image), daskflow.open(np.float32(factor[0]))).dtype == np.float32
    with pytest.raises(GeometryError, match="cover"):
        daskflow.multiply(daskflow.open(image), daskflow.open(image, voxel_offset=(1, 0, 0)))


@pytest.fixture
def coarse(tmp_path):
    """A mask of voxels of 16 nm, whose lower half is 0, from z = -2 on, in chunks of which one is not stored."""
    voxels = np.ones((8, 4, 4), np.uint8)
    voxels[:4] = 0
    volume = daskflow.open(voxels, voxel_offset=(-2, 0, 0), voxel_size=(16, 16, 16))
    daskflow.save(volume, tmp_path / "mask", format="precomputed", chunk=(4, 2, 4)).run(progress=False)
    next((tmp_path / "mask").glob("*/0-4_2-4_2-6*")).unlink()
    whole = np.zeros((8, 4, 4), bool)
    whole[4:, :2] = True
    return tmp_path / "mask", whole


@pytest.mark.parametrize("inverse", [False, True])
def test_a_voxel_is_masked_by_the_coarse_voxel_that_it_lies_in(coarse, inverse):
    path, whole = coarse
    array = noise((2, 13, 10, 9)) | 1
    volume = daskflow.open(array, voxel_offset=(-1, -1, 1), voxel_size=(8, 8, 8)).with_block((5, 3, 4))
    padded = np.pad(whole, 2)  # from voxel -4 -2 -2 of the mask on
    at = [np.arange(a, b) // 2 - first for a, b, first in ((-1, 12, -4), (-1, 9, -2), (1, 10, -2))]
    kept = padded[np.ix_(*at)]
    result = daskflow.mask(volume, volume_path=path, mip=0, inverse=inverse)
    np.testing.assert_array_equal(result.data.compute(scheduler="synchronous"), array * (kept != inverse))
    alone = result.box.shrink(4)
    np.testing.assert_array_equal(result.read(alone), result.read()[(..., *alone.slices(result.box))])


def test_a_mask_that_cannot_be_laid_over_the_volume_is_refused(coarse):
    path, _ = coarse
    array = noise((4, 4, 4))
    with pytest.raises(ParameterError, match="voxel size unknown"):
        daskflow.mask(daskflow.open(array), volume_path=path, mip=0)
    with pytest.raises(GeometryError, match="not whole multiples"):
        daskflow.mask(daskflow.open(array, voxel_size=(32, 8, 8)), volume_path=path, mip=0)
    far = daskflow.open(array, voxel_size=(8, 8, 8), voxel_offset=(0, 0, 99))
    with pytest.raises(GeometryError, match="fill_missing"):
        daskflow.mask(far, volume_path=path, mip=0, fill_missing=False)
    assert not daskflow.mask(far, volume_path=path, mip=0).read().any()


@pytest.mark.parametrize("inverse", [False, True])
def test_a_mask_that_is_nan_is_refused_where_it_is_read(tmp_path, inverse):
    voxels = np.ones((2, 4, 4), np.float32)
    voxels[1, 2, 3] = np.nan
    daskflow.open(voxels, voxel_size=(16, 16, 16)).save(tmp_path / "mask.zarr").run(progress=False)
    volume = daskflow.open(noise((4, 8, 8)), voxel_size=(8, 8, 8))
    masked = daskflow.mask(volume, volume_path=tmp_path / "mask.zarr", mip=0, inverse=inverse)
    with pytest.raises(ParameterError, match=r"the mask is nan at \(1, 2, 3\) \(zyx, in its own voxels\)"):
        masked.read()
    assert masked.crop(volume.box.shrink((0, 0, 0), (2, 0, 0))).read().any() != inverse


def test_intensities_are_rescaled_by_the_extremes_of_the_volume():
    image = np.float32([[[2, 4, np.nan]], [[3, 6, 12]]])
    volume = daskflow.open(image).with_block((1, 1, 2))
    assert daskflow.rescale_intensity(volume).read().tolist() == [[[0, 51, 0]], [[26, 102, 255]]]
    assert daskflow.rescale_intensity(volume, low=4).read().tolist() == [[[0, 0, 0]], [[0, 64, 255]]]
    assert daskflow.rescale_intensity(volume, low=0, high=6).read().tolist() == [[[85, 170, 0]], [[128, 255, 255]]]


def test_grey_values_are_inverted_stretched_and_filtered():
    from scipy import ndimage

    image = noise()
    np.testing.assert_array_equal(daskflow.inverse(daskflow.open(image)).read(), 255 - image)
    assert daskflow.inverse(daskflow.open(np.float32([[[0, 0.25, 1]]]))).read().tolist() == [[[1, 0.75, 0]]]
    stretched = daskflow.stretch_intensity(daskflow.open(RAMP), min_threshold=50, max_threshold=150).read().ravel()
    assert stretched[[0, 50, 51, 100, 150, 255]].tolist() == [0, 0, 2, 127, 255, 255]
    filtered = daskflow.median_filter(daskflow.open(image).with_block((2, 4, 5)), size=(3, 3, 1))
    expected = ndimage.median_filter(image, size=(3, 3, 1), mode="reflect")
    np.testing.assert_array_equal(filtered.data.compute(scheduler="synchronous"), expected)


def count(array, box, directory):
    (directory / str(box)).touch()
    return array + 1


def test_what_is_masked_out_throughout_a_block_is_not_computed(coarse, tmp_path):
    path, whole = coarse
    (tmp_path / "computed").mkdir()
    volume = daskflow.open(np.zeros((16, 8, 8), np.uint8), voxel_offset=(-4, 0, 0), voxel_size=(8, 8, 8))
    dear = volume.with_block((4, 8, 8)).map_blocks(count, dtype=np.uint8, directory=tmp_path / "computed")
    result = daskflow.mask(dear, volume_path=path, mip=0)
    kept = np.kron(whole, np.ones((2, 2, 2), np.uint8))
    np.testing.assert_array_equal(result.data.compute(scheduler="synchronous"), kept)
    assert sorted(file.name for file in (tmp_path / "computed").iterdir()) == ["4-8_0-8_0-8", "8-12_0-8_0-8"]
    np.testing.assert_array_equal(daskflow.multiply(dear, result).read(), kept)


def test_a_line_masks_what_a_later_command_gets(coarse, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from daskflow.cli.app import app

    path, whole = coarse
    monkeypatch.chdir(tmp_path)
    volume = daskflow.open(np.ones((16, 8, 8), np.uint8), voxel_offset=(-4, 0, 0), voxel_size=(8, 8, 8))
    volume.save("em").run(progress=False)
    line = f"open em -o a mask -i a -v {path} --mip 0 --check-all-zero --skip-to save inverse -i a -o b"
    result = CliRunner().invoke(app, f"{line} save -i b saved".split())
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(daskflow.open("saved").read(), np.kron(whole, np.ones((2, 2, 2))) * 254)
    failing = CliRunner().invoke(app, f"{line} contrast-levels -i b --output levels".split())
    assert "no such command after it" in failing.output


def test_a_line_masks_or_multiplies_several_volumes_and_keeps_their_names(coarse, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from daskflow.cli.app import app

    path, whole = coarse
    monkeypatch.chdir(tmp_path)
    kept = np.kron(whole, np.ones((2, 2, 2), np.uint8))
    for name, value in (("a", 3), ("b", 2)):
        voxels = np.full((16, 8, 8), value, np.uint8)
        daskflow.open(voxels, voxel_offset=(-4, 0, 0), voxel_size=(8, 8, 8)).save(f"{name}.zarr").run(progress=False)
    line = f"open a.zarr -o a open b.zarr -o b mask -i a,b -v {path} --mip 0 multiply -i a -m b -o c"
    result = CliRunner().invoke(app, f"{line} save -i b left save -i c out".split())
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(daskflow.open("left").read(), kept * 2)
    np.testing.assert_array_equal(daskflow.open("out").read(), kept * 6)


def test_intensities_are_mapped_to_0_and_1():
    np.testing.assert_allclose(daskflow.mapto01(daskflow.open(RAMP)).read(), RAMP / 255, atol=1e-7)
    assert daskflow.mapto01(daskflow.open(np.float32([[[-1, 0, 1]]]))).read().tolist() == [[[0, 0.5, 1]]]
    for operator, value in ((daskflow.mapto01, -1.5), (daskflow.inverse, 1.5)):
        with pytest.raises(ParameterError, match=str(value)):
            operator(daskflow.open(np.full((1, 1, 1), value, np.float32))).read()


def test_nan_wins_no_vote_and_infinity_spreads_nothing():
    nan = np.array([np.nan, 0.2, 0.9, np.nan, np.nan, np.nan], np.float32).reshape(2, 3, 1, 1).swapaxes(0, 1)
    assert daskflow.channel_voting(daskflow.open(nan)).read().ravel().tolist() == [3, 1]
    volume = daskflow.open(np.array([[[1, np.inf, 3]]], np.float32))
    with pytest.raises(ParameterError, match="cannot be spread"):
        daskflow.rescale_intensity(volume).read()
    assert daskflow.rescale_intensity(volume, low=1, high=3).read().ravel().tolist() == [0, 255, 255]
