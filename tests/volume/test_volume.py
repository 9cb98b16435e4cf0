import pickle

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

import daskflow
from daskflow.errors import BoundsError, GeometryError, ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.volume import Volume

RELAXED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
BOUNDARIES = ["reflect", "nearest", "periodic", "none", 7]


def smooth(array, reach=1):
    """A function of each voxel's neighbours within `reach`; what it makes of the array's edge is trimmed."""
    size = (1,) * (array.ndim - 3) + (2 * reach + 1,) * 3
    return ndimage.maximum_filter(array, size=size).astype(np.int32) - ndimage.minimum_filter(array, size=size)


def plus(array, other):
    return array + other


def double(array):
    return array * 2


@st.composite
def volumes(draw):
    shape = draw(st.tuples(*[st.integers(3, 12)] * 3))
    channels = draw(st.none() | st.integers(1, 3))
    block = draw(st.tuples(*[st.integers(3, 8)] * 3))
    offset = draw(st.tuples(*[st.integers(-9, 9)] * 3))
    whole = shape if channels is None else (channels, *shape)
    array = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 50, whole).astype(np.int32)
    return array, Volume.from_array(array, voxel_offset=offset).with_block(block)


@st.composite
def inner_boxes(draw, box):
    start = [draw(st.integers(a, b - 1)) for a, b in zip(box.start, box.stop, strict=True)]
    stop = [draw(st.integers(a + 1, b)) for a, b in zip(start, box.stop, strict=True)]
    return BoundingBox(tuple(start), tuple(stop))


def dask_of(array, volume):
    lead = () if array.ndim == 3 else (array.shape[:1],)
    return da.from_array(array, chunks=(*lead, *volume.grid.chunks))


def dask_axes(array, depth):
    return {array.ndim - 3 + axis: d for axis, d in enumerate(depth)}


@RELAXED
@given(
    volumes(),
    st.tuples(*[st.integers(1, 2)] * 3),
    st.tuples(*[st.sampled_from(BOUNDARIES)] * 3),
    st.data(),
)
def test_read_data_and_dask_map_overlap_agree(pair, depth, boundary, data):
    array, volume = pair
    once = volume.map_overlap(smooth, depth=depth, boundary=boundary, dtype=np.int32, reach=min(depth))
    twice = once.map_overlap(smooth, depth=1, boundary="reflect", dtype=np.int32)
    expected = dask_of(array, volume)
    if array.ndim == 3 and min(min(c) for c in expected.chunks[-3:]) >= 2:
        edges = dask_axes(array, boundary)
        expected = expected.map_overlap(
            smooth, depth=dask_axes(array, depth), boundary=edges, dtype=np.int32, reach=min(depth)
        ).map_overlap(smooth, depth=1, boundary="reflect", dtype=np.int32)
        whole = expected.compute(scheduler="synchronous")
    else:
        whole = (
            volume.with_block(100)
            .map_overlap(smooth, depth=depth, boundary=boundary, dtype=np.int32, reach=min(depth))
            .map_overlap(smooth, depth=1, boundary="reflect", dtype=np.int32)
            .read()
        )
    np.testing.assert_array_equal(twice.read(), whole)
    np.testing.assert_array_equal(twice.data.compute(scheduler="synchronous"), whole)
    box = data.draw(inner_boxes(volume.box))
    np.testing.assert_array_equal(twice.read(box), whole[(..., *box.slices(volume.box))])


@RELAXED
@given(volumes(), st.data())
def test_any_box_equals_the_same_box_cut_from_the_whole(pair, data):
    array, volume = pair
    box = data.draw(inner_boxes(volume.box))
    cut = array[(..., *box.slices(volume.box))]
    np.testing.assert_array_equal(volume.read(box), cut)
    np.testing.assert_array_equal(volume.crop(box).read(), cut)
    np.testing.assert_array_equal(volume.crop(box).data.compute(scheduler="synchronous"), cut)
    np.testing.assert_array_equal(np.asarray(volume.crop(box).map_blocks(double)), cut * 2)


@RELAXED
@given(volumes(), st.data())
def test_a_crop_has_edges_of_its_own(pair, data):
    array, volume = pair
    box = data.draw(inner_boxes(volume.box))
    cropped = volume.crop(box).map_overlap(smooth, depth=1, boundary="nearest", dtype=np.int32)
    alone = Volume.from_array(array[(..., *box.slices(volume.box))])
    expected = alone.map_overlap(smooth, depth=1, boundary="nearest", dtype=np.int32).read()
    np.testing.assert_array_equal(cropped.read(), expected)


@RELAXED
@given(volumes(), st.tuples(*[st.integers(1, 3)] * 3), st.data())
def test_downsampled_windows_are_anchored_to_global_zero(pair, factor, data):
    array, volume = pair

    def window_max(block, read_box):
        lead = block.shape[:-3]
        out = read_box.coarsen(factor)
        result = np.full((*lead, *out.shape), -1, block.dtype)
        for at in np.ndindex(*block.shape[-3:]):
            place = tuple((s + i) // f - o for s, i, f, o in zip(read_box.start, at, factor, out.start, strict=True))
            result[(..., *place)] = np.maximum(result[(..., *place)], block[(..., *at)])
        return result

    small = volume.map_blocks(window_max, factor=factor, dtype=array.dtype)
    assert small.box == volume.box.coarsen(factor)
    assert small.voxel_size is None
    assert small.spec.spacing == tuple(map(float, factor))
    whole = window_max(array, volume.box)
    np.testing.assert_array_equal(small.data.compute(scheduler="synchronous"), whole)
    box = data.draw(inner_boxes(small.box))
    np.testing.assert_array_equal(small.read(box), whole[(..., *box.slices(small.box))])


def test_a_coarser_input_is_read_at_its_own_voxel_size():
    image = np.arange(8 * 8 * 8).reshape(8, 8, 8)
    mask = np.random.default_rng(0).integers(0, 2, (4, 4, 4))
    fine = Volume.from_array(image, voxel_size=(8, 8, 8)).with_block((2, 4, 6))
    coarse = Volume.from_array(mask, voxel_size=(16, 16, 16))

    def masked(array, rough, box):
        first = box.coarsen(2).refine(2)
        near = rough.repeat(2, 0).repeat(2, 1).repeat(2, 2)
        return array * near[box.slices(first)]

    expected = image * mask.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(fine.map_blocks(masked, coarse, dtype=image.dtype).data.compute(), expected)


def test_a_finer_input_is_read_at_its_own_voxel_size():
    coarse = Volume.from_array(np.zeros((2, 3, 4), np.int64), voxel_size=(2, 2, 2)).with_block((1, 2, 2))
    fine_array = np.arange(4 * 6 * 8).reshape(4, 6, 8)
    fine = Volume.from_array(fine_array, voxel_size=(1, 1, 1))

    def total(array, detail):
        z, y, x = array.shape
        return array + detail.reshape(z, 2, y, 2, x, 2).sum((1, 3, 5))

    expected = fine_array.reshape(2, 2, 3, 2, 4, 2).sum((1, 3, 5))
    np.testing.assert_array_equal(coarse.map_blocks(total, fine, dtype=np.int64).data.compute(), expected)


def test_every_node_is_evaluated_once_per_block_also_with_several_outputs():
    from daskflow.volume import Expression

    calls = []

    def counted(array):
        calls.append(array.shape)
        return array

    base = Volume.from_array(np.ones((8, 8, 8), np.int32)).map_blocks(counted, dtype=np.int32)
    near = base.map_overlap(smooth, depth=1, dtype=np.int32)
    summed = near.map_blocks(plus, base, dtype=np.int32)
    expression = Expression([near.node, summed.node, base.node])
    expression.evaluate([BoundingBox((0, 0, 0), (4, 4, 4))] * 3)
    assert calls == [(5, 5, 5)]


def test_nothing_is_read_or_computed_before_it_is_asked_for():
    def fail(array):
        raise AssertionError("computed")

    lazy = da.from_delayed(dask.delayed(fail)(1), (8, 8, 8), dtype=np.uint8)
    volume = Volume.from_dask(lazy).map_overlap(smooth, depth=1, dtype=np.int32)[1:5, :, 2:]
    assert volume.shape == (4, 8, 6)
    assert volume.data.shape == (4, 8, 6)
    repr(volume)
    with pytest.raises(AssertionError, match="computed"):
        volume.read()


def test_inputs_cannot_be_mutated():
    def spoil(array):
        array += 1
        return array

    volume = Volume.from_array(np.zeros((4, 4, 4), np.int32)).map_blocks(spoil, dtype=np.int32)
    with pytest.raises(ValueError, match="read-only"):
        volume.read()


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_a_volume_is_a_dask_collection(scheduler):
    array = np.arange(6 * 7 * 8).reshape(6, 7, 8)
    volume = Volume.from_array(array, voxel_offset=(1, 2, 3), voxel_size=(30, 4, 4)).with_block(3).map_blocks(double)
    (computed,) = dask.compute(volume, scheduler=scheduler)
    np.testing.assert_array_equal(computed, array * 2)
    held = volume.persist(scheduler=scheduler)
    assert (held.box, held.voxel_size) == (volume.box, (30.0, 4.0, 4.0))
    np.testing.assert_array_equal(np.asarray(held), array * 2)
    (persisted,) = dask.persist(volume, scheduler=scheduler)
    assert isinstance(persisted, Volume)
    np.testing.assert_array_equal(persisted.read(), array * 2)


def test_data_has_one_task_per_block_and_mixes_with_dask():
    spec = VolumeSpec(BoundingBox((0, 0, 0), (46 * 8, 46 * 8, 46 * 8)), np.uint8)
    volume = Volume.from_function(lambda box: np.ones(box.shape, np.uint8), spec).with_block(8)
    chain = volume
    for _ in range(3):
        chain = chain.map_overlap(smooth, depth=1, boundary="reflect", dtype=np.int32)
    assert len(volume.grid) == 97_336
    part = chain.data[:8, :8, :16] + 1
    assert part.compute(scheduler="synchronous").tolist() == np.ones((8, 8, 16)).tolist()
    data = chain.crop(BoundingBox((0, 0, 0), (16, 16, 16))).data
    assert len(dict(data.__dask_graph__())) <= 8 + 1


def test_a_volume_survives_pickling():
    volume = Volume.from_array(np.arange(27).reshape(3, 3, 3)).map_blocks(double)
    assert volume.data.sum().compute() == 702
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), volume.read())


def test_global_slices_select_and_out_of_range_ones_are_refused():
    volume = Volume.from_array(np.arange(1000).reshape(10, 10, 10), voxel_offset=(-5, 100, 0))
    part = volume[-5:-2, 103:105]
    assert part.box == BoundingBox((-5, 103, 0), (-2, 105, 10))
    np.testing.assert_array_equal(part.read(), np.arange(1000).reshape(10, 10, 10)[:3, 3:5])
    with pytest.raises(BoundsError, match="outside"):
        volume[0:20]
    with pytest.raises(GeometryError, match="holds no voxel"):
        volume[0:0]
    with pytest.raises(GeometryError, match="inverted"):
        volume[2:0]
    with pytest.raises(GeometryError, match="without steps"):
        volume[::2]
    with pytest.raises(GeometryError, match="at most three"):
        volume[0:1, 100:101, 0:1, 0:1]


@pytest.mark.parametrize("shape", [(4,), (4, 4), (1, 1, 4, 4, 4)])
def test_wrong_number_of_axes_is_refused(shape):
    with pytest.raises(GeometryError, match="zyx or czyx"):
        Volume.from_array(np.zeros(shape))


def test_result_of_another_shape_or_dtype_names_what_was_expected():
    volume = Volume.from_array(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(ParameterError, match=r"\(3, 4, 4\).*expected \(4, 4, 4\)"):
        volume.map_blocks(lambda a: a[1:], dtype=np.uint8).read()
    with pytest.raises(ParameterError, match=r"returned float64.*declared is uint8"):
        volume.map_blocks(lambda a: a / 2, dtype=np.uint8).read()


def test_dtype_is_found_on_ones_or_asked_for():
    volume = Volume.from_array(np.zeros((4, 4, 4), np.uint8))
    assert volume.map_blocks(lambda a: a / 2).dtype == np.float64
    with pytest.raises(ParameterError, match="pass dtype="):
        volume.map_blocks(lambda a: 1 / 0)


def test_halo_deeper_than_the_volume_is_refused_where_it_mirrors():
    volume = Volume.from_array(np.zeros((4, 9, 9), np.uint8))
    with pytest.raises(GeometryError, match="depth 5 along z is larger"):
        volume.map_overlap(smooth, depth=5, boundary="reflect", dtype=np.int32)
    assert volume.map_overlap(smooth, depth=5, boundary="nearest", dtype=np.int32).read().shape == (4, 9, 9)


def test_volumes_that_do_not_match_are_refused():
    volume = Volume.from_array(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(GeometryError, match="does not cover"):
        volume.map_blocks(plus, Volume.from_array(np.zeros((3, 4, 4), np.uint8)))
    sized = [Volume.from_array(np.zeros((4, 4, 4), np.uint8), voxel_size=(z, 1, 1)) for z in (1, 1.5)]
    with pytest.raises(GeometryError, match="not whole multiples"):
        sized[0].map_blocks(plus, sized[1])
    assert volume.map_blocks(plus, sized[1]).shape == (4, 4, 4)
    with pytest.raises(ParameterError, match="mirror"):
        volume.map_overlap(smooth, depth=1, boundary="mirror")


def test_repr_is_a_line_of_facts():
    spec = VolumeSpec(BoundingBox((0, 0, 0), (4096, 65536, 65536)), np.uint8, voxel_size=(40, 4, 4))
    volume = Volume.from_function(np.zeros, spec).with_block((128, 512, 512))
    assert repr(volume) == "<Volume zyx 4096x65536x65536 uint8 · 40x4x4 nm · 17.6 TB · 524,288 blocks>"


def test_notebook_view_shows_facts_and_a_picture_only_when_it_is_cheap():
    small = Volume.from_array(np.random.default_rng(0).integers(0, 255, (5, 64, 64)).astype(np.uint8))
    assert "data:image/png" in small._repr_html_()
    assert "<th" in small._repr_html_()
    spec = VolumeSpec(BoundingBox((0, 0, 0), (4096, 65536, 65536)), np.uint8, voxel_size=(40, 4, 4))
    huge = Volume.from_function(np.zeros, spec)
    assert "data:image/png" not in huge._repr_html_()
    assert "65,536" in huge._repr_html_()


@pytest.mark.parametrize("key", [3, -1, "z"])
def test_mappings_of_other_axes_are_refused(key):
    volume = Volume.from_array(np.zeros((2, 4, 4, 4)))
    with pytest.raises(ParameterError, match=r"depth .* the axes are z 0, y 1 and x 2"):
        volume.map_overlap(double, depth={0: 1, key: 2})
    with pytest.raises(ParameterError, match=r"boundary .* the axes are z 0, y 1 and x 2"):
        volume.map_overlap(double, depth=1, boundary={key: "reflect"})


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, 0, 4), (2, 4, 4, 0)])
def test_volume_without_voxels_is_refused(shape):
    with pytest.raises(GeometryError, match="holds no voxel"):
        Volume.from_array(np.zeros(shape))
    with pytest.raises(GeometryError, match="holds no voxel"):
        Volume.from_dask(da.zeros(shape))


def test_strict_and_filling_volumes_are_told_apart(tmp_path):
    Volume.from_array(np.ones((4, 4, 4), np.uint8)).save(tmp_path / "a.zarr").run(progress=False)
    strict, filling = daskflow.open(tmp_path / "a.zarr"), daskflow.open(tmp_path / "a.zarr", fill_missing=True)
    assert strict.data.name != filling.data.name
    assert strict.data.name == daskflow.open(tmp_path / "a.zarr").data.name


def test_estimate_adds_the_greediest_step_to_all_arrays():
    volume = Volume.from_array(np.zeros((8, 8, 8), np.uint8))
    box = BoundingBox((0, 0, 0), (4, 8, 8))

    def memory(result):
        return result.expression.estimate([box]).memory

    at_rest = 256 * (1 + 1 + 2)  # source, and two results
    once = volume.map_blocks(np.negative, memory=3)
    assert memory(volume) == 256
    assert memory(once.map_blocks(np.float16, memory=7)) == at_rest + 7 * 256
    assert memory(once.map_blocks(np.float16, memory=0.5)) == at_rest + 3 * 256
    assert memory(once.map_blocks(np.float16)) == at_rest + 256 * (1 + 2)
    assert memory(once.map_blocks(np.float16, memory=lambda box: 1000 * box.shape[0])) == at_rest + 4000


def test_a_volume_can_be_cast():
    volume = Volume.from_array(np.float32([[[0.5, 2.7, 255]]])).astype("uint8")
    assert volume.dtype == np.uint8
    assert volume.read().tolist() == [[[0, 2, 255]]]


def test_a_volume_knows_where_it_is_stored_until_something_is_computed():
    volume = Volume.from_array(np.zeros((4, 4, 4), np.uint8))
    part = volume[1:, :, :][2:, :, :]
    assert volume.stored is part.stored is volume.stored_whole
    assert part.stored_whole is None
    assert volume[:, :, :].stored_whole is volume.stored
    assert volume.map_blocks(double).stored is None
