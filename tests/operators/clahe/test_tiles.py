import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.geometry import BoundingBox
from daskflow.operators.image.clahe import count_tiles
from daskflow.operators.image.clahe.tiles import TileAxis, Tiles

AXES = st.builds(TileAxis, st.integers(1, 50), st.integers(1, 9), st.just(value=True))


def padded(axis):
    """The voxels of the padded section, by numpy's mirror."""
    line = np.arange(axis.length)
    more = axis.count - axis.length % axis.count
    return np.pad(line, (0, more), mode="reflect") if axis.length > 1 else np.zeros(1 + more, int)


def members(axis, tile, start, stop):
    found = axis.members(tile, start, stop)
    return np.arange(stop - start)[found] + start


@given(AXES, st.integers(1, 50))
def test_pieces_of_an_axis_hold_every_member_of_every_tile_as_often_as_it_occurs(axis, piece):
    line = padded(axis)
    for tile in range(axis.count):
        expected = sorted(line[tile * axis.size : (tile + 1) * axis.size])
        found = []
        for start in range(0, axis.length, piece):
            stop = min(start + piece, axis.length)
            part = members(axis, tile, start, stop)
            first, last = axis.touched(start, stop)
            assert part.size == 0 or first <= tile < last
            found += part.tolist()
        assert sorted(found) == expected


@given(AXES)
def test_voxels_lie_between_the_centres_of_their_two_tiles(axis):
    first, second, before, after = axis.between(0, axis.length)
    np.testing.assert_allclose(before + after, 1)
    assert (second - first <= 1).all()
    centre = (np.arange(axis.count) + 0.5) * axis.size
    inside = first < second
    place = first * before + second * after
    np.testing.assert_allclose((place[inside] + 0.5) * axis.size, np.arange(axis.length)[inside], atol=1e-3)
    assert (np.arange(axis.length)[~inside] < centre[0]).sum() + (
        np.arange(axis.length)[~inside] >= centre[-1] - 1e-3
    ).sum() == (~inside).sum()
    assert axis.neighbours(0, axis.length) == (first.min(), second.max() + 1)


@settings(max_examples=30)
@given(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_counts_of_a_whole_section_are_the_histograms_of_its_padded_tiles(size, count):
    section = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    box = BoundingBox((3, -4, 5), (4, -4 + size[0], 5 + size[1]))
    tiles = Tiles(box, count)
    numbers, counts = count_tiles(section[None], box, tiles)
    assert numbers.tolist() == list(range(count[0] * count[1]))
    rows, columns = (padded(axis) if axis.padded else np.arange(axis.length) for axis in tiles.axes)
    whole = section[np.ix_(rows, columns)]
    for i in range(count[0]):
        for j in range(count[1]):
            high, wide = tiles.axes[0].size, tiles.axes[1].size
            tile = whole[i * high : (i + 1) * high, j * wide : (j + 1) * wide]
            np.testing.assert_array_equal(counts[0, i, j], np.bincount(tile.ravel(), minlength=256))
