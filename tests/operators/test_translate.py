import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskflow
from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox

IMAGE = np.random.default_rng(0).integers(1, 255, (6, 20, 24), np.uint8)
NUMBERS = st.tuples(*[st.integers(-100, 100)] * 3)


def volume(**spec):
    return daskflow.open(IMAGE, voxel_offset=(3, -4, 5), voxel_size=(40, 4, 4), **spec)


@settings(max_examples=20)
@given(NUMBERS, st.tuples(*[st.integers(4, 9)] * 3))
def test_voxels_lie_elsewhere_and_are_the_same_in_any_blocks(offset, block):
    moved = daskflow.translate(volume().with_block(block), offset=offset)
    assert moved.box == volume().box.shift(offset)
    assert moved.voxel_size == (40, 4, 4)
    np.testing.assert_array_equal(moved.data.compute(scheduler="synchronous"), IMAGE)


@given(NUMBERS)
def test_first_voxel_goes_where_it_is_sent(to):
    assert daskflow.translate(volume(), to=to).box == BoundingBox.from_size(to, IMAGE.shape)


def test_chunks_move_with_the_voxels(tmp_path, threads):
    volume().save(tmp_path / "layer", chunk=(4, 8, 8)).run(threads, progress=False)
    opened = daskflow.open(tmp_path / "layer")
    moved = daskflow.translate(opened, offset=(1, 2, 3))
    assert moved.spec.chunk == (4, 8, 8)
    assert moved.spec.chunk_origin == (4, -2, 8)
    assert [box.shift((-1, -2, -3)) for box in moved.grid] == list(opened.grid)


def test_neither_or_both_of_offset_and_place_are_refused():
    with pytest.raises(ParameterError, match="give offset= or to="):
        daskflow.translate(volume())
    with pytest.raises(ParameterError, match="drop one"):
        daskflow.translate(volume(), offset=(1, 1, 1), to=(1, 1, 1))


def test_layer_written_at_another_offset_has_identical_voxels_and_levels_at_half_the_offset(tmp_path, threads):
    image = np.random.default_rng(1).integers(0, 255, (16, 64, 64), np.uint8)
    daskflow.open(image, voxel_size=(40, 4, 4), layer_type="image").save(tmp_path / "source").run(
        threads, progress=False
    )

    moved = daskflow.translate(daskflow.open(tmp_path / "source"), to=(5, 20, 10))
    moved.save(tmp_path / "moved", chunk=(8, 8, 8), levels=3).run(threads, progress=False)

    stored = daskflow.open(tmp_path / "moved")
    assert [mip.box.start for mip in stored.mips] == [(5, 20, 10), (5, 10, 5), (5, 5, 2), (5, 2, 1)]
    np.testing.assert_array_equal(stored.read(), image)
    info = json.loads((tmp_path / "moved" / "info").read_text())
    assert [scale["voxel_offset"] for scale in info["scales"]] == [[10, 20, 5], [5, 10, 5], [2, 5, 5], [1, 2, 5]]
