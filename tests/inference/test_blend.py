import sys

import numpy as np
import pytest
from chunkflow_weights import bump
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import BoundsError, ModelError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.inference.blend import infer
from daskflow.inference.network import ModelFile, Network
from daskflow.inference.patches import PatchGrid
from daskflow.stores.counting import counting


def grid_of(box, patch, overlap, output=None):
    return PatchGrid(box, patch, output or patch, overlap)


def identity(grid, channels=1, **options):
    return Network("identity", grid.input_patch, grid.output_patch, channels=channels, **options)


def whole(array, grid, network, **options):
    return infer(array, box=grid.covered, read_box=grid.box, grid=grid, network=network, **options)


def by_blocks(array, grid, network, block):
    result = np.empty((network.channels, *grid.covered.shape), np.float32)
    for box in BlockGrid(grid.covered, block):
        reads = grid.reads(box)
        part = array[(..., *reads.slices(grid.box))]
        result[(slice(None), *box.slices(grid.covered))] = infer(
            part, box=box, read_box=reads, grid=grid, network=network
        )
    return result


def reference(array, grid, answer):
    """Weighted mean in float64 of what `answer` gives for each patch, over the whole volume."""
    weight = bump(grid.output_patch)
    total = {}
    for patch in grid.patches(grid.covered):
        index = [
            np.pad(np.arange(n), (max(0, n0 - a), max(0, b - n1)), mode="reflect")[max(0, a - n0) :][: b - a]
            for n, n0, n1, a, b in zip(
                grid.box.shape, grid.box.start, grid.box.stop, patch.input.start, patch.input.stop, strict=True
            )
        ]
        outputs = answer(array[np.ix_(*index)].astype(np.float64))
        inside = patch.output.clip(grid.covered)
        at, part = inside.slices(grid.covered), inside.slices(patch.output)
        if not total:
            total["sum"] = np.zeros((len(outputs), *grid.covered.shape))
            total["weight"] = np.zeros(grid.covered.shape)
        total["sum"][(slice(None), *at)] += (outputs * weight)[(slice(None), *part)]
        total["weight"][at] += weight[part]
    return total["sum"] / total["weight"]


@st.composite
def grids(draw):
    output = draw(st.tuples(*[st.integers(1, 7)] * 3))
    more = draw(st.tuples(*[st.integers(0, 4)] * 3))
    shape = draw(st.tuples(*[st.integers(1, 16)] * 3))
    start = draw(st.tuples(*[st.integers(-9, 9)] * 3))
    overlap = tuple(draw(st.integers(0, n - 1)) for n in output)
    patch = tuple(o + m for o, m in zip(output, more, strict=True))
    return PatchGrid(BoundingBox.from_size(start, shape), patch, output, overlap)


blocks = st.tuples(*[st.integers(2, 9)] * 3)


@settings(max_examples=60)
@given(grid=grids(), block=blocks, batch=st.integers(1, 5), seed=st.integers(0, 9))
def test_any_block_grid_gives_the_whole_volumes_result(mirror, grid, block, batch, seed):
    array = np.random.default_rng(seed).integers(0, 256, grid.box.shape, dtype=np.uint8)
    network = Network("universal", grid.input_patch, grid.output_patch, channels=2, model=mirror, batch_size=batch)
    expected = whole(array, grid, network)
    np.testing.assert_allclose(by_blocks(array, grid, network, block), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=60)
@given(grid=grids(), seed=st.integers(0, 9))
def test_the_result_is_the_weighted_mean_over_all_patches(mirror, grid, seed):
    array = np.random.default_rng(seed).random(grid.box.shape).astype(np.float32) + 0.01
    crop = tuple(
        slice((i - o) // 2, (i - o) // 2 + o) for i, o in zip(grid.input_patch, grid.output_patch, strict=True)
    )

    def answer(patch):
        inner = patch[crop]
        return np.stack([inner[..., ::-1], inner**2 + 1])

    network = Network("universal", grid.input_patch, grid.output_patch, channels=2, model=mirror)
    np.testing.assert_allclose(whole(array, grid, network), reference(array, grid, answer), rtol=1e-5, atol=1e-6)


@settings(max_examples=60)
@given(grid=grids(), dtype=st.sampled_from([np.uint8, np.uint16, np.int16]), seed=st.integers(0, 9))
def test_identity_returns_the_scaled_image_on_every_covered_voxel(grid, dtype, seed):
    array = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, grid.box.shape).astype(dtype)
    result = whole(array, grid, identity(grid, channels=2))
    expected = array[grid.covered.slices(grid.box)] / np.iinfo(dtype).max
    np.testing.assert_allclose(result, np.stack([expected] * 2), atol=1e-6)


def test_floats_reach_the_network_as_they_are():
    grid = grid_of(BoundingBox((0, 0, 0), (4, 8, 8)), (4, 8, 8), (0, 0, 0))
    for dtype in (np.float64, np.float32, np.float16):
        array = np.full(grid.box.shape, -300.5, dtype)
        result = whole(array, grid, identity(grid))
        assert result.dtype == np.float32
        assert (result == -300.5).all()


def test_booleans_reach_the_network_as_zero_and_one():
    grid = grid_of(BoundingBox((0, 0, 0), (2, 2, 2)), (2, 2, 2), (0, 0, 0))
    array = np.random.default_rng(0).random(grid.box.shape) < 0.5
    np.testing.assert_array_equal(whole(array, grid, identity(grid))[0], array)


def test_input_channels_reach_the_network_in_order():
    grid = grid_of(BoundingBox((0, 0, 0), (4, 6, 6)), (4, 4, 4), (2, 2, 2))
    array = np.random.default_rng(0).random((3, *grid.box.shape), np.float32)
    result = whole(array, grid, identity(grid, channels=3, input_channels=3))
    np.testing.assert_allclose(result, array, atol=1e-6)


def test_the_input_is_not_changed():
    grid = grid_of(BoundingBox((0, 0, 0), (4, 6, 6)), (4, 4, 4), (2, 2, 2))
    for dtype in (np.float32, np.uint8):
        array = (np.random.default_rng(0).random(grid.box.shape) * 99).astype(dtype)
        before = array.copy()
        array.flags.writeable = False
        whole(array, grid, identity(grid))
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1), (3, 16, 5)])
def test_a_volume_smaller_than_a_patch_is_reflected_at_its_edges(mirror, shape):
    grid = grid_of(BoundingBox.from_size((5, 5, 5), shape), (4, 8, 8), (2, 4, 4))
    array = np.random.default_rng(0).random(shape).astype(np.float32) + 0.1
    np.testing.assert_allclose(whole(array, grid, identity(grid))[0], array, rtol=1e-6)
    network = Network("universal", grid.input_patch, grid.output_patch, channels=2, model=mirror)
    np.testing.assert_allclose(
        whole(array, grid, network),
        reference(array, grid, lambda p: np.stack([p[..., ::-1], p**2 + 1])),
        rtol=1e-5,
    )


def test_patches_of_zeros_answer_zeros_and_are_not_run(mirror):
    grid = grid_of(BoundingBox((0, 0, 0), (4, 4, 12)), (4, 4, 4), (0, 0, 0))
    network = Network("universal", grid.input_patch, grid.output_patch, channels=2, model=mirror, batch_size=3)
    array = np.ones(grid.box.shape, np.uint8)
    array[..., 4:8] = 0
    network.engine()
    calls = sys.modules[f"daskflow_model_{mirror.sha256[:16]}"].calls
    calls.clear()
    result = whole(array, grid, network)
    assert calls == [2]
    assert (result[..., 4:8] == 0).all()
    assert (result[1, ..., :4] > 1).all()
    calls.clear()
    assert not whole(np.zeros_like(array), grid, network).any()
    assert calls == []


@settings(max_examples=40)
@given(grid=grids(), block=blocks, data=st.data())
def test_zero_regions_do_not_make_the_result_depend_on_the_blocks(mirror, grid, block, data):
    array = np.random.default_rng(0).integers(0, 256, grid.box.shape, dtype=np.uint8)
    cut = data.draw(st.integers(0, grid.box.shape[2]))
    array[..., :cut] = 0
    network = Network("universal", grid.input_patch, grid.output_patch, channels=2, model=mirror, batch_size=2)
    np.testing.assert_allclose(
        by_blocks(array, grid, network, block), whole(array, grid, network), rtol=1e-5, atol=1e-5
    )


class TestNonFiniteAnswers:
    grid = grid_of(BoundingBox((0, 0, 0), (4, 4, 12)), (4, 4, 6), (0, 0, 2))

    def image(self, value):
        array = np.ones(self.grid.box.shape, np.float32)
        array[1, 2, 10] = value
        return array

    def broken(self, tmp_path, value):
        """A network that answers `value` where the image is 5."""
        path = tmp_path / "broken.py"
        path.write_text(
            "import numpy as np\n"
            "class PatchInferencer:\n"
            "    def __init__(self, weight_path, output_patch_mask): pass\n"
            f"    def __call__(self, patches): return np.where(patches == 5, np.float32('{value}'), patches)\n"
        )
        return Network("universal", self.grid.input_patch, self.grid.output_patch, 1, model=ModelFile.at(path))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_fail_the_block_and_name_network_patch_and_count(self, tmp_path, value):
        with pytest.raises(ModelError, match=r"broken\.py .* in 1 of 192 values .* patch 0-4_0-4_6-12") as caught:
            whole(self.image(5), self.grid, self.broken(tmp_path, value))
        assert "nan='zero'" in str(caught.value)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_are_the_images_fault_where_it_holds_them(self, tmp_path, value):
        for network in (identity(self.grid), self.broken(tmp_path, 0)):
            with pytest.raises(ParameterError, match=rf"the image holds {value} at voxel \(1, 2, 10\) zyx"):
                whole(self.image(value), self.grid, network)

    def test_of_an_image_in_a_patch_that_reaches_into_the_box_are_named_at_their_global_place(self, tmp_path):
        path = tmp_path / "mean.py"
        path.write_text(
            "class PatchInferencer:\n"
            "    def __init__(self, weight_path, output_patch_mask): pass\n"
            "    def __call__(self, patches): return patches * 0 + patches.mean((2, 3, 4), keepdims=True)\n"
        )
        grid = grid_of(BoundingBox((10, 20, 30), (14, 24, 42)), (4, 4, 6), (0, 0, 2))
        network = Network("universal", grid.input_patch, grid.output_patch, 2, model=ModelFile.at(path))
        array = np.ones((2, *grid.box.shape), np.float32)
        array[1, 1, 2, 10] = np.nan
        box = BoundingBox((10, 20, 30), (14, 24, 38))
        reads = grid.reads(box)
        with pytest.raises(ParameterError, match=r"image holds nan at voxel \(11, 22, 40\) zyx of channel 1, and 1 "):
            infer(array[(..., *reads.slices(grid.box))], box=box, read_box=reads, grid=grid, network=network)

    def test_are_float64_values_beyond_float32_too(self):
        array = self.image(1).astype(np.float64)
        array[1, 2, 10] = 1e300
        with pytest.raises(ParameterError, match=r"image holds 1e\+300 at voxel \(1, 2, 10\) zyx.*float32"):
            whole(array, self.grid, identity(self.grid))

    def test_become_zero_and_are_counted_when_asked(self):
        with counting() as counts:
            result = whole(self.image(np.nan), self.grid, identity(self.grid, channels=2), nan="zero")
        assert counts == {"non_finite_voxels": 2}
        assert (result[:, 1, 2, 10] == 0).all()
        assert result.sum() == pytest.approx(result.size - 2)

    def test_stay_when_asked(self):
        result = whole(self.image(np.nan), self.grid, identity(self.grid, channels=2), nan="keep")
        assert np.isnan(result[:, 1, 2, 10]).all()
        assert np.isnan(result).sum() == 2

    def test_outside_the_box_do_not_fail_it(self):
        box = BoundingBox((0, 0, 0), (4, 4, 9))
        read = self.grid.reads(box)
        array = self.image(np.nan)
        result = infer(array, box=box, read_box=read, grid=self.grid, network=identity(self.grid))
        assert np.isfinite(result).all()

    def test_great_finite_values_pass(self):
        array = np.full(self.grid.box.shape, 3e38, np.float32)
        np.testing.assert_allclose(whole(array, self.grid, identity(self.grid))[0], array, rtol=1e-5)


def test_a_box_beyond_the_covered_voxels_is_refused():
    grid = grid_of(BoundingBox((0, 0, 0), (8, 8, 8)), (6, 6, 6), (2, 2, 2), output=(4, 4, 4))
    with pytest.raises(BoundsError):
        infer(np.ones((8, 8, 8), np.uint8), box=grid.box, read_box=grid.box, grid=grid, network=identity(grid))
