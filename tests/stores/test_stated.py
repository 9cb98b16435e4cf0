from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.stores.axes import Axes
from daskflow.stores.base import Opening
from daskflow.stores.stated import Stated, is_whole, settle, voxel_size_of, whole_voxels

ZYX = Axes((0, 1, 2))
XYZ = Axes((2, 1, 0))


def settled(stated, opening=None, axes=ZYX):
    return settle(stated, axes, opening or Opening(), shape=(4, 5, 6), dtype=np.dtype(">u2"), url="here")


def from_tags(size, units="nm"):
    return Stated(voxel_size=size, units=units, sources={"voxel_size": "tags"})


@pytest.mark.parametrize("units", ["um", ["um"], ("um", "um", "um"), np.array([b"um"] * 3), b"um"])
def test_a_unit_is_one_for_all_axes_or_one_per_axis(units):
    assert voxel_size_of(from_tags([0.04, 0.004, 0.0081], units), ZYX) == ((40, 4, 8.1), "tags")


def test_units_go_with_the_axes_in_whatever_order_they_are_stored():
    stated = from_tags([4, 0.008, 400], ["nm", "um", "Å"])
    assert voxel_size_of(stated, XYZ)[0] == (40, 8, 4)


@pytest.mark.parametrize("unit", ["furlong", "pixel", "", None])
def test_an_unknown_unit_is_named_with_the_axes_beside_it(unit, caplog):
    caplog.set_level(logging.WARNING, "daskflow")  # whatever an earlier test has set
    spec, sources = settled(from_tags([2, 4, 4], [unit, "nm", "nm"]))
    assert spec.voxel_size is None
    assert f"z 2 '{unit or ''}', y 4 nm, x 4 nm" in sources["voxel_size"]
    assert (unit == "furlong") == ("unknown unit of length 'furlong'" in sources["voxel_size"])
    assert [r.levelno for r in caplog.records] == ([logging.WARNING] if unit == "furlong" else [])


@pytest.mark.parametrize("size", [[0, 4, 4], [None, 4, 4], [float("nan"), 4, 4], [-1, 4, 4], ["", 4, 4]])
def test_a_size_that_one_axis_lacks_is_unknown(size):
    size, why = voxel_size_of(from_tags(size), ZYX)
    assert size is None
    assert "y 4 nm, x 4 nm" in why


def test_what_the_caller_states_wins_and_is_said():
    stated = Stated(voxel_size=[1, 1, 1], voxel_offset=[9, 9, 9], layer_type="image")
    spec, sources = settled(stated, Opening(voxel_size=(40, 4, 4), voxel_offset=(1, 2, 3), layer_type="segmentation"))
    assert (spec.voxel_size, spec.box.start, spec.layer_type) == ((40, 4, 4), (1, 2, 3), "segmentation")
    assert sources["voxel_size"] == "option --voxel-size"
    assert sources["voxel_offset"] == "option --voxel-offset"
    assert sources["layer_type"] == "option --layer-type"


def test_a_physical_position_is_in_voxels_of_the_size_that_is_known():
    said = {"voxel_offset": "offset"}
    stated = Stated(voxel_size=[40, 4, 4], position=[0.4, 0.04, 0.4], position_units="um", sources=said)
    assert settled(stated)[0].box.start == (10, 10, 100)
    alone = Stated(position=[400, 40, 400], sources=said)
    assert settled(alone, Opening(voxel_size=(40, 4, 4)))[0].box.start == (10, 10, 100)
    spec, sources = settled(alone)
    assert spec.box.start == (0, 0, 0)
    assert "without a voxel size" in sources["voxel_offset"]


@pytest.mark.parametrize(
    "place",
    [{"voxel_offset": [float("inf"), 0, 0]}, {"position": [0, float("nan"), 0]}, {"position": [0, "a", None]}],
)
def test_a_position_that_is_no_number_is_none(place):
    assert settled(Stated(voxel_size=[1, 1, 1], **place))[0].box.start == (0, 0, 0)


def test_nothing_stated_is_said_to_be_so():
    spec, sources = settled(Stated())
    assert sources == {
        "axes": "assumed: nothing states them",
        **dict.fromkeys(("voxel_size", "voxel_offset", "layer_type", "channel_names"), "not stated"),
    }
    assert spec.dtype == np.dtype("u2")
    assert spec.voxel_size is None
    assert spec.dtype.isnative


@given(offset=st.integers(-(10**9), 10**9), size=st.floats(0.01, 1e5))
def test_a_physical_position_of_a_whole_voxel_is_that_voxel(offset, size):
    position = offset * size / size
    assert is_whole(position)
    assert whole_voxels((position, 0.0, 0.0), "here") == (offset, 0, 0)


def test_half_a_voxel_goes_up():
    assert whole_voxels((0.5, -0.5, 1.4), "here") == (1, 0, 1)
