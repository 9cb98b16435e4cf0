import numpy as np
import pytest

from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec, as_voxel_size

BOX = BoundingBox((-4, 0, 8), (6, 20, 38))


def test_shape_and_bytes_follow_from_box_channels_and_dtype():
    spec = VolumeSpec(BOX, np.float32, channels=3)
    assert spec.shape == (3, 10, 20, 30)
    assert spec.nbytes == 3 * 10 * 20 * 30 * 4
    assert spec.ndim == 4
    assert VolumeSpec(BOX, np.uint8).shape == (10, 20, 30)


def test_one_writer_owns_a_shard_where_there_are_shards():
    assert VolumeSpec(BOX, np.uint8, chunk=(2, 4, 4)).write_unit == (2, 4, 4)
    assert VolumeSpec(BOX, np.uint8, chunk=(2, 4, 4), shard=(4, 8, 8)).write_unit == (4, 8, 8)
    assert VolumeSpec(BOX, np.uint8).write_unit is None


def test_chunks_are_counted_from_the_corner_unless_said():
    assert VolumeSpec(BOX, np.uint8).chunk_origin == BOX.start
    assert VolumeSpec(BOX, np.uint8, chunk_origin=(0, 0, 0)).chunk_origin == (0, 0, 0)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"voxel_size": (4, 0, 4)}, GeometryError, "voxel size"),
        ({"voxel_size": (4, 4)}, GeometryError, "voxel size"),
        ({"channels": 0}, GeometryError, "channels 0"),
        ({"chunk": (0, 1, 1)}, GeometryError, "chunk"),
        ({"chunk": (4, 4, 4), "shard": (6, 8, 8)}, GeometryError, "multiple of the chunk"),
        ({"shard": (8, 8, 8)}, GeometryError, "multiple of the chunk"),
        ({"layer_type": "picture"}, ParameterError, "picture"),
        ({"channels": 2, "channel_names": ("a",)}, ParameterError, "channel names"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, error, words):
    with pytest.raises(error, match=words):
        VolumeSpec(BOX, np.uint8, **fields)


@pytest.mark.parametrize("value", [(1, 2), "abc", (4, 4, 0), -1, None, (1, 2, float("inf"))])
def test_what_is_no_voxel_size_is_refused(value):
    with pytest.raises(GeometryError, match="voxel size"):
        as_voxel_size(value)


def test_one_number_stands_for_a_cubic_voxel():
    assert as_voxel_size(8) == (8.0, 8.0, 8.0)
    assert as_voxel_size(np.array([40, 4, 4])) == (40.0, 4.0, 4.0)


def test_unknown_voxel_size_stays_unknown_and_keeps_the_ratio_of_levels():
    spec = VolumeSpec(BoundingBox((0, 0, 0), (8, 8, 8)), np.uint8)
    coarse = spec.coarsened((1, 2, 3))
    assert (coarse.voxel_size, coarse.spacing) == (None, (1, 2, 3))
    assert coarse.ratio(spec) == (1, 2, 3)
    assert spec.size_text == "voxel size unknown"


def test_voxels_of_unknown_size_are_taken_to_measure_as_the_others_do():
    spec = VolumeSpec(BoundingBox((0, 0, 0), (8, 8, 8)), np.uint8)
    known = spec.replace(voxel_size=(40, 4, 4))
    assert known.ratio(spec) == (1, 1, 1)
    assert known.coarsened((1, 2, 2)).voxel_size == (40, 8, 8)
    assert known.coarsened((1, 2, 2)).ratio(known) == (1, 2, 2)
    assert known.replace(voxel_size=None) == spec


@pytest.mark.parametrize(
    ("dtype", "channels", "layer_type", "kind"),
    [
        ("uint8", None, None, "image"),
        ("uint64", None, None, "segmentation"),
        ("int32", 1, None, "segmentation"),
        ("uint32", 3, None, "image"),
        ("uint32", None, "image", "image"),
        ("float64", None, None, "image"),
        ("uint16", None, None, "image"),
        ("uint8", None, "segmentation", "segmentation"),
        ("float32", 3, "affinity_map", "affinity_map"),
    ],
)
def test_kind_is_the_layer_type_or_follows_from_the_voxels(dtype, channels, layer_type, kind):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (2, 2, 2)), np.dtype(dtype), channels, layer_type=layer_type)
    assert spec.kind == kind


def test_a_box_of_a_coarser_level_is_found_in_a_finer_one_from_the_corner_that_both_have():
    spec = VolumeSpec(BOX, np.uint8, voxel_size=(40, 4, 4))
    coarse = spec.coarsened((1, 2, 2), box=BoundingBox((-4, 0, 4), (6, 10, 19)))
    assert coarse.factor(spec) == (1, 2, 2)
    assert coarse.on_finer(BoundingBox((-4, 2, 5), (6, 3, 7)), spec) == BoundingBox((-4, 4, 10), (6, 6, 14))


def test_a_number_is_held_only_by_voxels_that_can_have_it():
    for dtype, value in ((np.uint8, 255), (np.int8, -128), (np.float32, 0.5), (bool, 1)):
        assert VolumeSpec(BOX, dtype).held(value) == value
    for dtype, value in ((np.uint8, 256), (np.int8, 0.5), (bool, 2)):
        with pytest.raises(ParameterError, match="cannot hold"):
            VolumeSpec(BOX, dtype).held(value)
