from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.stores.placement import is_whole, nm_per, parse_length, whole_voxels


@pytest.mark.parametrize(
    ("unit", "nm"),
    [
        *[(name, 1.0) for name in ("nm", "nanometer", "nanometers", "Nanometre", " nm ")],
        *[(name, 1000.0) for name in ("um", "µm", "μm", "micron", "microns", "\\u00B5m", "micrometer")],
        *[(name, 0.1) for name in ("angstrom", "Å", "Å")],
        ("mm", 1e6),
        ("inch", 2.54e7),
        *[(name, None) for name in ("pixel", "second", "", None)],
    ],
)
def test_units_of_length_by_any_of_their_names(unit, nm):
    assert nm_per(unit) == nm


@given(value=st.floats(0.001, 1e6), unit=st.sampled_from(("nm", "um", "mm")))
def test_a_length_is_a_number_and_a_unit(value, unit):
    assert parse_length(f"{value!r} {unit}") == value * nm_per(unit)


@pytest.mark.parametrize("text", ["", "nm", "4", "4 pixels", "4 nm 5"])
def test_other_texts_are_no_length(text):
    assert parse_length(text) is None


@given(offset=st.integers(-(10**9), 10**9), size=st.floats(0.01, 1e5))
def test_a_physical_position_of_a_whole_voxel_is_that_voxel(offset, size):
    position = offset * size / size
    assert is_whole(position)
    assert whole_voxels((position, 0.0, 0.0), "here") == (offset, 0, 0)


def test_half_a_voxel_goes_up():
    assert whole_voxels((0.5, -0.5, 1.4), "here") == (1, 0, 1)
