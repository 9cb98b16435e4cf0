import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskflow
from daskflow.errors import BoundsError, GeometryError, ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.volume import Volume

SHAPE = (6, 9, 12)
OFFSET = (-2, 5, 0)


def volume():
    return daskflow.open(np.arange(np.prod(SHAPE)).reshape(SHAPE), voxel_offset=OFFSET, voxel_size=(40, 4, 4))


@settings(max_examples=30)
@given(st.data())
def test_part_is_what_numpy_cuts_out_and_keeps_its_coordinates(data):
    low = [data.draw(st.integers(0, n - 1)) for n in SHAPE]
    high = [data.draw(st.integers(a + 1, n)) for a, n in zip(low, SHAPE, strict=True)]
    start, stop = ([a + o for a, o in zip(side, OFFSET, strict=True)] for side in (low, high))

    part = daskflow.crop(volume(), start=start, stop=stop)

    assert part.box == BoundingBox(start, stop)
    expected = volume().read()[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    np.testing.assert_array_equal(part.read(), expected)


def test_what_is_not_said_is_the_volumes_own():
    assert daskflow.crop(volume(), start=(0, 6, 1)).box == BoundingBox((0, 6, 1), (4, 14, 12))
    assert daskflow.crop(volume(), stop=(0, 6, 1)).box == BoundingBox((-2, 5, 0), (0, 6, 1))
    assert daskflow.crop(volume(), size=(1, 2, 3)).box == BoundingBox((-2, 5, 0), (-1, 7, 3))


def test_impossible_boxes_are_refused():
    with pytest.raises(ParameterError, match="give start="):
        daskflow.crop(volume())
    with pytest.raises(ParameterError, match="drop one"):
        daskflow.crop(volume(), stop=(1, 7, 3), size=(1, 1, 1))
    with pytest.raises(BoundsError, match="outside"):
        daskflow.crop(volume(), start=(-3, 5, 0))
    with pytest.raises(GeometryError, match="no voxel"):
        daskflow.crop(volume(), start=(0, 6, 1), stop=(0, 7, 2))


def pyramid(mip):
    finest = VolumeSpec(BoundingBox((5, 10, 20), (15, 111, 220)), np.uint8, voxel_size=(40, 4, 4))
    coarser = finest.replace(box=BoundingBox((5, 5, 10), (15, 56, 110)), voxel_size=(40, 8, 8), chunk_origin=None)
    mips = (finest, coarser)
    return Volume.from_function(lambda box: np.zeros(box.shape, np.uint8), mips[mip]).node, mips


@pytest.mark.parametrize(
    ("mip", "bounds_mip", "start", "stop", "expected"),
    [
        (0, 1, (6, 10, 20), (8, 20, 30), BoundingBox((6, 20, 40), (8, 40, 60))),
        (1, 0, (6, 21, 40), (8, 41, 61), BoundingBox((6, 10, 20), (8, 21, 31))),
        (1, 1, (6, 21, 40), (8, 41, 61), BoundingBox((6, 21, 40), (8, 41, 61))),
        (0, 1, (5, 5, 10), (15, 56, 110), BoundingBox((5, 10, 20), (15, 111, 220))),
    ],
)
def test_box_in_voxels_of_another_level_keeps_all_that_it_touches(mip, bounds_mip, start, stop, expected):
    node, mips = pyramid(mip)
    part = daskflow.crop(Volume(node, mips=mips), start=start, stop=stop, bounds_mip=bounds_mip)
    assert part.box == expected


def test_level_that_the_volume_does_not_know_is_refused():
    node, mips = pyramid(0)
    with pytest.raises(GeometryError, match="mips 0 to 0"):
        daskflow.crop(Volume(node), start=(6, 10, 20), bounds_mip=1)
    with pytest.raises(BoundsError, match="mip 1"):
        daskflow.crop(Volume(node, mips=mips), start=(4, 10, 20), bounds_mip=1)
    uneven = mips[0].replace(voxel_size=(40, 6, 6))
    with pytest.raises(GeometryError, match="whole multiples"):
        daskflow.crop(Volume(node, mips=(mips[0], uneven)), start=(6, 10, 20), bounds_mip=1)


@pytest.mark.parametrize("name", ["layer", "layer.zarr"])
def test_part_of_a_layer_is_a_layer_at_the_same_place_with_the_same_voxels(tmp_path, threads, name):
    image = np.random.default_rng(0).integers(1, 255, (16, 40, 40), np.uint8)
    daskflow.open(image, voxel_size=(40, 4, 4)).save(tmp_path / name, chunk=(16, 16, 16)).run(threads, progress=False)

    part = daskflow.crop(daskflow.open(tmp_path / name), start=(0, 10, 10), stop=(16, 30, 30))
    part.save(tmp_path / f"part-{name}").run(threads, progress=False)

    stored = daskflow.open(tmp_path / f"part-{name}")
    assert stored.box == BoundingBox((0, 10, 10), (16, 30, 30))
    np.testing.assert_array_equal(stored.read(), image[:, 10:30, 10:30])


def test_cutout_has_its_place_and_size_in_the_info(tmp_path, threads):
    image = np.random.default_rng(0).integers(1, 255, (64, 256, 256), np.uint8)
    daskflow.open(image, voxel_size=(40, 4, 4)).save(tmp_path / "source", encoding="raw").run(threads, progress=False)

    part = daskflow.crop(daskflow.open(tmp_path / "source"), start=(0, 64, 64), stop=(64, 192, 192))
    part.save(tmp_path / "part").run(threads, progress=False)

    (scale,) = json.loads((tmp_path / "part" / "info").read_text())["scales"]
    assert (scale["voxel_offset"], scale["size"]) == ([64, 64, 0], [128, 128, 64])
    np.testing.assert_array_equal(daskflow.open(tmp_path / "part").read(), image[:, 64:192, 64:192])
