from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.stores.axes import Axes
from daskflow.stores.ome_metadata import Image, Level, offsets_of, parse_image, scaled_by, translation_of

AXES = Axes((0, 1, 2))


def image_of(*levels: tuple[float, float]) -> Image:
    """An image whose levels have these scales and translations on every axis."""
    stored = tuple(Level(str(i), (s,) * 3, (t,) * 3) for i, (s, t) in enumerate(levels))
    return Image("0.5", ("z", "y", "x"), ("nanometer",) * 3, stored, ((1.0,) * 3, (0.0,) * 3))


@given(offset=st.integers(-(10**8), 10**8), finest=st.floats(0.1, 1e4), factor=st.integers(1, 64))
def test_an_offset_survives_as_a_translation(offset, finest, factor):
    scale = finest * factor
    image = image_of((finest, 0.0), (scale, translation_of(offset, scale, finest)))
    assert offsets_of(image, AXES, "here")[1] == (offset,) * 3


@given(corner=st.integers(-1000, 1000), factor=st.integers(2, 8), averaged=st.booleans())
def test_both_conventions_of_coarse_levels_give_the_same_corner(corner, factor, averaged):
    half = (factor - 1) / 2 if averaged else 0.0
    image = image_of((1.0, corner * factor), (factor, corner * factor + half))
    assert offsets_of(image, AXES, "here") == [(corner * factor,) * 3, (corner,) * 3]


def test_a_level_of_averages_is_centred_between_the_voxels_it_averages():
    assert translation_of(0, 2, 1) == (0 + 1) / 2
    assert translation_of(3, 40, 10) == (120 + 130 + 140 + 150) / 4


@pytest.mark.parametrize(
    ("stated", "names"),
    [({"version": "0.1"}, "tczyx"), ({"version": "0.2"}, "tczyx"), ({"version": "0.3", "axes": list("zyx")}, "zyx")],
)
def test_levels_of_versions_without_scales_are_as_coarse_as_their_arrays_are_small(stated, names):
    old = {"multiscales": [{**stated, "datasets": [{"path": "s0"}, {"path": "s1"}]}]}
    image = parse_image(old, 2, "here")
    lead = [1] * (len(names) - 3)
    scaled = scaled_by(image, [[*lead, 9, 20, 21], [*lead, 9, 10, 11]])
    assert scaled.names == tuple(names)
    assert [level.scale for level in scaled.levels] == [(1,) * len(names), (*lead, 1, 2, 2)]


@pytest.mark.parametrize(("attributes", "version"), [({}, 2), ({"multiscales": []}, 2), ({"multiscales": [1]}, 3)])
def test_a_group_without_multiscales_is_no_image(attributes, version):
    assert parse_image(attributes, version, "here") is None
