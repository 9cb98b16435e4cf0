"""Levels made while one looks: the same voxels whatever box is asked for, averaged in windows from the origin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import MissingChunkError
from daskflow.geometry import BoundingBox
from daskflow.stores.opening import create_store, open_store
from daskflow.view.server import READ_LIMIT, chunk_of, coarsened, levels_of
from daskflow.volume import Volume


def image(shape=(20, 130, 150), offset=(-3, 5, -70), voxel_size=(40, 4, 4), dtype=np.uint8, **spec):
    array = np.random.default_rng(7).integers(0, 250, shape).astype(dtype)
    return Volume.from_array(array, voxel_offset=offset, voxel_size=voxel_size, **spec)


def inner_boxes(box: BoundingBox):
    spans = [
        st.tuples(st.integers(a, b), st.integers(a, b)).map(sorted) for a, b in zip(box.start, box.stop, strict=True)
    ]
    return (
        st.tuples(*spans)
        .filter(lambda s: all(a < b for a, b in s))
        .map(lambda s: BoundingBox(tuple(a for a, _ in s), tuple(b for _, b in s)))
    )


@pytest.mark.parametrize("layer_type", ["image", "segmentation"])
@settings(deadline=None)
@given(data=st.data())
def test_any_box_of_a_coarse_level_is_that_part_of_the_whole(layer_type, data):
    level = levels_of(image(shape=(5, 70, 80), layer_type=layer_type))[-1]
    box = data.draw(inner_boxes(level.spec.box))
    assert np.array_equal(level.read(box), level.read(level.spec.box)[box.slices(level.spec.box)])


def test_coarse_voxel_of_an_image_is_the_mean_of_its_window_counted_from_the_origin():
    volume = image(shape=(3, 65, 70))
    level = levels_of(volume)[1]
    fine, coarse = volume.read(), level.read(level.spec.box)
    factor = [round(c / f) for c, f in zip(level.spec.voxel_size, volume.voxel_size, strict=True)]
    assert factor == [1, 2, 2]
    for position in np.ndindex(coarse.shape):
        at = tuple(p + s for p, s in zip(position, level.spec.box.start, strict=True))
        window = BoundingBox.from_size(at, (1, 1, 1)).refine(factor).clip(volume.box)
        assert abs(fine[window.slices(volume.box)].mean() - coarse[position]) <= 0.5001


def test_coarse_level_of_labels_invents_no_label():
    volume = image(dtype=np.uint32)
    coarsest = levels_of(volume)[-1]
    assert coarsest.spec.dtype == np.uint32
    assert set(np.unique(coarsest.read(coarsest.spec.box))) <= set(np.unique(volume.read()))


def test_channels_are_averaged_apart():
    array = np.stack([np.full((8, 200, 200), value, np.float32) for value in (0.25, 0.5, 1.0)])
    level = levels_of(Volume.from_array(array, layer_type="affinity_map"))[1]
    coarse = level.read(level.spec.box)
    assert coarse.shape == level.spec.shape
    assert coarse[:, 0, 0, 0].tolist() == [0.25, 0.5, 1.0]
    assert (coarse == coarse[:, :1, :1, :1]).all()


def test_small_voxels_double_first_and_the_same_space_is_covered():
    levels = levels_of(image(shape=(100, 300, 300), voxel_size=(16, 4, 4)))
    assert [level.spec.voxel_size for level in levels] == [(16, 4, 4), (16, 8, 8), (16, 16, 16), (32, 32, 32)]
    for level in levels:
        corner = [a * v for a, v in zip(level.spec.box.start, level.spec.voxel_size, strict=True)]
        assert all(c <= s * v for c, s, v in zip(corner, (-3, 5, -70), (16, 4, 4), strict=True))


def test_levels_stop_when_one_chunk_holds_the_volume():
    assert len(levels_of(image(shape=(64, 64, 64)))) == 1
    last = levels_of(image(shape=(65, 65, 65), voxel_size=(8, 8, 8), offset=(0, 0, 0)))[-1]
    assert last.spec.box.shape == (33, 33, 33)


def test_chunk_of_a_coarse_level_never_needs_more_than_the_limit():
    def unread(box):
        raise AssertionError(box)

    huge = image().spec.replace(box=BoundingBox((0, 0, 0), (10**5, 10**6, 10**6)), dtype=np.float32, channels=3)
    levels = coarsened(type(levels_of(image())[0])(huge, unread))
    factor = [c / f for c, f in zip(levels[-1].spec.voxel_size, huge.voxel_size, strict=True)]
    assert len(levels) > 1
    assert math.prod(factor) * math.prod(chunk_of(huge)) * 12 <= READ_LIMIT


def test_chunks_follow_the_store_up_to_128():
    spec = image().spec
    assert chunk_of(spec.replace(chunk=(1, 4096, 50))) == (1, 128, 50)
    assert chunk_of(spec.replace(chunk=None)) == (64, 64, 64)


def test_stored_levels_are_shown_as_they_are_stored(tmp_path):
    volume = image(shape=(16, 64, 64), offset=(0, 0, 0))
    for mip, value in ((0, 10), (1, 99)):
        spec = volume.spec.replace(box=volume.box.coarsen((1, 2**mip, 2**mip)), voxel_size=(40, 4 * 2**mip, 4 * 2**mip))
        store = create_store(tmp_path / "layer", spec, mip=mip, format="precomputed")
        store.write(spec.box, np.full(spec.shape, value, np.uint8))
    levels = levels_of(Volume.from_store(open_store(tmp_path / "layer")))
    assert [level.read(level.spec.box).max() for level in levels] == [10, 99]
    assert [level.spec.voxel_size for level in levels] == [(40, 4, 4), (40, 8, 8)]


@pytest.mark.parametrize("fill_missing", [False, True])
def test_stored_levels_keep_how_the_volume_was_opened(tmp_path, fill_missing):
    volume = image(shape=(16, 64, 64), offset=(0, 0, 0))
    for mip in (0, 1):
        spec = volume.spec.replace(box=volume.box.coarsen((1, 2**mip, 2**mip)), voxel_size=(40, 4 * 2**mip, 4 * 2**mip))
        create_store(tmp_path / "layer.zarr", spec, mip=mip)
    stored = open_store(
        tmp_path / "layer.zarr", fill_missing=fill_missing, voxel_offset=(0, 0, 8), layer_type="segmentation"
    )
    coarse = levels_of(Volume.from_store(stored))[1]
    assert (coarse.spec.box.start, coarse.spec.layer_type) == ((0, 0, 4), "segmentation")
    if fill_missing:
        assert not coarse.read(coarse.spec.box).any()
    else:
        with pytest.raises(MissingChunkError):
            coarse.read(coarse.spec.box)
