import numpy as np
import pytest

from daskflow.errors import ParameterError
from daskflow.operators.segmentation._affinities import edges
from daskflow.volume import Volume

RANDOM = np.random.default_rng(0)
EDGES = RANDOM.integers(1, 65536, (3, 4, 5, 6)).astype(np.uint16)


def inner(array):
    """Edges (z, y, x) without those to voxels outside the volume."""
    found = array.copy()
    found[0, 0] = found[1, :, 0] = found[2, :, :, 0] = 0
    return found


def ahead(array, axis):
    """The same edges stored at the voxel before; what was outside ends up anywhere."""
    return np.roll(array, -1, axis)


@pytest.mark.parametrize("block", [2, (1, 5, 3)])
@pytest.mark.parametrize(
    ("stored", "options"),
    [
        (EDGES, {"order": "zyx"}),
        (EDGES[::-1], {"order": "xyz"}),
        (EDGES[[1, 2, 0]], {"offsets": [0, -1, 0, 0, 0, -1, -1, 0, 0]}),
        (np.stack([ahead(EDGES[axis], axis) for axis in range(3)]), {"offsets": [1, 0, 0, 0, 1, 0, 0, 0, 1]}),
        (np.stack([EDGES[2], ahead(EDGES[0], 0), EDGES[1]]), {"offsets": [0, 0, -1, 1, 0, 0, 0, -1, 0]}),
    ],
)
def test_channels_become_edges_to_the_voxel_before(stored, options, block):
    found = edges(Volume.from_array(stored, voxel_offset=(3, -2, 5)).with_block(block), **options)

    np.testing.assert_array_equal(found.compute(), inner(EDGES))


def test_floats_and_bytes_have_the_scale_of_their_type():
    shape = (3, 2, 2, 2)
    for one, value, bits in ((np.float32, 0.5, 32768), (np.float16, 1, 65535), (np.uint8, 3, 771), (np.uint16, 7, 7)):
        found = edges(Volume.from_array(np.full(shape, value, one)), order="zyx").read()
        assert (found[:, 1, 1, 1] == bits).all()


@pytest.mark.parametrize("value", [np.nan, -0.01, 1.01, np.inf])
def test_values_outside_the_scale_are_refused_where_they_are_read(value):
    array = np.zeros((3, 2, 2, 2), np.float32)
    array[1, 1, 0, 1] = value

    with pytest.raises(ParameterError, match="not from 0 to 1; scale them"):
        edges(Volume.from_array(array)).read()


@pytest.mark.parametrize("offsets", [[-1, 0, 0], [-1, 0, 0, -1, 0, 0, 0, 0, -1], [-2, 0, 0, 0, -1, 0, 0, 0, -1]])
def test_offsets_are_one_neighbour_on_each_axis(offsets):
    with pytest.raises(ParameterError, match="not three neighbours"):
        edges(Volume.from_array(EDGES), offsets=offsets)


@pytest.mark.parametrize("array", [EDGES[:2], np.concatenate((EDGES, EDGES[:1])), EDGES[0]])
def test_other_numbers_of_channels_are_refused(array):
    with pytest.raises(ParameterError, match="three channels"):
        edges(Volume.from_array(array))


def test_types_without_a_scale_are_refused():
    with pytest.raises(ParameterError, match="int32 have no known scale"):
        edges(Volume.from_array(EDGES.astype(np.int32)))
