from __future__ import annotations

import itertools

import numpy as np
import pytest

from daskflow.errors import GeometryError, ParameterError
from daskflow.stores.axes import axis_names, find_axes
from daskflow.stores.base import Opening

SIZES = {"t": 1, "c": 2, "z": 3, "y": 4, "x": 5}
VOXELS = np.arange(120).reshape(2, 3, 4, 5)


def stored(order):
    """Return VOXELS in another order of axes; with t as an axis of length 1."""
    return VOXELS[np.newaxis].transpose([list(SIZES).index(name) for name in order])


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("tczyx")])
def test_any_order_of_named_axes_is_seen_as_czyx(order):
    axes = find_axes(stored(order).shape, order, "here", Opening())
    np.testing.assert_array_equal(axes.view(stored(order)), VOXELS)
    part = (slice(1, 3), slice(0, 2), slice(2, 5))
    np.testing.assert_array_equal(axes.view(stored(order), part), VOXELS[(..., *part)])
    assert axes.pick([SIZES[name] for name in order]) == [3, 4, 5]
    assert axes.pick([SIZES[name] for name in order if name in "zyx"]) == [3, 4, 5]


@pytest.mark.parametrize("names", [("Depth", "row", "Col"), ("slice", "height", "width"), ("Z", "Y", "X")])
def test_axes_go_by_the_usual_words(names):
    assert find_axes((3, 4, 5), names, "here", Opening()).order == (0, 1, 2)


@pytest.mark.parametrize("value", ["zyxc", "z y x c", "z,y,x,c", b"zyxc", [*"zyxc"], np.array([*"zyxc"], "S1")])
def test_names_are_read_in_any_notation(value):
    assert axis_names(value) == ("z", "y", "x", "c")


def test_three_axes_that_nobody_names_are_zyx():
    assert find_axes((3, 4, 5), (), "here", Opening()).order == (0, 1, 2)
    assert find_axes((3, 4, 5), ("dim_0", "", "dim_2"), "here", Opening()).order == (0, 1, 2)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 512, 512, 3), (1, 2, 3, 4, 5)])
def test_more_that_nobody_names_are_refused_with_the_option_that_says(shape):
    with pytest.raises(GeometryError, match="--axes"):
        find_axes(shape, (), "here", Opening())
    assert find_axes((4, 5, 6, 2), (), "here", Opening(axes="zyxc")).order == (3, 0, 1, 2)


@pytest.mark.parametrize("order", ["yx", "xy", "cyx", "yxc", "xyc"])
def test_an_image_without_z_is_one_section(order):
    whole = VOXELS[:, 1] if "c" in order else VOXELS[0, 1]
    image = whole.transpose([("cyx" if "c" in order else "yx").index(name) for name in order])
    for axes in (find_axes(image.shape, order, "a", Opening()), find_axes(image.shape, (), "a", Opening(axes=order))):
        np.testing.assert_array_equal(axes.view(image), whole[..., np.newaxis, :, :])
        part = (slice(0, 1), slice(1, 3), slice(2, 5))
        np.testing.assert_array_equal(axes.view(image, part), whole[..., np.newaxis, 1:3, 2:5])
        assert axes.zyx(image.shape) == (1, 4, 5)
        assert axes.pick([40, 4, 4]) == [40, 4, 4]
        assert axes.pick(image.shape) == ([] if len(order) == 2 else axes.pick(image.shape))


def test_the_one_of_three_axes_without_a_name_is_the_one_that_lacks():
    assert find_axes((3, 4, 5), ("None", "y", "x"), "here", Opening()).order == (0, 1, 2)
    assert find_axes((4, 5, 3), ("x", "y", ""), "here", Opening()).order == (2, 1, 0)


@pytest.mark.parametrize(
    ("shape", "names", "example"),
    [
        ((4, 5), (), "yx"),
        ((4, 5), ("a", "b"), "yx"),
        ((4, 5), ("y", "b"), "yx"),
        ((3, 4, 5), ("c", "y", "b"), "cyx"),
        ((3, 4, 5), ("a", "x", "y"), "zxy"),
        ((3, 4, 5, 2), ("a", "y", "x", "b"), "zyxc"),
    ],
)
def test_axes_that_are_not_known_are_asked_for_with_an_example_that_keeps_those_that_are(shape, names, example):
    with pytest.raises(GeometryError, match=f"e.g. --axes {example}$"):
        find_axes(shape, names, "here", Opening())


def test_what_the_caller_states_wins_over_what_the_source_says():
    assert find_axes((3, 4, 5), "xyz", "here", Opening(axes="zyx")).order == (0, 1, 2)


def test_a_single_channel_or_time_point_is_left_out():
    axes = find_axes((1, 3, 4, 5, 1), "tzyxc", "here", Opening())
    assert (axes.order, axes.fixed) == ((1, 2, 3), ((0, 0), (4, 0)))
    kept = find_axes((1, 3, 4, 5, 1), "tzyxc", "here", Opening(), keep_channel=True)
    assert kept.order == (4, 1, 2, 3)


def test_one_of_several_time_points_is_chosen():
    series = np.stack([VOXELS, -VOXELS])
    with pytest.raises(GeometryError, match=r"2 time points.*--time"):
        find_axes(series.shape, "tczyx", "here", Opening())
    axes = find_axes(series.shape, "tczyx", "here", Opening(time=1))
    np.testing.assert_array_equal(axes.view(series), -VOXELS)
    with pytest.raises(ParameterError, match="no time point 2; choose 0 to 1"):
        find_axes(series.shape, "tczyx", "here", Opening(time=2))
    with pytest.raises(ParameterError, match="no time axis"):
        find_axes((3, 4, 5), (), "here", Opening(time=1))


@pytest.mark.parametrize("names", ["tyx", ("z", "y", "wavelength"), "zzx", "zyxc"])
def test_names_that_make_no_volume_are_refused_with_what_they_are(names):
    with pytest.raises(GeometryError, match="--axes"):
        find_axes((3, 4, 5), names, "here", Opening())


@pytest.mark.parametrize("stated", ["zyxc", "zy", "zyw", "zzyx", ""])
def test_stated_axes_must_fit(stated):
    with pytest.raises(ParameterError, match="axes"):
        find_axes((3, 4, 5), (), "here", Opening(axes=stated))


def test_an_axis_of_length_1_does_not_stand_in_the_way_of_its_namesake():
    axes = find_axes((1, 2, 3, 4, 5), ["sample^", "channel^", *"zyx"], "here", Opening())
    np.testing.assert_array_equal(axes.view(VOXELS[np.newaxis]), VOXELS)
