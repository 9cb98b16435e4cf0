import cc3d
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.clusters import Threads
from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators.segmentation import connected_components as module
from daskflow.operators.segmentation.connected_components import connected_components, scratch
from daskflow.operators.segmentation.evaluate_segmentation import evaluate_segmentation
from daskflow.operators.segmentation.threshold import threshold
from daskflow.stores.opening import open_store
from daskflow.volume import Volume

SHAPES = st.tuples(*[st.integers(1, 10)] * 3)
BLOCKS = st.tuples(*[st.integers(2, 11)] * 3)
CONNECTIVITIES = st.sampled_from([6, 18, 26])


def noise(shape, values, density, seed):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < density, rng.integers(1, values + 1, shape), 0).astype(np.uint32)


VOXELS = st.builds(noise, SHAPES, st.integers(1, 3), st.floats(0, 1), st.integers(0, 2**32 - 1))


def whole(voxels, connectivity):
    """What cc3d gives for the whole, which numbers by first voxel; as uint8 or more, see `label_block`."""
    return cc3d.connected_components(voxels, connectivity=connectivity)


def first_voxels(labels):
    return np.unique(labels, return_index=True)[1][int(labels.min() == 0) :]


@settings(max_examples=60)
@given(VOXELS, BLOCKS, CONNECTIVITIES, st.booleans())
def test_any_blocks_give_what_cc3d_gives_for_the_whole(voxels, block, connectivity, mask):
    voxels = voxels > 0 if mask else voxels
    volume = Volume.from_array(voxels, voxel_offset=(-4, 0, 9)).with_block(block)

    labelled = connected_components(volume, connectivity=connectivity).read()

    assert labelled.dtype == np.uint32
    assert np.array_equal(labelled, whole(voxels.astype(np.uint32), connectivity))
    assert np.all(np.diff(first_voxels(labelled)) > 0)


@settings(max_examples=15)
@given(VOXELS, BLOCKS, st.data())
def test_any_box_is_the_same_box_of_the_whole(voxels, block, data):
    volume = Volume.from_array(voxels, voxel_offset=(5, -7, 0)).with_block(block)
    corners = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in voxels.shape]
    box = BoundingBox(*zip(*corners, strict=True)).shift(volume.box.start)

    labelled = connected_components(volume)

    assert np.array_equal(labelled.read(box), whole(voxels, 6)[box.slices(volume.box)])


def test_looking_and_saving_give_the_same_voxels(tmp_path):
    voxels = noise((20, 22, 24), 2, 0.5, 1)
    labelled = connected_components(Volume.from_array(voxels).with_block((8, 16, 8)), connectivity=18)

    with Threads(2) as threads:
        report = labelled.save(tmp_path / "out.zarr", chunk=(8, 8, 8)).run(threads, progress=False)

    expected = whole(voxels, 18)
    assert report.counts["components"] == expected.max()
    assert np.array_equal(open_store(tmp_path / "out.zarr").read(labelled.box), expected)
    assert np.array_equal(labelled.data.compute(scheduler="synchronous"), expected)


def test_values_of_a_segmentation_stay_apart_and_background_has_no_number():
    voxels = np.zeros((2, 4, 8), np.uint8)
    voxels[:, :, 1:4], voxels[:, :, 4:7] = 100, 200

    labelled = connected_components(Volume.from_array(voxels).with_block(3)).read()

    assert np.unique(labelled).tolist() == [0, 1, 2]
    assert np.array_equal(labelled > 0, voxels > 0)


def test_a_threshold_is_strict_and_takes_what_is_above_for_alike():
    voxels = np.zeros((4, 4, 4), np.float32)
    voxels[0, 0, 0], voxels[3, 3, 3], voxels[1, 1, 1] = 0.9, 0.8, 0.5
    volume = Volume.from_array(voxels, voxel_offset=(10, 20, 30))

    strict = connected_components(volume, threshold=0.5)
    assert strict.read().max() == 2
    assert strict.read()[1, 1, 1] == 0
    assert strict.box == volume.box

    assert connected_components(volume, threshold=0.4, connectivity=26).read().max() == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.uint16])
def test_a_threshold_here_is_a_threshold_before(dtype):
    values = (np.random.default_rng(2).random((9, 10, 11)) * 200).astype(dtype)
    volume = Volume.from_array(values, layer_type="image").with_block(4)

    fused = connected_components(volume, threshold=120, connectivity=26).read()

    assert np.array_equal(fused, connected_components(threshold(volume, threshold=120), connectivity=26).read())


def test_a_channel_axis_of_one_is_dropped():
    values = np.random.default_rng(3).random((1, 6, 7, 8), np.float32)

    labelled = connected_components(Volume.from_array(values).with_block(4), threshold=0.5)

    assert labelled.channels is None
    assert np.array_equal(labelled.read(), whole((values[0] > 0.5).astype(np.uint8), 6))


def test_the_result_says_what_it_is():
    values = np.zeros((4, 5, 6), np.uint8)
    volume = Volume.from_array(values, voxel_size=(40, 4, 4), voxel_offset=(1, 2, 3), layer_type="image")

    labelled = connected_components(volume, threshold=1)

    assert labelled.layer_type == "segmentation"
    assert (labelled.voxel_size, labelled.box) == (volume.voxel_size, volume.box)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2**11, 2**11, 2**10 - 1), np.uint32), ((2**11, 2**11, 2**10), np.uint64)]
)
def test_numbers_are_as_wide_as_the_volume_may_need(shape, dtype):
    volume = Volume.from_dask(da.zeros(shape, dtype=np.uint8, chunks=512))

    assert connected_components(volume).dtype == dtype


def test_nothing_is_read_before_it_is_asked(monkeypatch):
    from daskflow.stores.memory import ArrayStore

    volume = Volume.from_array(np.ones((4, 4, 4), np.uint8))
    monkeypatch.setattr(ArrayStore, "_read", lambda *_: pytest.fail("read"))

    connected_components(connected_components(volume)).save("memory://components/out")


def test_a_volume_without_foreground_has_no_components(tmp_path):
    volume = Volume.from_array(np.zeros((9, 9, 9), np.uint8)).with_block(4)

    report = connected_components(volume).save(tmp_path / "out", chunk=(4, 4, 4)).run(Threads(1), progress=False)

    assert report.counts.get("components", 0) == 0
    assert not open_store(tmp_path / "out", fill_missing=True).read(volume.box).any()


def test_components_are_labelled_again_cropped_and_mapped():
    voxels = noise((12, 12, 12), 2, 0.6, 4)
    labelled = connected_components(Volume.from_array(voxels).with_block(5), connectivity=26)
    expected = whole(voxels, 26)

    part = BoundingBox((3, 2, 1), (11, 12, 10))
    again = connected_components(labelled.crop(part), connectivity=6)
    assert np.array_equal(again.read(), whole(expected[part.slices(labelled.box)], 6))

    doubled = labelled.map_blocks(np.multiply, labelled)
    assert np.array_equal(doubled.read(), expected * expected)


def test_two_labellings_live_in_one_job(tmp_path):
    values = np.random.default_rng(5).random((10, 10, 10), np.float32)
    volume = Volume.from_array(values).with_block(4)
    low, high = (connected_components(volume, threshold=t, connectivity=26) for t in (0.6, 0.8))

    job = evaluate_segmentation(low, high, output=str(tmp_path / "scores.json"))
    report = job.run(Threads(1), progress=False)

    assert report.ok
    added = low.map_blocks(np.add, high).read()
    alone = [whole((values > t).astype(np.uint8), 26) for t in (0.6, 0.8)]
    assert np.array_equal(added, np.add(*alone))


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros((2, 2, 2), np.uint8), {"connectivity": 7}, "connectivity 7"),
        (np.zeros((2, 2, 2, 2), np.uint8), {}, "one channel"),
        (np.zeros((2, 2, 2), np.float32), {}, "needs a threshold"),
        (np.zeros((2, 2, 2), np.uint32), {"threshold": 3}, "leave the threshold out"),
        (np.zeros((2, 2, 2), np.float32), {"threshold": float("nan")}, "nan"),
    ],
)
def test_what_makes_no_sense_is_refused(array, options, message):
    with pytest.raises(ParameterError, match=message):
        connected_components(Volume.from_array(array), **options)


def test_a_threshold_for_a_segmentation_is_refused_whatever_its_type():
    volume = Volume.from_array(np.zeros((2, 2, 2), np.uint8), layer_type="segmentation")

    with pytest.raises(ParameterError, match="leave the threshold out"):
        connected_components(volume, threshold=0.5)


def test_large_blocks_are_halved_unless_that_reads_voxels_twice(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_VOXELS", 8**3)
    volume = Volume.from_array(np.zeros((32, 32, 32), np.uint8)).with_block((16, 16, 32))

    assert connected_components(volume).block == (8, 8, 8)
    assert connected_components(threshold(volume, threshold=0)).block == (8, 8, 8)
    assert connected_components(volume.with_block((7, 9, 15))).block == (7, 9, 15)
    blurred = volume.map_overlap(np.abs, depth=1)
    assert connected_components(blurred).block == (16, 16, 32)


def test_halved_blocks_are_whole_chunks(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_BLOCK_VOXELS", 8**3)
    volume = Volume.from_array(np.zeros((32, 32, 32), np.uint8))
    volume.save(tmp_path / "in.zarr", chunk=(16, 4, 4)).run(Threads(1), progress=False)
    stored = Volume.from_store(open_store(tmp_path / "in.zarr")).with_block((32, 32, 32))

    assert connected_components(stored).block == (16, 4, 8)


def dusted(voxels, connectivity, dust):
    """What cc3d gives for the whole, without components below `dust` voxels, those left numbered by first voxel."""
    labels = whole(voxels.astype(np.uint32), connectivity)
    kept = [label for label in range(1, labels.max() + 1) if np.count_nonzero(labels == label) >= dust]
    table = np.zeros(labels.max() + 1, np.uint32)
    table[kept] = np.arange(1, len(kept) + 1)
    return table[labels]


@settings(max_examples=40)
@given(VOXELS, BLOCKS, CONNECTIVITIES, st.integers(1, 30))
def test_dust_is_what_is_small_in_the_whole_volume_for_any_blocks(voxels, block, connectivity, dust):
    volume = Volume.from_array(voxels, voxel_offset=(-4, 0, 9)).with_block(block)

    labelled = connected_components(volume, connectivity=connectivity, dust=dust).read()

    assert np.array_equal(labelled, dusted(voxels, connectivity, dust))


def test_a_bar_that_crosses_blocks_is_kept_whole_and_what_is_small_goes_wherever_it_lies(tmp_path):
    voxels = np.zeros((16, 16, 80), np.uint8)
    voxels[4, 4, 42:67] = 1  # three voxels of it lie in the second block
    voxels[8, 8, 62:67] = 1
    voxels[12, 12, 10:15] = 1
    volume = Volume.from_array(voxels).with_block((16, 16, 64))

    report = connected_components(volume, dust=10).save(tmp_path / "out").run(Threads(1), progress=False)

    assert report.counts["components"] == 1
    labelled = open_store(tmp_path / "out").read(volume.box)
    assert np.count_nonzero(labelled) == 25
    assert labelled[4, 4, 42:67].all()


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_components_that_wind_through_many_groups_of_blocks_are_one(connectivity):
    voxels = noise((17, 18, 18), 1, 0.32 if connectivity == 6 else 0.12, 3)
    volume = Volume.from_array(voxels, voxel_offset=(1, -2, 3)).with_block(2)

    labelled = connected_components(volume, connectivity=connectivity, dust=4).read()

    assert np.array_equal(labelled, dusted(voxels, connectivity, 4))
    assert labelled.max() > 10


@settings(max_examples=10, deadline=None)
@given(VOXELS, CONNECTIVITIES, st.sampled_from([0, 3]))
def test_boxes_of_many_levels_give_what_cc3d_gives_for_the_whole(voxels, connectivity, dust):
    volume = Volume.from_array(voxels, voxel_offset=(-3, 1, 0)).with_block(2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scratch, "_ALONG", 2)
        patched.setattr(scratch, "_FAN_IN", 2)

        labelled = connected_components(volume, connectivity=connectivity, dust=dust).read()

    assert np.array_equal(labelled, dusted(voxels, connectivity, dust))


def test_random_voxels_are_labelled_as_by_cc3d_in_a_narrow_dtype():
    voxels = np.random.default_rng(0).random((70, 70, 70)) < 0.35
    volume = Volume.from_array(voxels.astype(np.uint8)).with_block(64)

    labelled = connected_components(volume, dtype="uint16").read()

    assert labelled.dtype == np.uint16
    assert labelled.max() == whole(voxels.astype(np.uint8), 6).max()
    assert np.array_equal(labelled, whole(voxels.astype(np.uint8), 6))


@pytest.mark.parametrize("offset", [0, 40, -30])
def test_any_offset_gives_the_same_labels(tmp_path, offset):
    voxels = noise((70, 70, 70), 3, 0.6, 9)
    volume = Volume.from_array(voxels, voxel_offset=(offset,) * 3)
    volume.save(tmp_path / "in.zarr", chunk=(64, 64, 64)).run(Threads(1), progress=False)

    stored = Volume.from_store(open_store(tmp_path / "in.zarr"))
    connected_components(stored).save(tmp_path / "out", chunk=(32, 32, 32)).run(Threads(2), progress=False)

    assert np.array_equal(open_store(tmp_path / "out").read(volume.box), whole(voxels, 6))


@pytest.mark.parametrize(
    ("bounds", "foreground"),
    [
        ({"threshold_gte": 160}, lambda v: v >= 160),
        ({"threshold_lte": 99}, lambda v: v <= 99),
        ({"threshold_gte": 100, "threshold_lte": 160}, lambda v: (v >= 100) & (v <= 160)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_bounds_that_belong_to_the_foreground(bounds, foreground, dtype):
    values = np.random.default_rng(5).integers(0, 255, (12, 13, 14)).astype(dtype)
    volume = Volume.from_array(values, layer_type="image").with_block(6)

    labelled = connected_components(volume, **bounds).read()

    assert np.array_equal(labelled, whole(foreground(values).astype(np.uint8), 6))


@pytest.mark.parametrize(
    ("shape", "options", "dtype"),
    [
        ((40, 40, 40), {}, np.uint16),
        ((70, 70, 70), {}, np.uint32),
        ((70, 70, 70), {"threshold_gte": 1, "connectivity": 26}, np.uint16),
        ((70, 70, 70), {"dust": 6}, np.uint16),
        ((2**11, 2**11, 2**11), {}, np.uint64),
        ((2**11, 2**11, 2**11), {"threshold": 0, "connectivity": 26}, np.uint32),
    ],
)
def test_the_smallest_dtype_holds_as_many_as_there_can_be(shape, options, dtype):
    volume = Volume.from_dask(da.zeros(shape, dtype=np.uint8, chunks=512))

    assert connected_components(volume, dtype="smallest", **options).dtype == dtype


def test_more_components_than_the_dtype_holds_are_an_error_that_says_so(tmp_path):
    voxels = np.zeros((4, 256, 260), np.uint8)
    voxels[::2, ::2, ::2] = 1
    voxels[1::2, 1::2, ::2] = 1
    voxels[1::2, ::2, 1::2] = 1
    voxels[::2, 1::2, 1::2] = 1

    job = connected_components(Volume.from_array(voxels), dtype="uint16").save(tmp_path / "out", encoding="raw")
    report = job.run(Threads(1), progress=False, retries=0)

    assert not report.ok
    assert "133,120 components" in report.failures[0].message
    assert "uint64" in report.failures[0].message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1, "threshold_gte": 1}, "above"),
        ({"threshold_gte": 5, "threshold_lte": 4}, "swap"),
        ({"dust": -1}, "dust"),
        ({"threshold_lte": float("nan")}, "nan"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        connected_components(Volume.from_array(np.zeros((2, 2, 2), np.uint8)), **options)
